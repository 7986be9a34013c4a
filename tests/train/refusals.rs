//! What a run refuses before it touches anything, and what it leaves behind when it has to stop.

use serde_json::{Value, json};

use super::between::{altering, losing};
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
    go(&run);
    // Started again it would go on from step 2, and cut the line of step 3 off.
    std::fs::remove_dir_all(run.output.join("checkpoints/step-000003")).unwrap();
    let before = contents(&run.output);
    let refused = |change: fn(&mut TrainConfig)| {
        let mut other = run.clone();
        change(&mut other);
        go_with(&other, false).unwrap_err().to_string()
    };
    assert!(refused(|run| run.rollout.group_size = 5).contains("the configuration changed"));
    assert!(refused(|run| run.seed = 4).contains("the seed changed since this run was stopped (3 before, 4 now)"));
    assert_eq!(contents(&run.output), before);
    go(&run);
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
    let error = go_with(&run, false).unwrap_err().to_string();
    assert!(error.contains("another process trains in this folder"), "{error}");
    drop(first);
    go(&run);
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
    go(&whole);
    go(&half);
    assert_eq!(series(&half.output, &Metric::RolloutInvalid), [0.5]);
    for metric in [Metric::RolloutTokens, Metric::RolloutLengthMax, Metric::RolloutTruncated, Metric::RolloutTurns] {
        assert_eq!(series(&half.output, &metric), series(&whole.output, &metric), "{metric}");
    }
}

#[test]
fn what_is_asked_again_is_stored_once() {
    let folder = start(10);
    let server = Arc::new(storing(folder.path()));
    let mut run = by_server(folder.path(), "asked", &server, 2);
    let (url, keys) = losing(&server);
    (run.reward.url, run.reward.patience_s) = (Some(url), 60);
    go(&run);
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
        let error = go_with(&run, false).unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains(says), "{error}");
    }
    let questions = folder.path().join("world/train.jsonl");
    let text = std::fs::read_to_string(&questions).unwrap();
    let mut line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    line["id"] = "too-long".into();
    line["question"] = long.into();
    std::fs::write(&questions, format!("{text}{line}\n")).unwrap();
    let error = go_with(&rl(folder.path(), "long", "grpo", 1), false).unwrap_err().to_string();
    assert!(error.contains("\"too-long\"") && error.contains("context"), "{error}");
}
