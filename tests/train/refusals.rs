//! What a run refuses before it touches anything, and what it leaves behind when it has to stop.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use serde_json::{Value, json};

use super::*;

/// Names of a folder's files with what is in them.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().is_file());
    let mut files: Vec<_> = entries
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_run_that_may_not_go_on_is_left_as_it_was() {
    let folder = start(10);
    let run = rl(folder.path(), "kept", "grpo", 3);
    go(run.clone());
    // Started again it would go on from step 2, and cut the line of step 3 off.
    std::fs::remove_dir_all(run.output.join("checkpoints/step-000003")).unwrap();
    let before = contents(&run.output);
    let refused = |change: fn(&mut TrainConfig)| {
        let mut other = run.clone();
        change(&mut other);
        go_with(other, false).unwrap_err().to_string()
    };
    assert!(refused(|run| run.rollout.group_size = 5).contains("the configuration changed"));
    assert!(refused(|run| run.seed = 4).contains("the seed changed since this run was stopped (3 before, 4 now)"));
    assert_eq!(contents(&run.output), before);
    go(run);
}

#[test]
fn a_run_that_stopped_early_stays_so() {
    let folder = start(10);
    let mut run = rl(folder.path(), "early", "grpo", 4);
    (run.evaluation.every, run.evaluation.target) = (1, Some(0.0));
    let end = |run: &TrainConfig, force| {
        Run::open(run.clone(), &options("short_form_qa_curriculum", force)).unwrap().go(&mut |_| {}, &|| false).unwrap()
    };
    let first = end(&run, false);
    assert!(first.steps == 1 && first.early.as_ref().is_some_and(|why| why.contains("target")), "{first:?}");
    let model = weights(&run.output.join("model"));
    let again = end(&run, false);
    assert_eq!((again.steps, &again.early), (1, &first.early));
    assert_eq!(weights(&run.output.join("model")), model);
    run.evaluation.target = None;
    assert_eq!(end(&run, true).steps, 4, "with other settings there is more to do");
}

#[test]
fn one_process_at_a_time_trains_in_a_folder() {
    let folder = start(10);
    let run = rl(folder.path(), "shared", "grpo", 1);
    let first = Run::open(run.clone(), &options("short_form_qa_curriculum", false)).unwrap();
    let error = go_with(run.clone(), false).unwrap_err().to_string();
    assert!(error.contains("another process trains in this folder"), "{error}");
    drop(first);
    go(run);
}

/// An address before a server at which `reward` answers for it. It outlives the test, and must not keep the server alive.
pub(crate) fn before(server: &Arc<Server>, reward: axum::routing::MethodRouter) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let known = Arc::downgrade(server);
    let rubric = move |axum::extract::Path(name): axum::extract::Path<String>| {
        let known = known.upgrade().unwrap();
        async move { tokio::task::spawn_blocking(move || known.get(&format!("/rubrics/{name}")).text()).await.unwrap() }
    };
    let app = axum::Router::new().route("/rubrics/{name}", axum::routing::get(rubric)).route("/reward", reward);
    std::thread::spawn(move || runtime.block_on(async { axum::serve(listener, app).await }));
    url
}

/// A reward server that fails from one request on.
pub(crate) fn failing(server: &Arc<Server>, answers: usize) -> String {
    let asked = Arc::new(AtomicUsize::new(0));
    let known = Arc::downgrade(server);
    let reward = move |body: String| {
        let (server, asked) = (known.upgrade().unwrap(), asked.clone());
        async move {
            if asked.fetch_add(1, Ordering::SeqCst) >= answers {
                return (axum::http::StatusCode::SERVICE_UNAVAILABLE, String::new());
            }
            let answer = tokio::task::spawn_blocking(move || server.post("/reward", &body).text()).await.unwrap();
            (axum::http::StatusCode::OK, answer)
        }
    };
    before(server, axum::routing::post(reward))
}

/// A reward server whose first answer to each request is lost; the keys that it heard.
fn losing(server: &Arc<Server>) -> (String, Arc<Mutex<Vec<String>>>) {
    let keys = Arc::new(Mutex::new(Vec::new()));
    let (known, heard) = (Arc::downgrade(server), keys.clone());
    let reward = move |headers: axum::http::HeaderMap, body: String| {
        let (server, heard) = (known.upgrade().unwrap(), heard.clone());
        async move {
            let key = headers.get("idempotency-key").map_or("", |key| key.to_str().unwrap()).to_owned();
            let sent =
                [("Content-Type", "application/json"), ("Idempotency-Key", &key)].map(|(k, v)| (k, v.to_owned()));
            let answer = tokio::task::spawn_blocking(move || {
                let sent = sent.each_ref().map(|(name, value)| (*name, value.as_str()));
                server.send("POST", "/reward", &sent, Some(body.as_bytes())).text()
            });
            let answer = answer.await.unwrap();
            let mut heard = heard.lock().unwrap();
            heard.push(key);
            // Every other one is a repeat.
            let status = if heard.len() % 2 == 0 { 200 } else { 502 };
            (axum::http::StatusCode::from_u16(status).unwrap(), answer)
        }
    };
    (before(server, axum::routing::post(reward)), keys)
}

/// A reward server whose answers are changed on their way.
pub(crate) fn altering(server: &Arc<Server>, change: fn(&mut Value)) -> String {
    let known = Arc::downgrade(server);
    let reward = move |body: String| {
        let server = known.upgrade().unwrap();
        async move {
            let answer = tokio::task::spawn_blocking(move || server.post("/reward", &body).json());
            let mut answer = answer.await.unwrap();
            change(&mut answer);
            answer.to_string()
        }
    };
    before(server, axum::routing::post(reward))
}

/// A reward server that gives every other item no score.
fn forgetting(server: &Arc<Server>) -> String {
    altering(server, |answer| {
        for place in (0..answer["results"].as_array().unwrap().len()).step_by(2) {
            answer["rewards"][place] = Value::Null;
            let item = &mut answer["results"][place];
            (item["reward"], item["valid"]) = (Value::Null, false.into());
            item["errors"] = json!([{"code": "judge_timeout", "message": "it was late", "pointer": "", "stage": null}]);
        }
    })
}

/// They were written, and took their time.
#[test]
fn rollouts_without_a_score_count_as_written() {
    let folder = start(10);
    let server = Arc::new(Server::start(&[]));
    let whole = by_server(folder.path(), "whole", &server, 1);
    let mut half = by_server(folder.path(), "half", &server, 1);
    half.reward.url = Some(forgetting(&server));
    let outputs = [whole.output.clone(), half.output.clone()];
    go(whole);
    go(half);
    let [whole, half] = outputs;
    assert_eq!(series(&half, &Metric::RolloutInvalid), [0.5]);
    for metric in [Metric::RolloutTokens, Metric::RolloutLengthMax, Metric::RolloutTruncated, Metric::RolloutTurns] {
        assert_eq!(series(&half, &metric), series(&whole, &metric), "{metric}");
    }
}

#[test]
fn what_is_asked_again_is_stored_once() {
    let folder = start(10);
    let database = format!("sqlite:{}", folder.path().join("scores.db").display());
    let server = Arc::new(Server::start(&["--store", &database]));
    let mut run = by_server(folder.path(), "asked", &server, 2);
    let (url, keys) = losing(&server);
    (run.reward.url, run.reward.patience_s) = (Some(url), 60);
    go(run);
    let n = server.get("/runs/asked-s3").json();
    assert_eq!(n["n"], 2 * 24, "{n:#}");
    let keys = keys.lock().unwrap();
    assert!(keys.chunks(2).all(|pair| pair[0] == pair[1]), "{keys:?}");
    let different: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!(different.len() * 2, keys.len(), "{keys:?}");
}

#[test]
fn a_rubric_whose_judge_is_not_there_is_refused() {
    let folder = start(10);
    let run = rl(folder.path(), "unjudged", "grpo", 1);
    let error = Run::open(run, &options("long_form_qa", false)).err().unwrap().to_string();
    assert!(error.contains("\"long_form_qa\" asks the judge \"default\"") && error.contains("--judge"), "{error}");
}

#[test]
fn what_cannot_be_learnt_from_is_named_before_the_first_step() {
    let folder = start(10);
    let path = folder.path().join("bad.jsonl");
    let user = r#"{"role":"user","content":"a"}"#;
    let long = "word ".repeat(2000);
    for (turns, says) in [
        (r#"{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f"}}]}"#.to_owned(), "`tool_calls`"),
        (r#"{"role":"assistant","content":"b"},{"role":"assistant","content":"c"}"#.to_owned(), "in a row"),
        (r#"{"role":"assistant","content":"b"},{"role":"tool","content":"c"}"#.to_owned(), "the last message"),
        (format!(r#"{{"role":"assistant","content":"{long}"}}"#), "context of 256"),
    ] {
        std::fs::write(&path, format!("{{\"messages\":[{user},{turns}]}}\n")).unwrap();
        let mut run = sft(folder.path(), "bad", 1);
        run.sft.demonstrations = path.clone();
        let error = go_with(run, false).unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains(says), "{error}");
    }
    let questions = folder.path().join("world/train.jsonl");
    let text = std::fs::read_to_string(&questions).unwrap();
    let mut line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    line["id"] = "too-long".into();
    line["question"] = long.into();
    std::fs::write(&questions, format!("{text}{line}\n")).unwrap();
    let error = go_with(rl(folder.path(), "long", "grpo", 1), false).unwrap_err().to_string();
    assert!(error.contains("\"too-long\"") && error.contains("context"), "{error}");
}
