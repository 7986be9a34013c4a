//! Numbers that are none: the run stops, says where, and keeps what it can go on from.

use serde_json::Value;

use super::between::altering;
use super::*;

fn checkpoints(run: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(run.join("checkpoints")).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_policy_that_diverged_does_not_take_the_place_of_a_good_one() {
    let folder = start(10);
    let mut run = rl(folder.path(), "far", "grpo", 2);
    (run.update.minibatches, run.checkpoint.every, run.checkpoint.keep) = (1, 50, 1);
    go(&run);
    let good = run.learning_rate.peak;
    // Finite parameters whose forward pass overflows.
    (run.learning_rate.peak, run.steps) = (1e12, 8);
    let error = go_with(&run, true).unwrap_err();
    let said = error.to_string();
    assert!(said.starts_with("step ") && said.contains("--force"), "{said}");
    assert_eq!(checkpoints(&run.output), ["step-000002"], "{said}");
    (run.learning_rate.peak, run.steps) = (good, 3);
    go_with(&run, true).unwrap();
}

/// Parameters that are finite, of which no number can be computed: the step that they are from looks whole.
#[test]
fn a_checkpoint_that_is_due_holds_a_policy_that_can_go_on() {
    let folder = start(10);
    let mut rl = rl(folder.path(), "rl", "grpo", 2);
    rl.update.minibatches = 1;
    for mut run in [rl, sft(folder.path(), "sft", 2)] {
        (run.checkpoint.every, run.checkpoint.keep) = (1, 1);
        go(&run);
        (run.learning_rate.peak, run.steps) = (1e15, 4);
        let error = go_with(&run, true).unwrap_err().to_string();
        assert!(error.contains("step 3: what the policy says after the update is not finite"), "{error}");
        assert_eq!(checkpoints(&run.output), ["step-000002"], "{error}");
    }
}

#[test]
fn what_an_evaluation_finds_broken_is_not_kept() {
    let folder = start(10);
    let mut run = sft(folder.path(), "far", 2);
    go(&run);
    (run.learning_rate.peak, run.steps, run.checkpoint.keep) = (1e12, 6, 1);
    (run.evaluation.every, run.rollout.max_tokens) = (1, 96);
    let error = go_with(&run, true).unwrap_err().to_string();
    assert!(error.contains("is not finite"), "{error}");
    assert_eq!(checkpoints(&run.output), ["step-000002"], "{error}");
}

#[test]
fn demonstrations_that_made_a_number_that_is_none_are_named() {
    let folder = tempfile::tempdir().unwrap();
    world(folder.path());
    let mut run = sft(folder.path(), "broken", 3);
    (run.learning_rate.peak, run.sft.batch) = (1e30, 3);
    let error = go_with(&run, false).unwrap_err();
    let TrainError::Diverged { step, what } = &error else { panic!("{error}") };
    let lines = what.split_once("on the lines ").unwrap().1.trim_end_matches(',');
    let lines: Vec<usize> = lines.split(", ").map(|line| line.parse().unwrap()).collect();
    assert!(*step == 2 && lines.len() == 3 && lines.iter().all(|line| (1..=400).contains(line)), "{error}");
}

/// A reward server whose rewards are finite, and their squares not.
fn vast(server: &Arc<Server>) -> String {
    altering(server, |answer| {
        for reward in answer["rewards"].as_array_mut().unwrap() {
            *reward = Value::from(reward.as_f64().unwrap() * 1e200);
        }
    })
}

#[test]
fn a_measure_that_is_no_number_stops_the_run_with_its_batch_saved() {
    let folder = start(10);
    let server = Arc::new(Server::start(&[]));
    let mut run = by_server(folder.path(), "vast", &server, 1);
    run.reward.url = Some(vast(&server));
    let error = go_with(&run, false).unwrap_err();
    let TrainError::NotFinite { what, saved, .. } = &error else { panic!("{error}") };
    assert!(what.contains("the metric reward/std") && saved.exists(), "{error}");
    assert!(!run.output.join("checkpoints").exists());
}
