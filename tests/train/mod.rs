//! The trainer from fresh data to an exported model, on the CPU: it learns, it resumes to the bit, and what goes wrong is
//! said.

mod between;
mod completions;
mod divergence;
mod evaluations;
mod goings_on;
mod refusals;
mod settings;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use completions::{Completions, Manner};
use gradus::judge::Judges;
use gradus::lm::Decoder;
use gradus::rubric::Rubric;
use gradus::train::algorithm::Algorithm;
use gradus::train::data::hops::{Hops, HopsConfig};
use gradus::train::metrics::{History, Metric, StepMetrics};
use gradus::train::rollout::server::{ServerConfig, WeightUpdate};
use gradus::train::{Run, RunOptions, TrainConfig, TrainError, record};

use crate::common::Server;

/// A world small enough for seconds.
fn world(folder: &Path) -> PathBuf {
    let config = HopsConfig {
        people: 40,
        companies: 8,
        towns: 8,
        countries: 4,
        books: 6,
        train: 200,
        held_out: 40,
        demonstrations: 400,
        // Most calls are flawed: form is what there is to learn.
        flawed: 1.0,
        flaws_per_call: 0.9,
        ..HopsConfig::default()
    };
    let world = folder.join("world");
    Hops::generate(config).unwrap().write(&world).unwrap();
    world
}

fn config(folder: &Path, name: &str, rest: &str) -> TrainConfig {
    let (world, output) = (folder.join("world"), folder.join(name));
    let (world, output) = (world.display(), output.display());
    let text = format!(
        r#"
        name = "{name}"
        output = "{output}"
        device = "cpu"
        seed = 3
        {rest}
        [environment]
        kind = "qa_search"
        corpus = "{world}/corpus.jsonl"
        train = "{world}/train.jsonl"
        held_out = "{world}/heldout.jsonl"
        top_k = 1
        match_terms = "all"
        passage_form = "text"
        system = ""
        [sft]
        demonstrations = "{world}/demonstrations.jsonl"
        batch = 16
        [evaluation]
        every = 0
        questions = 16
        "#
    );
    let path = folder.join(format!("{name}.toml"));
    std::fs::write(&path, text).unwrap();
    TrainConfig::read(&path).unwrap()
}

fn sft(folder: &Path, name: &str, steps: u64) -> TrainConfig {
    let tokenizer = folder.join("world/tokenizer");
    let rest = format!(
        r#"
        algorithm = "sft"
        steps = {steps}
        learning_rate = {{ peak = 3e-3 }}
        policy = {{ fresh = {{ tokenizer = "{}", hidden = 64, intermediate = 128, layers = 2, heads = 2, kv_heads = 1,
            head_dim = 32, context = 256 }} }}
        "#,
        tokenizer.display()
    );
    config(folder, name, &rest.replace(",\n", ","))
}

fn rl(folder: &Path, name: &str, algorithm: &str, steps: u64) -> TrainConfig {
    let model = folder.join("start/model");
    let rest = format!(
        r#"
        algorithm = "{algorithm}"
        steps = {steps}
        learning_rate = {{ peak = 1e-3 }}
        policy = {{ model = "{}" }}
        rollout = {{ prompts = 6, group_size = 4, max_tokens = 96 }}
        update = {{ minibatches = 2, micro_batch_tokens = 2048 }}
        checkpoint = {{ every = 2, keep = 2, rollouts_every = 2 }}
        reward = {{ rubric = "short_form_qa_curriculum" }}
        "#,
        model.display()
    );
    config(folder, name, &rest)
}

fn options(rubric: &str, force: bool) -> RunOptions {
    let text = std::fs::read_to_string(Path::new("rubrics").join(format!("{rubric}.toml"))).unwrap();
    let rubric = Arc::new(Rubric::from_toml(&text).unwrap());
    RunOptions { judges: (Judges::none(), None), rubric: Some(rubric), reward_token: None, rollout_token: None, force }
}

fn go(config: &TrainConfig) {
    go_with(config, false).unwrap();
}

fn go_with(config: &TrainConfig, force: bool) -> Result<(), TrainError> {
    Run::open(config.clone(), &options("short_form_qa_curriculum", force))?.go(&mut |_| {}, &|| false).map(|_| ())
}

/// A world and a policy that has seen a few demonstrations.
fn start(steps: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    world(folder.path());
    go(&sft(folder.path(), "start", steps));
    folder
}

fn weights(model: &Path) -> Vec<(String, Vec<f32>)> {
    let tensors = candle_core::safetensors::load(model.join("model.safetensors"), &Device::Cpu).unwrap();
    let numbers = |tensor: &Tensor| tensor.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap();
    let mut all: Vec<_> = tensors.iter().map(|(name, tensor)| (name.clone(), numbers(tensor))).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn series(run: &Path, metric: &Metric) -> Vec<f64> {
    History::read(&run.join("metrics.jsonl")).unwrap().steps.iter().filter_map(|step| step.get(metric)).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn a_tiny_policys_reward_rises_and_its_model_loads() {
    let folder = start(100);
    let losses = series(&folder.path().join("start"), &Metric::PolicyLoss);
    assert!(mean(&losses[90..]) < 0.5 * mean(&losses[..10]), "{losses:?}");
    let mut run = rl(folder.path(), "vspo", "vspo", 60);
    (run.rollout.prompts, run.learning_rate.peak) = (8, 3e-4);
    // A rubric whose weights stay: what a curriculum pays for the same rollouts moves.
    Run::open(run, &options("short_form_qa", false)).unwrap().go(&mut |_| {}, &|| false).unwrap();
    let rewards = series(&folder.path().join("vspo"), &Metric::RewardMean);
    let (first, last) = (mean(&rewards[..4]), mean(&rewards[56..]));
    assert!(last > first + 0.1, "the mean reward went from {first} to {last}: {rewards:?}");
    let model = folder.path().join("vspo/model");
    let decoder = Decoder::load(&model, &Device::Cpu, None).unwrap();
    assert_eq!(decoder.config().hidden, 64);
    assert!(model.join("tokenizer.json").exists());
}

#[test]
fn a_stopped_run_goes_on_to_the_bit() {
    let folder = start(10);
    for algorithm in ["vspo", "ppo", "dapo"] {
        let whole = rl(folder.path(), &format!("whole-{algorithm}"), algorithm, 4);
        let mut parts = rl(folder.path(), &format!("parts-{algorithm}"), algorithm, 4);
        go(&whole);
        parts.steps = 2;
        go(&parts);
        parts.steps = 4;
        go(&parts);
        assert_eq!(weights(&whole.output.join("model")), weights(&parts.output.join("model")), "{algorithm}");
        for metric in [Metric::RewardMean, Metric::PolicyLoss, Metric::PolicyKl] {
            assert_eq!(series(&whole.output, &metric), series(&parts.output, &metric), "{algorithm} {metric}");
        }
    }
}

#[test]
fn every_algorithm_and_ablation_takes_a_step() {
    let folder = start(10);
    let variants = [
        ("grpo", "", ""),
        ("cispo", "", ""),
        ("vspo", "vspo = { mode = \"regenerate\" }", "-regenerate"),
        ("vspo", "vspo = { sampling = \"random\", smoothing = false }", "-random"),
        ("grpo", "loss = { aggregation = \"seq-mean-token-mean\", kl_estimator = \"k2\" }", "-sequence"),
        ("ppo", "loss = { dual_clip = 3.0 }", "-dual"),
    ];
    for (algorithm, extra, suffix) in variants {
        let mut run = rl(folder.path(), &format!("{algorithm}{suffix}"), algorithm, 1);
        if !extra.is_empty() {
            let text = toml::to_string(&run).unwrap();
            let mut table: toml::Table = text.parse().unwrap();
            table.extend(extra.parse::<toml::Table>().unwrap());
            run = table.try_into().unwrap();
        }
        go(&run);
        assert_eq!(series(&run.output, &Metric::PolicyGradNorm).len(), 1, "{algorithm}{suffix}");
        // A critic's advantages are not taken within a group.
        let flat = series(&run.output, &Metric::GroupsZeroAdvantage).len();
        assert_eq!(flat, usize::from(algorithm != "ppo"), "{algorithm}{suffix}");
    }
}

#[test]
fn adapters_are_learnt_and_saved_as_peft_has_them() {
    let folder = start(10);
    let mut run = rl(folder.path(), "lora", "grpo", 2);
    run.policy.lora = Some(gradus::lm::training::LoraConfig { rank: 4, alpha: 8.0, ..Default::default() });
    go(&run);
    let model = run.output.join("model");
    let adapter =
        candle_core::safetensors::load(model.join("adapter/adapter_model.safetensors"), &Device::Cpu).unwrap();
    let b = &adapter["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"];
    assert_eq!(b.dims(), [64, 4]);
    assert!(b.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() > 0.0, "it learnt nothing");
    let text = std::fs::read_to_string(model.join("adapter/adapter_config.json")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["r"], 4);
    assert_ne!(weights(&model), weights(&folder.path().join("start/model")), "the merged model is the old one");
    Decoder::load(&model, &Device::Cpu, None).unwrap();
}

#[test]
fn a_damaged_checkpoint_and_a_changed_run_are_refused() {
    let folder = start(10);
    let run = rl(folder.path(), "damaged", "grpo", 2);
    go(&run);
    let said = |run: &TrainConfig| go_with(run, false).unwrap_err().to_string();
    let mut other = run.clone();
    other.rollout.group_size = 5;
    assert!(said(&other).contains("--force"));
    let error = Run::open(run.clone(), &options("binary_em", false)).err().unwrap();
    assert!(error.to_string().contains("the rubric changed"), "{error}");
    // What is known of a task is kept by its place in the file.
    let train = folder.path().join("world/train.jsonl");
    let (questions, held) = (std::fs::read_to_string(&train).unwrap(), run.output.join("metrics.jsonl"));
    let before = std::fs::read(&held).unwrap();
    let reversed: Vec<&str> = questions.lines().rev().collect();
    std::fs::write(&train, reversed.join("\n")).unwrap();
    let error = said(&run);
    assert!(error.contains("`environment.train` changed"), "{error}");
    assert_eq!(std::fs::read(&held).unwrap(), before, "nothing is touched");
    std::fs::write(&train, questions).unwrap();
    // Other prompts are other prompts, whatever changed them.
    let template = folder.path().join("start/model/tokenizer_config.json");
    let (written, marked) = (std::fs::read_to_string(&template).unwrap(), "<tool_response>RESULT: ");
    std::fs::write(&template, written.replace("<tool_response>", marked)).unwrap();
    let error = said(&run);
    assert!(error.contains("`policy: tokenizer_config.json` changed"), "{error}");
    std::fs::write(&template, written).unwrap();
    let another = folder.path().join("start/model/chat_template.jinja");
    std::fs::write(&another, "{{ messages[0].content }}").unwrap();
    let error = said(&run);
    assert!(error.contains("`policy: chat_template.jinja` changed"), "{error}");
    std::fs::remove_file(&another).unwrap();
    let file = run.output.join("checkpoints/step-000002/parameters.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let error = said(&run);
    assert!(error.contains("parameters.safetensors") && error.contains("checksum"), "{error}");
}

#[test]
fn rollouts_of_a_step_are_written_down() {
    let folder = start(10);
    let run = rl(folder.path(), "seen", "vspo", 2);
    go(&run);
    let records = record::read(&run.output, 2).unwrap();
    assert_eq!(records.len(), 24);
    assert!(records.iter().all(|record| !record.messages.is_empty() && record.scored.stages.len() == 4));
    let error = record::read(&run.output, 1).unwrap_err().to_string();
    assert!(error.contains("the steps [2]"), "{error}");
}

#[test]
fn a_task_that_a_step_holds_twice_is_two_groups() {
    let folder = start(10);
    let train = folder.path().join("world/train.jsonl");
    let questions = std::fs::read_to_string(&train).unwrap();
    std::fs::write(&train, questions.lines().take(3).collect::<Vec<_>>().join("\n")).unwrap();
    // Six prompts of three tasks: two epochs in a step.
    let run = rl(folder.path(), "twice", "grpo", 2);
    go(&run);
    let records = record::read(&run.output, 2).unwrap();
    let groups: Vec<_> = records.chunks(4).collect();
    assert_eq!(groups.len(), 6);
    for epoch in groups.chunks(3) {
        let tasks: BTreeSet<&str> = epoch.iter().map(|group| group[0].task.as_str()).collect();
        assert_eq!(tasks.len(), 3, "each epoch has every task");
    }
    for group in groups {
        assert!(group.iter().all(|record| record.task == group[0].task));
        let rewards: Vec<f64> = group.iter().map(|record| record.scored.reward.unwrap()).collect();
        assert!((group[0].group_mean - mean(&rewards)).abs() < 1e-12, "{rewards:?}");
    }
}

#[test]
fn a_task_that_a_step_holds_twice_is_one_visit_here_as_at_a_server() {
    let folder = start(10);
    let train = folder.path().join("world/train.jsonl");
    let questions = std::fs::read_to_string(&train).unwrap();
    std::fs::write(&train, questions.lines().take(4).collect::<Vec<_>>().join("\n")).unwrap();
    let server = storing(folder.path());
    let run = TrainConfig { algorithm: Algorithm::Grpo, ..by_server(folder.path(), "visits", &server, 2) };
    let state = run.output.join("checkpoints/step-000002/state.json");
    go(&run);
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(state).unwrap()).unwrap();
    let theirs = server.get("/runs/visits-s3/prompts").json();
    // Twelve groups of four tasks in two steps.
    assert_eq!((&theirs["prompts"], theirs["items"][0]["visits"].as_u64()), (&4.into(), Some(2)), "{theirs:#}");
    for prompt in theirs["items"].as_array().unwrap() {
        let ours = &state["state"]["values"][prompt["group"].as_str().unwrap()];
        for part in ["visits", "n", "mean", "std", "value", "mean_average", "std_average", "value_average"] {
            assert_eq!(ours[part], prompt[part], "{part} of {prompt} and {ours}");
        }
    }
}

#[test]
fn wrong_files_and_settings_are_named() {
    let folder = tempfile::tempdir().unwrap();
    world(folder.path());
    let path = folder.path().join("wrong.toml");
    for (text, wanted) in
        [("name = 3", "name"), ("name = \"a\"\noutput = \"b\"\nalgorithm = \"grpo2\"\nsteps = 1", "grpo2")]
    {
        std::fs::write(&path, text).unwrap();
        let error = TrainConfig::read(&path).unwrap_err().to_string();
        assert!(error.contains("wrong.toml") && error.contains(wanted), "{error}");
    }
    let mut run = sft(folder.path(), "sft", 1);
    let demonstrations = folder.path().join("bad.jsonl");
    let good = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
    std::fs::write(&demonstrations, format!("{good}\n{{\"messages\": 1}}\n")).unwrap();
    run.sft.demonstrations = demonstrations;
    let error = go_with(&run, false).unwrap_err().to_string();
    assert!(error.contains("bad.jsonl") && error.contains("line 2"), "{error}");
    let mut run = sft(folder.path(), "none", 1);
    run.policy.fresh = None;
    run.policy.model = Some(folder.path().join("nowhere"));
    assert!(go_with(&run, false).unwrap_err().to_string().contains("nowhere/config.json"));
}

#[test]
fn a_server_that_cannot_be_reached_is_waited_for_and_then_named() {
    let folder = start(10);
    let mut run = rl(folder.path(), "remote", "grpo", 1);
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    run.reward.url = Some(format!("http://127.0.0.1:{port}"));
    run.reward.patience_s = 1;
    let error = go_with(&run, false).unwrap_err();
    assert!(matches!(&error, TrainError::Reward(why) if why.contains("resume the run")), "{error}");
}

#[test]
fn a_number_that_is_none_stops_the_run_with_its_batch_saved() {
    let folder = start(10);
    let mut run = rl(folder.path(), "broken", "grpo", 3);
    run.learning_rate.peak = f64::MAX;
    let error = go_with(&run, false).unwrap_err();
    let TrainError::NotFinite { saved, .. } = &error else { panic!("{error}") };
    assert!(saved.starts_with(&run.output) && saved.exists(), "{error}");
    // The first of the step's two updates went through: what it made of the parameters is not kept.
    assert!(!run.output.join("checkpoints").exists());
}

/// A server that keeps its scores in a folder.
fn storing(folder: &Path) -> Server {
    Server::start(&["--store", &format!("sqlite:{}", folder.join("scores.db").display())])
}

/// A run whose rewards a server gives.
fn by_server(folder: &Path, name: &str, server: &Server, steps: u64) -> TrainConfig {
    let mut run = rl(folder, name, "vspo", steps);
    run.reward.url = Some(format!("http://{}", server.address()));
    run.reward.patience_s = 1;
    run
}

#[test]
fn a_servers_rewards_are_those_of_this_process() {
    let folder = start(10);
    let server = Server::start(&[]);
    let local = rl(folder.path(), "local", "vspo", 3);
    let remote = by_server(folder.path(), "remote", &server, 3);
    go(&local);
    go(&remote);
    for metric in [Metric::RewardMean, Metric::RewardStd, Metric::RolloutInvalid, Metric::PolicyLoss] {
        assert_eq!(series(&local.output, &metric), series(&remote.output, &metric), "{metric}");
    }
    for (ours, theirs) in record::read(&local.output, 2).unwrap().iter().zip(record::read(&remote.output, 2).unwrap()) {
        assert_eq!(ours, &theirs);
    }
    assert_eq!(weights(&local.output.join("model")), weights(&remote.output.join("model")));
}

#[test]
fn a_run_whose_server_was_lost_goes_on_to_the_bit() {
    let folder = start(10);
    let server = Server::start(&[]);
    let lost = by_server(folder.path(), "lost", &server, 4);
    let mut server = Some(server);
    let mut let_go = |metrics: &StepMetrics| {
        if metrics.step() == 3 {
            server = None;
        }
    };
    let run = Run::open(lost.clone(), &options("short_form_qa_curriculum", false)).unwrap();
    let error = run.go(&mut let_go, &|| false).unwrap_err();
    assert!(matches!(&error, TrainError::Reward(why) if why.contains("resume the run")), "{error}");
    // Checkpoints are due after steps 2 and 4; what is saved after 3 is saved because of the failure.
    assert!(lost.output.join("checkpoints/step-000003").exists());
    let server = Server::start(&[]);
    go(&by_server(folder.path(), "lost", &server, 4));
    let whole = by_server(folder.path(), "whole", &server, 4);
    go(&whole);
    assert_eq!(weights(&lost.output.join("model")), weights(&whole.output.join("model")));
}

fn written_by_server(folder: &Path, name: &str, manner: Manner) -> (TrainConfig, Completions) {
    let mut run = rl(folder, name, "grpo", 3);
    run.evaluation.every = 1;
    let server = Completions::start(&run.output.join("serving"), manner);
    run.rollout_server = Some(ServerConfig {
        url: server.url.clone(),
        model: "policy".to_owned(),
        weights: WeightUpdate::VllmReload,
        token_env: None,
        concurrency: 8,
        patience_s: 5,
    });
    (run, server)
}

#[test]
fn a_server_that_follows_the_policy_writes_its_rollouts() {
    let folder = start(30);
    let mut own = rl(folder.path(), "own", "grpo", 1);
    own.evaluation.every = 1;
    go(&own);
    for (name, manner) in [("whole", Manner::Whole), ("text", Manner::TextOnly), ("stale", Manner::Stale)] {
        let (run, server) = written_by_server(folder.path(), name, manner);
        go(&run);
        // The greedy answers before the first step are our own engine's.
        for metric in [Metric::EvalExactMatch, Metric::EvalReward, Metric::EvalLengthMean] {
            assert_eq!(series(&run.output, &metric)[0], series(&own.output, &metric)[0], "{name}: {metric}");
        }
        assert_eq!(series(&run.output, &Metric::RewardMean).len(), 3, "{name}");
        // At the start and after each step.
        assert_eq!(server.reloads.load(Ordering::SeqCst), 4, "{name}");
        let gaps = series(&run.output, &Metric::PolicySamplerGap);
        match manner {
            Manner::Whole => assert!(gaps.len() == 3 && gaps.iter().all(|gap| *gap < 1e-4), "{gaps:?}"),
            Manner::TextOnly => assert_eq!(gaps, Vec::<f64>::new()),
            // A policy that moved away from what writes its rollouts is seen.
            Manner::Stale => assert!(gaps[0] < 1e-4 && gaps[2] > 1e-3, "{gaps:?}"),
        }
    }
}

#[test]
fn a_rollout_server_that_cannot_be_reached_is_named() {
    let folder = start(10);
    let (mut run, _) = written_by_server(folder.path(), "nobody", Manner::Whole);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    if let Some(server) = &mut run.rollout_server {
        (server.url, server.patience_s) = (format!("http://127.0.0.1:{port}"), 1);
    }
    let error = go_with(&run, false).unwrap_err();
    assert!(matches!(&error, TrainError::Rollout(why) if why.contains("resume the run")), "{error}");
}

/// `gradus train` as a process of its own, after what the shell is to do before it.
fn train(run: &TrainConfig, before: &str) -> Command {
    let config = run.output.with_extension("toml");
    std::fs::write(&config, toml::to_string(run).unwrap()).unwrap();
    let mut command = Command::new("bash");
    let program = env!("CARGO_BIN_EXE_gradus");
    command.arg("-c").arg(format!("{before} exec {program} --config {} train --quiet", config.display()));
    command
}

#[test]
fn a_killed_run_goes_on_to_the_bit() {
    let folder = start(10);
    let whole = rl(folder.path(), "whole", "grpo", 5);
    let killed = rl(folder.path(), "killed", "grpo", 5);
    go(&whole);
    let mut process = train(&killed, "").spawn().unwrap();
    let first = killed.output.join("checkpoints/step-000002");
    for _ in 0..1200 {
        if first.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(first.exists(), "no checkpoint within a minute");
    go(&killed);
    assert_eq!(weights(&killed.output.join("model")), weights(&whole.output.join("model")));
}

#[test]
fn a_disk_without_room_leaves_the_checkpoint_before() {
    let folder = start(10);
    let mut run = rl(folder.path(), "full", "grpo", 2);
    let whole = rl(folder.path(), "roomy", "grpo", 4);
    go(&whole);
    go(&run);
    // The limit on a file's size stands for the disk's end: parameters fit, the optimiser's state does not.
    let parameters =
        std::fs::metadata(run.output.join("checkpoints/step-000002/parameters.safetensors")).unwrap().len();
    run.steps = 4;
    let limit = parameters * 3 / 2 / 1024;
    let ended = train(&run, &format!("trap '' XFSZ; ulimit -f {limit};")).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success() && said.contains("optimizer.safetensors"), "{said}");
    assert!(said.contains("free some space and start the same command again"), "{said}");
    let left: Vec<_> = std::fs::read_dir(run.output.join("checkpoints")).unwrap().flatten().collect();
    assert!(left.iter().all(|entry| !entry.file_name().to_string_lossy().contains("writing")), "{left:?}");
    assert!(run.output.join("checkpoints/step-000002").exists());
    go(&run);
    assert_eq!(weights(&run.output.join("model")), weights(&whole.output.join("model")));
}
