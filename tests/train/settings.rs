//! Settings: what is refused, and what has the effect that is documented.

use super::*;

/// A configuration with another algorithm and one more setting.
fn with(config: &TrainConfig, algorithm: &str, field: &str, value: &str) -> toml::Table {
    let mut table = toml::Table::try_from(config).unwrap();
    table["algorithm"] = algorithm.into();
    let value: toml::Table = toml::from_str(&format!("value = {value}")).unwrap();
    let (sections, key) = field.rsplit_once('.').map_or((None, field), |(sections, key)| (Some(sections), key));
    let mut place = &mut table;
    for section in sections.into_iter().flat_map(|sections| sections.split('.')) {
        place = place.entry(section).or_insert_with(|| toml::Table::new().into()).as_table_mut().unwrap();
    }
    place.insert(key.to_owned(), value["value"].clone());
    table
}

#[test]
fn settings_that_cannot_be_are_named() {
    let folder = tempfile::tempdir().unwrap();
    world(folder.path());
    let good = sft(folder.path(), "good", 1);
    let path = folder.path().join("wrong.toml");
    let refused = |wrong: &toml::Table| {
        std::fs::write(&path, toml::to_string(wrong).unwrap()).unwrap();
        TrainConfig::read(&path).unwrap_err().to_string()
    };
    for (field, value) in [
        ("rollout.temperature", "inf"),
        ("rollout.prompts", "9223372036854775807"),
        ("loss.clip_low", "-0.5"),
        ("loss.clip_high", "nan"),
        ("loss.kl_coefficient", "-1.0"),
        ("loss.dual_clip", "0.5"),
        ("loss.value_clip", "0.5"),
        ("loss.value_coefficient", "0.5"),
        ("optimizer.beta1", "1.0"),
        ("optimizer.beta2", "1.5"),
        ("optimizer.eps", "-1.0"),
        ("optimizer.max_grad_norm", "nan"),
        ("learning_rate.peak", "inf"),
        ("reward.mastery_rate", "0.0"),
        ("update.micro_batch_tokens", "0"),
        ("dapo.max_rounds", "0"),
        ("vspo.w_max", "0.0"),
        ("ppo.lambda", "2.0"),
        ("evaluation.target", "5.0"),
        ("loss.dual_clip", "3.0"),
        ("dapo.overlong_cache_tokens", "257"),
        ("evaluation.target", "0.5"),
        ("evaluation.patience", "1"),
        ("reward.url", "\"nonsense\""),
    ] {
        let error = refused(&with(&good, "grpo", field, value));
        assert!(error.contains(&format!("{field}: ")), "{error}");
    }
    for (field, value) in [
        // Nothing of a supervised step would be another.
        ("update.epochs", "4"),
        ("update.minibatches", "5"),
        ("loss.clip_low", "0.1"),
        ("loss.kl_coefficient", "0.5"),
        ("policy.fresh.heads", "0"),
        ("policy.fresh.kv_heads", "3"),
        ("policy.fresh.head_dim", "33"),
        ("policy.lora", "{ target_modules = [\"x\"] }"),
        ("policy.lora", "{ target_modules = [] }"),
        ("rollout_server", "{ url = \"nonsense\", model = \"m\", weights = \"sglang\" }"),
        ("rollout_server", "{ url = \"http://h\", model = \"m\", weights = \"sglang\", concurrency = 0 }"),
    ] {
        let error = refused(&with(&good, "sft", field, value));
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn pass_rates_of_stages_that_the_rubric_lacks_are_refused() {
    let folder = start(10);
    let server = Server::start(&[]);
    for mut run in [rl(folder.path(), "local", "grpo", 1), by_server(folder.path(), "remote", &server, 1)] {
        run.reward.mastery.insert("typo".to_owned(), 1.0);
        let error = go_with(&run, false).unwrap_err().to_string();
        assert!(error.contains("reward.mastery") && error.contains("\"typo\""), "{error}");
    }
}

#[test]
fn a_group_that_no_judge_can_put_in_order_is_refused() {
    let folder = start(10);
    let rubric = "name = \"ranked\"\n[answer]\nfrom = \"last_message\"\n\
        [[stages]]\nkind = \"judge\"\nmode = \"rank\"\nweight = 1\ncriteria = \"Better answers first.\"\n";
    let judge = "endpoints = [{ url = \"http://127.0.0.1:9/v1\" }]\nmodel = \"judge\"\n";
    let judges = gradus::judge::Config {
        judges: std::collections::BTreeMap::from([("default".to_owned(), toml::from_str(judge).unwrap())]),
        cache_bytes: 0,
    };
    let judges = Judges::open(&judges, |_| None, None).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ranked = RunOptions {
        judges: (judges, Some(Arc::new(runtime))),
        rubric: Some(Arc::new(Rubric::from_toml(rubric).unwrap())),
        ..options("short_form_qa", false)
    };
    let refusal = |group_size, options: &RunOptions| {
        let mut run = rl(folder.path(), "ranked", "grpo", 1);
        run.rollout.group_size = group_size;
        Run::open(run, options).err().map(|error| error.to_string())
    };
    let error = refusal(65, &ranked).unwrap();
    assert!(error.contains("rollout.group_size: is 65") && error.contains("make it 64 or less"), "{error}");
    assert_eq!(refusal(64, &ranked), None);
    assert_eq!(refusal(65, &options("short_form_qa", true)), None, "which has no judge");
}

#[test]
fn the_policy_is_shown_the_tools() {
    let folder = start(10);
    let path = folder.path().join("start/model/tokenizer_config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let template = config["chat_template"].as_str().unwrap().to_owned();
    config["chat_template"] = format!("{{% if tools %}}{{{{ tools | tojson }}}}{{% endif %}}{template}").into();
    std::fs::write(&path, config.to_string()).unwrap();
    // Written out they take more than the tiny model's context: that they are there is seen by that.
    let error = go_with(&rl(folder.path(), "shown", "grpo", 1), false).unwrap_err().to_string();
    assert!(error.contains("more than the 256 of the model's context"), "{error}");
}

#[test]
fn a_setting_without_effect_does_not_end_a_run_that_is_under_way() {
    let folder = tempfile::tempdir().unwrap();
    world(folder.path());
    let run = sft(folder.path(), "begun", 1);
    let path = folder.path().join("idle.toml");
    std::fs::write(&path, toml::to_string(&with(&run, "sft", "loss.clip_low", "0.1")).unwrap()).unwrap();
    assert!(TrainConfig::read(&path).unwrap_err().to_string().contains("loss.clip_low: "));
    go(&run);
    go(&TrainConfig::read(&path).unwrap());
}

#[test]
fn a_run_that_an_earlier_version_began_without_the_tools_is_refused() {
    let folder = start(10);
    let run = rl(folder.path(), "earlier", "grpo", 2);
    go(&run);
    let model = folder.path().join("start/model/tokenizer_config.json");
    let state = run.output.join("checkpoints/step-000002/state.json");
    let read = |path: &Path| serde_json::from_slice::<serde_json::Value>(&std::fs::read(path).unwrap()).unwrap();
    let mut earlier = read(&state);
    earlier["state"]["data"].as_object_mut().unwrap().retain(|setting, _| !setting.starts_with("policy"));
    std::fs::write(&state, earlier.to_string()).unwrap();
    // The prompts of this template are what they were.
    go(&run);
    let mut config = read(&model);
    let template = config["chat_template"].as_str().unwrap().to_owned();
    config["chat_template"] = format!("{{% for t in tools %}}{{{{ t.function.name }}}}{{% endfor %}}{template}").into();
    std::fs::write(&model, config.to_string()).unwrap();
    let error = go_with(&run, false).unwrap_err();
    assert!(matches!(&error, TrainError::Changed(why) if why.contains("tools") && why.contains("--force")), "{error}");
    go_with(&run, true).unwrap();
}

#[test]
fn every_epoch_counts_for_the_speed_of_the_update() {
    let folder = start(10);
    let trained = |name: &str, epochs| {
        let mut run = rl(folder.path(), name, "grpo", 1);
        run.update.epochs = epochs;
        go(&run);
        series(&run.output, &Metric::SpeedTrainTokensPerSecond)[0] * series(&run.output, &Metric::SpeedTrainSeconds)[0]
    };
    let (once, thrice) = (trained("once", 1), trained("thrice", 3));
    assert!((thrice / once - 3.0).abs() < 1e-9, "{once} {thrice}");
}

#[test]
fn dapo_takes_long_rollouts_something_off() {
    let folder = start(10);
    let tried = |name: &str, cache, rubric: &str| {
        let mut run = rl(folder.path(), name, "dapo", 1);
        (run.rollout.max_tokens, run.dapo.max_rounds, run.dapo.overlong_cache_tokens) = (24, 1, cache);
        let rubric = Arc::new(Rubric::from_toml(rubric).unwrap());
        let options = RunOptions { rubric: Some(rubric), ..options("short_form_qa", false) };
        Run::open(run.clone(), &options).unwrap().go(&mut |_| {}, &|| false).unwrap();
        (series(&run.output, &Metric::RewardMean)[0], series(&run.output, &Metric::RolloutOverlong))
    };
    let rubric = std::fs::read_to_string("rubrics/short_form_qa.toml").unwrap();
    let (plain, none) = tried("off", Some(0), &rubric);
    assert!(none.is_empty());
    let (punished, taken) = tried("usual", None, &rubric);
    assert!(taken[0] > 0.0 && (plain - punished - taken[0]).abs() < 1e-12, "{plain} {punished} {taken:?}");
    // A rubric that punishes length is not added to.
    let own =
        format!("{rubric}\n[[penalties]]\nkind = \"overlong\"\nweight = 1.0\nmax_tokens = 24\ncache_tokens = 4\n");
    assert!(tried("own", None, &own).1.is_empty());
}
