//! A run that is told to stop loses nothing, and one that goes back is counted once by the server that scores it.

use std::process::{Child, Stdio};

use super::between::{before, blind};
use super::*;

/// A run with its rewards from a server that keeps them.
fn kept(folder: &Path, name: &str, steps: u64) -> (Server, TrainConfig) {
    let server = storing(folder);
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
    go(&run);
    assert_eq!(scores(&server, "back"), Some(3 * 24));
    // Steps 3 and 4, of which the third was done before.
    go_back_before(&run, 3);
    run.steps = 4;
    go(&run);
    assert_eq!(scores(&server, "back"), Some(4 * 24));
    // One that had no checkpoint yet does all again.
    std::fs::remove_dir_all(run.output.join("checkpoints")).unwrap();
    go(&run);
    assert_eq!(scores(&server, "back"), Some(4 * 24));
    let prompts = server.get("/runs/back/prompts").json();
    assert_eq!(prompts["prompts"], 24, "{prompts:#}");
    // Other rollouts of a step that was there before are those of another run.
    go_back_before(&run, 4);
    run.rollout.temperature = 0.5;
    // Whoever goes back from there has the keys of that one.
    for _ in 0..2 {
        go_with(&run, true).unwrap();
        assert_eq!((scores(&server, "back"), scores(&server, "back~2")), (Some(4 * 24), Some(2 * 24)));
        go_back_before(&run, 4);
    }
    // Another seed of the same file is a run of its own.
    let other = TrainConfig { seed: 5, steps: 1, output: folder.path().join("other"), ..run };
    go(&other);
    assert_eq!((scores(&server, "back"), scores(&server, "back-s5")), (Some(4 * 24), Some(24)));
}

/// Otherwise it would get the answer again that stopped it.
#[test]
fn a_step_of_which_nothing_was_scored_is_asked_anew() {
    let folder = start(10);
    let server = Arc::new(Server::start(&[]));
    let (url, keys) = blind(&server, 1);
    let mut run = rl(folder.path(), "blind", "grpo", 1);
    run.reward.url = Some(url);
    let error = go_with(&run, false).unwrap_err().to_string();
    assert!(error.contains("no rollout of step 1 could be scored"), "{error}");
    go(&run);
    let keys = keys.lock().unwrap();
    assert!(keys.len() == 2 && keys[0] != keys[1], "{keys:?}");
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    for _ in 0..2400 {
        if is_there() {
            return;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    panic!("{what}: not within a minute");
}

fn signal(process: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &process.id().to_string()]).status().unwrap().success());
}

/// Whether no process trains in a folder, of which one did.
fn is_free(run: &Path) -> bool {
    std::fs::File::open(run.join("lock")).unwrap().try_lock().is_ok()
}

fn has_steps(run: &Path) -> bool {
    std::fs::read_to_string(run.join("metrics.jsonl")).is_ok_and(|text| !text.is_empty())
}

#[test]
fn a_run_that_is_told_to_stop_loses_no_step() {
    let folder = start(10);
    let (mut whole, mut told) = (rl(folder.path(), "whole", "grpo", 8), rl(folder.path(), "told", "grpo", 8));
    (whole.checkpoint.every, told.checkpoint.every) = (0, 0);
    let process = train(&told, "").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a step", || has_steps(&told.output));
    signal(&process, "-INT");
    let ended = process.wait_with_output().unwrap();
    let said = [ended.stdout, ended.stderr].map(|said| String::from_utf8(said).unwrap());
    assert_eq!(ended.status.code(), Some(130), "{said:?}");
    assert!(said[0].contains("stopped at step ") && said[0].contains("the same command goes on"), "{said:?}");
    assert!(said[1].contains("a second signal ends it at once"), "{said:?}");
    let done = series(&told.output, &Metric::PolicyLoss).len();
    assert!(told.output.join(format!("checkpoints/step-{done:06}")).exists() && done < 8, "{done}");
    assert!(!told.output.join("model").exists());
    go(&told);
    go(&whole);
    assert_eq!(weights(&whole.output.join("model")), weights(&told.output.join("model")));
}

#[test]
fn a_run_that_is_told_twice_ends_at_once() {
    let folder = start(10);
    let server = Arc::new(Server::start(&[]));
    let mut run = rl(folder.path(), "twice", "grpo", 2);
    // It would be waited for.
    run.reward.url = Some(before(&server, axum::routing::post(|| async { axum::http::StatusCode::BAD_GATEWAY })));
    let mut process = train(&run, "").stderr(Stdio::null()).spawn().unwrap();
    wait_for("a request", || run.output.join("reward_run.json").exists());
    // One that comes right after the first is that one once more.
    for pause_ms in [20, 2000] {
        signal(&process, "-TERM");
        std::thread::sleep(Duration::from_millis(pause_ms));
        assert!(process.try_wait().unwrap().is_none(), "it waits for its server");
    }
    signal(&process, "-TERM");
    wait_for("the end", || process.try_wait().unwrap().is_some_and(|status| status.code() == Some(143)));
}

#[test]
fn a_run_stops_when_the_experiment_that_started_it_is_gone() {
    let folder = start(10);
    let run = rl(folder.path(), "orphan", "grpo", 1000);
    let program = env!("CARGO_BIN_EXE_gradus");
    let config = run.output.with_extension("toml");
    std::fs::write(&config, toml::to_string(&run).unwrap()).unwrap();
    let line = format!("{program} --config {} train --quiet --parent=$$ & wait", config.display());
    let mut parent = Command::new("bash").args(["-c", &line]).spawn().unwrap();
    wait_for("a step", || has_steps(&run.output));
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_for("the end of the run", || is_free(&run.output));
    assert!(run.output.join("checkpoints").exists() && !run.output.join("model").exists());
}

const SMALL_WORLD: &str = "people = 20\ntrain = 40\nheld_out = 20\ndemonstrations = 50\n";

/// The process of an experiment with one run.
fn experiment(out: &Path, world: &str) -> Child {
    let settings = out.with_extension("toml");
    let text = "main_seeds = 1\nother_seeds = 1\nonly = [\"vspo-prs\"]\ndevice = \"cpu\"\n[world]\n";
    std::fs::write(&settings, format!("{text}{world}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gradus"));
    command.arg("--config").arg(settings).args(["experiment", "paper", "--out"]).arg(out);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn ends_at_once(mut process: Child) {
    signal(&process, "-TERM");
    wait_for("the end", || process.try_wait().unwrap().is_some_and(|status| status.code() == Some(143)));
}

#[test]
fn an_experiment_that_has_no_run_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("large");
    let process = experiment(&out, "people = 20000\ntrain = 150000\nheld_out = 20000\ndemonstrations = 50000\n");
    wait_for("a world", || out.join("configs/world.toml").exists());
    ends_at_once(process);
    assert!(!out.join("world/README.md").exists(), "it was not made first");
    // All is done, and the report waits for what nobody writes.
    let out = folder.path().join("done");
    let run = out.join("runs/vspo-prs-s0");
    for done in [&out.join("starts/start-s0"), &run] {
        std::fs::create_dir_all(done.join("model")).unwrap();
        std::fs::write(done.join("model/model.safetensors"), "").unwrap();
    }
    let unread = run.join("run.json");
    assert!(Command::new("mkfifo").arg(&unread).status().unwrap().success());
    let process = experiment(&out, SMALL_WORLD);
    let writer = std::thread::spawn(move || std::fs::File::options().write(true).open(unread));
    wait_for("the report", || writer.is_finished());
    ends_at_once(process);
    drop(writer);
}

#[test]
fn an_experiment_leaves_no_run_behind() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let start = out.join("starts/start-s0");
    for (name, code) in [("-TERM", Some(143)), ("-KILL", None)] {
        let mut process = experiment(&out, SMALL_WORLD);
        // The run has its folder to itself.
        wait_for("a run", || start.join("lock").exists() && !is_free(&start));
        signal(&process, name);
        let status = process.wait().unwrap();
        assert_eq!(status.code(), code, "{status}");
        wait_for("the end of the run", || is_free(&start));
    }
}
