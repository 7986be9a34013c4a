//! Evaluations that a lost server prevented are made up for.

use super::between::failing;
use super::*;

/// Whether the checkpoint of a step says that its evaluation was due and failed.
fn owes_an_evaluation(run: &Path, step: u64) -> bool {
    let state = std::fs::read(run.join(format!("checkpoints/step-{step:06}/state.json"))).unwrap();
    serde_json::from_slice::<serde_json::Value>(&state).unwrap()["state"]["unexamined"].as_bool().unwrap()
}

#[test]
fn a_server_that_is_lost_at_an_evaluation_costs_no_step() {
    let folder = start(10);
    let server = Arc::new(storing(folder.path()));
    let mut lost = by_server(folder.path(), "lost", &server, 4);
    (lost.evaluation.every, lost.checkpoint.every) = (3, 50);
    // The evaluation before the first step, three steps, and then not the evaluation after them.
    lost.reward.url = Some(failing(&server, 4));
    let error = go_with(&lost, false).unwrap_err();
    assert!(matches!(error, TrainError::Reward(_)), "{error}");
    assert!(lost.output.join("checkpoints/step-000003").exists(), "what was learnt is saved");
    assert_eq!(series(&lost.output, &Metric::RewardMean).len(), 3);
    // What is evaluated is no prompt that a trainer could draw.
    let run = server.get("/runs/lost-s3").json();
    assert_eq!(run["n"], 3 * 24, "{run:#}");
    (lost.reward.url, lost.steps) = (Some(format!("http://{}", server.address())), 3);
    // A start that ends before the line is written whole leaves the one that is there.
    let (metrics, beside) = (lost.output.join("metrics.jsonl"), lost.output.join("metrics.writing"));
    let before = std::fs::read(&metrics).unwrap();
    std::fs::create_dir(&beside).unwrap();
    assert!(go_with(&lost, false).unwrap_err().to_string().contains("metrics.writing"));
    assert_eq!((std::fs::read(&metrics).unwrap(), owes_an_evaluation(&lost.output, 3)), (before, true));
    std::fs::remove_dir(&beside).unwrap();
    let ended = Run::open(lost.clone(), &options("short_form_qa_curriculum", false))
        .unwrap()
        .go(&mut |_| {}, &|| false)
        .unwrap();
    assert!(ended.steps == 3 && ended.exact_match.is_some(), "what was not looked at is: {ended:?}");
    // The step's line holds what it would hold had nothing failed, and no start looks again.
    assert_eq!(series(&lost.output, &Metric::EvalExactMatch)[1..], [ended.exact_match.unwrap()]);
    assert_eq!((series(&lost.output, &Metric::RewardMean).len(), owes_an_evaluation(&lost.output, 3)), (3, false));
}

#[test]
fn a_server_that_does_not_take_the_weights_costs_no_evaluation() {
    let folder = start(10);
    let prepared = |name: &str| {
        let (mut run, server) = written_by_server(folder.path(), name, Manner::Whole);
        (run.steps, run.evaluation.every) = (2, 2);
        (run, server)
    };
    let (whole, _server) = prepared("whole");
    go(&whole);
    let (mut lost, server) = prepared("lost");
    // At the start, after the first step, and not after the second.
    server.lost_after.store(2, Ordering::SeqCst);
    if let Some(server) = &mut lost.rollout_server {
        server.patience_s = 0;
    }
    let error = go_with(&lost, false).unwrap_err();
    assert!(matches!(error, TrainError::Rollout(_)), "{error}");
    assert!(owes_an_evaluation(&lost.output, 2));
    server.lost_after.store(usize::MAX, Ordering::SeqCst);
    go(&lost);
    assert!(!owes_an_evaluation(&lost.output, 2));
    for metric in [Metric::EvalExactMatch, Metric::EvalReward, Metric::EvalLengthMean, Metric::RewardMean] {
        assert_eq!(series(&lost.output, &metric), series(&whole.output, &metric), "{metric}");
    }
    assert_eq!(series(&lost.output, &Metric::EvalExactMatch).len(), 2);
}
