//! A run that goes back is counted once by the server that scores it.

use std::sync::Mutex;

use super::refusals::before;
use super::*;

/// A run with its rewards from a server that keeps them.
fn kept(folder: &Path, name: &str, steps: u64) -> (Server, TrainConfig) {
    let database = format!("sqlite:{}", folder.join("scores.db").display());
    let server = Server::start(&["--store", &database]);
    let run = TrainConfig { seed: 0, ..by_server(folder, name, &server, steps) };
    (server, run)
}

/// How many scores a server has of a run.
fn scores(server: &Server, run: &str) -> Option<u64> {
    server.get(&format!("/runs/{run}")).json()["n"].as_u64()
}

/// What a run has that was killed before its checkpoint of a step.
fn go_back_before(run: &TrainConfig, step: u64) {
    std::fs::remove_dir_all(run.output.join(format!("checkpoints/step-{step:06}"))).unwrap();
}

#[test]
fn what_a_run_does_again_a_server_counts_once() {
    let folder = start(10);
    let (server, mut run) = kept(folder.path(), "back", 3);
    go(run.clone());
    assert_eq!(scores(&server, "back"), Some(3 * 24));
    // Steps 3 and 4, of which the third was done before.
    go_back_before(&run, 3);
    run.steps = 4;
    go(run.clone());
    assert_eq!(scores(&server, "back"), Some(4 * 24));
    // One that had no checkpoint yet does all again.
    std::fs::remove_dir_all(run.output.join("checkpoints")).unwrap();
    go(run.clone());
    assert_eq!(scores(&server, "back"), Some(4 * 24));
    let prompts = server.get("/runs/back/prompts").json();
    assert_eq!(prompts["prompts"], 24, "{prompts:#}");
    // Other rollouts of a step that was there before are those of another run.
    go_back_before(&run, 4);
    run.rollout.temperature = 0.5;
    go_with(run.clone(), true).unwrap();
    assert_eq!((scores(&server, "back"), scores(&server, "back~2")), (Some(4 * 24), Some(2 * 24)));
    // Another seed of the same file is a run of its own.
    let other = TrainConfig { seed: 5, steps: 1, output: folder.path().join("other"), ..run };
    go(other);
    assert_eq!((scores(&server, "back"), scores(&server, "back-s5")), (Some(4 * 24), Some(24)));
}

/// A server whose first answers have no reward; the keys that it heard.
fn blind(server: &Arc<Server>, answers: usize) -> (String, Arc<Mutex<Vec<String>>>) {
    let keys = Arc::new(Mutex::new(Vec::new()));
    let (known, heard) = (Arc::downgrade(server), keys.clone());
    let reward = move |headers: axum::http::HeaderMap, body: String| {
        let (server, heard) = (known.upgrade().unwrap(), heard.clone());
        async move {
            let mut answer = tokio::task::spawn_blocking(move || server.post("/reward", &body).json()).await.unwrap();
            let mut heard = heard.lock().unwrap();
            heard.push(headers["idempotency-key"].to_str().unwrap().to_owned());
            if heard.len() <= answers {
                answer["rewards"].as_array_mut().unwrap().iter_mut().for_each(|reward| *reward = ().into());
            }
            answer.to_string()
        }
    };
    (before(server, axum::routing::post(reward)), keys)
}

/// Otherwise it would get the answer again that stopped it.
#[test]
fn a_step_of_which_nothing_was_scored_is_asked_anew() {
    let folder = start(10);
    let server = Arc::new(Server::start(&[]));
    let (url, keys) = blind(&server, 1);
    let mut run = rl(folder.path(), "blind", "grpo", 1);
    run.reward.url = Some(url);
    let error = go_with(run.clone(), false).unwrap_err().to_string();
    assert!(error.contains("no rollout of step 1 could be scored"), "{error}");
    go(run);
    let keys = keys.lock().unwrap();
    assert!(keys.len() == 2 && keys[0] != keys[1], "{keys:?}");
}
