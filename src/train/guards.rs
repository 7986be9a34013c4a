//! What must hold before a run touches its folder: that it is this process's, that it goes on with what it was begun with, and
//! that what it may ask fits the model.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::Path;

use rayon::prelude::*;

use super::TrainError;
use super::algorithm::Algorithm;
use super::config::{Schedule, TrainConfig};
use super::env::{Split, Task};
use super::groups::DapoConfig;
use super::policy::FILES;
use super::reward::Rewarder;
use super::rollout::EpisodeContext;
use super::state::RunState;

/// Whether a run goes on with what it was begun with; `config` is that of now.
///
/// # Errors
/// What changed.
pub(super) fn unchanged(saved: &RunState, now: &RunState, config: &TrainConfig) -> Result<(), TrainError> {
    let configuration = match config.learning_rate.schedule {
        Schedule::Constant => "the configuration",
        Schedule::Linear | Schedule::Cosine => {
            "the configuration, in which `learning_rate.schedule` runs over `steps`,"
        }
    };
    // A checkpoint of an earlier version says the hash that it made.
    let is_same = saved.config_hash == config.earlier_hash();
    let config_hash = if is_same { &now.config_hash } else { &saved.config_hash };
    let version = |state: &RunState| state.rubric.as_ref().map_or_else(String::new, |rubric| rubric.version.clone());
    let seed = |seed: Option<u64>| seed.map_or_else(String::new, |seed| seed.to_string());
    let all = [
        (configuration.to_owned(), config_hash.clone(), now.config_hash.clone()),
        // Checkpoints of earlier versions do not say theirs, nor what was in their files.
        ("the seed".to_owned(), seed(saved.seed.or(now.seed)), seed(now.seed)),
        ("the rubric".to_owned(), version(saved), version(now)),
    ];
    let files = now.data.iter().filter_map(|(setting, hash)| {
        Some((format!("the content of `{setting}`"), saved.data.get(setting)?.clone(), hash.clone()))
    });
    let judges = now.judges.iter().filter_map(|(name, identity)| {
        Some((format!("the judge {name:?}"), saved.judges.get(name)?.clone(), identity.clone()))
    });
    // Where it is so, the configuration is the change that is found, as the first.
    let remedy = if went_unpunished(saved, now, config) {
        "earlier versions took nothing off long rollouts: set `dapo.overlong_cache_tokens = 0`"
    } else {
        "put it back"
    };
    match all.into_iter().chain(files).chain(judges).find(|(_, before, now)| before != now) {
        None => Ok(()),
        Some((what, before, now)) => Err(TrainError::Changed(format!(
            "{what} changed since this run was stopped ({before} before, {now} now): {remedy}, start a new run in \
             another folder, or go on with --force"
        ))),
    }
}

/// Whether all that differs from the configuration that a run was begun with is that DAPO takes something off long rollouts:
/// nobody need have changed anything, since earlier versions did not.
fn went_unpunished(saved: &RunState, now: &RunState, config: &TrainConfig) -> bool {
    let dapo = DapoConfig { overlong_cache_tokens: Some(0), ..config.dapo };
    let unpunished = TrainConfig { dapo, ..config.clone() };
    // Where nothing is taken off now either, the two are one.
    let is_other = unpunished.hash() != now.config_hash;
    is_other && [unpunished.hash(), unpunished.earlier_hash()].contains(&saved.config_hash)
}

/// Whether a run goes on with the prompts, their scores and the turns that it was begun with. Checkpoints of earlier versions
/// are told by the files of the policy of which they do not say what was in them.
///
/// # Errors
/// When they are others.
pub(super) fn same_prompts(saved: &RunState, world: &EpisodeContext, algorithm: Algorithm) -> Result<(), TrainError> {
    let Some(task) = world.environment.tasks(Split::Train).first() else { return Ok(()) };
    let messages = world.environment.messages(task);
    let prompt = world.protocol.prompt(&messages)?;
    let says = |start: &str| saved.data.keys().any(|setting| setting.starts_with(start));
    let is_earlier = !says(&format!("{POLICY}{LATEST_FILE}"));
    let then = if !says(POLICY) && prompt != world.protocol.with_tools("[]")?.prompt(&messages)? {
        "did not give the chat template the environment's tools, and this template prints them"
    } else if is_earlier && !prompt.begun.is_empty() {
        "looked for answers and calls in reasoning that the chat template opens, and this template does"
    } else if is_earlier && escapes_results(world) {
        "did not escape tools' results in the JSON that a chat template makes of them, and this template does"
    } else if is_earlier && algorithm == Algorithm::Sft && world.protocol.heeds_what_is_before()? {
        "tokenised what assistants say as if nothing stood before it, of which this tokenizer makes other tokens"
    } else {
        return Ok(());
    };
    Err(TrainError::Changed(format!(
        "the prompts, their scores or the turns changed since this run was stopped: an earlier version began it, which \
         {then}: start a new run in another folder, or go on with the others by --force"
    )))
}

/// That the chat template takes what tools say. A policy may call in any step, and is not to end the run by it.
///
/// # Errors
/// When it refuses a tool's result, or several, or does not show a turn.
pub(super) fn takes_results(world: &EpisodeContext, policy: &Path) -> Result<(), TrainError> {
    let most = world.environment.budgets().calls_per_turn.min(2);
    (1..=most).try_for_each(|count| {
        let results = vec!["x".to_owned(); count as usize];
        world.protocol.after_turn(&results).map(|_| ()).map_err(|error| {
            TrainError::other(format!(
                "{}: the chat template does not take what tools say ({error}), which the policy is shown when it calls: put a \
                 template that does into chat_template.jinja there",
                policy.display()
            ))
        })
    })
}

/// Whether the chat template makes JSON of what a tool says.
fn escapes_results(world: &EpisodeContext) -> bool {
    let shown = world.protocol.after_turn(&["\"".to_owned()]).and_then(|after| world.protocol.text(&after.tokens));
    shown.is_ok_and(|shown| shown.contains("\\\""))
}

/// What the names of the policy's files begin with among those of the data.
const POLICY: &str = "policy: ";

/// The one that versions before it did not look at.
const LATEST_FILE: &str = "chat_template.json";

/// The hash of each file of a run's data: what is known of a task is kept by its place in them. Then those of the `policy`'s
/// files, of which some may not be there.
///
/// # Errors
/// When one cannot be read.
pub(super) fn hashes(config: &TrainConfig, policy: &Path) -> Result<BTreeMap<String, String>, TrainError> {
    let mut all = BTreeMap::new();
    for (setting, path) in config.data_files() {
        all.insert(setting.to_owned(), hash(path)?);
    }
    for name in FILES {
        let path = policy.join(name);
        // One that is put there later counts, too.
        let hash = if path.exists() { hash(&path)? } else { "none".to_owned() };
        all.insert(format!("{POLICY}{name}"), hash);
    }
    Ok(all)
}

fn hash(path: &Path) -> Result<String, TrainError> {
    let mut hasher = blake3::Hasher::new();
    let read = File::open(path).and_then(|file| hasher.update_reader(file).map(|hasher| hasher.finalize()));
    let hash = read.map_err(|error| TrainError::file(path, error))?;
    Ok(hash.to_hex().chars().take(16).collect())
}

/// Whether the pass rates to begin with are of stages that the rubric has.
///
/// # Errors
/// The first that is not.
pub(super) fn check_mastery(config: &TrainConfig, rewarder: &Rewarder) -> Result<(), TrainError> {
    let Some(rubric) = rewarder.rules() else { return Ok(()) };
    let stages: Vec<&str> = rubric.stages.iter().map(|stage| &*stage.name).collect();
    match config.reward.mastery.keys().find(|name| !stages.contains(&name.as_str())) {
        None => Ok(()),
        Some(unknown) => Err(TrainError::other(format!(
            "reward.mastery: the rubric {:?} has no stage {unknown:?}; it has {}",
            rubric.name,
            stages.join(", ")
        ))),
    }
}

/// Takes a run's folder for this process: two would write over each other.
///
/// # Errors
/// When another process has it.
pub(super) fn locked(dir: &Path) -> Result<File, TrainError> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(|error| TrainError::file(&path, error))?;
    // A file system may have no locks.
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        let said = "another process trains in this folder; wait for it, or take another `output`";
        return Err(TrainError::file(dir, said));
    }
    Ok(file)
}

/// How many tokens the longest question that the run may ask takes with its answer; 0 where it asks none.
///
/// # Errors
/// The first that does not fit the model.
pub(super) fn longest_rollout(
    world: &EpisodeContext,
    config: &TrainConfig,
    context: usize,
) -> Result<usize, TrainError> {
    let most = config.rollout.max_tokens;
    let held_out = if config.evaluation.every > 0 { config.evaluation.questions } else { 0 };
    let train = if config.algorithm.learns_by_reward() { usize::MAX } else { 0 };
    let mut longest = 0;
    for (split, count) in [(Split::Train, train), (Split::HeldOut, held_out)] {
        let tasks = world.environment.tasks(split);
        let with_answer = |task: &Task| {
            let tokens = world.protocol.prompt(&world.environment.messages(task))?.tokens.len();
            let all = tokens.saturating_add(most);
            if all <= context {
                return Ok(all);
            }
            Err(TrainError::other(format!(
                "the question {:?} takes {tokens} tokens, and with `rollout.max_tokens` = {most} more than the {context} of \
                 the model's context: leave it out, or lower `rollout.max_tokens`",
                task.id
            )))
        };
        let asked = tasks.get(..count.min(tasks.len())).unwrap_or_default().par_iter();
        let of_split = asked.map(with_answer).try_reduce(|| 0, |one, other| Ok(one.max(other)))?;
        longest = longest.max(of_split);
    }
    Ok(longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::config::{self, EnvironmentConfig};
    use crate::train::protocol::Protocol;
    use crate::train::protocol::tests::{in_json, llama, protocol, reasoner, words};
    use crate::train::rollout::world;

    fn config(rest: &str) -> TrainConfig {
        config::tests::config("grpo", rest)
    }

    fn state(config: &TrainConfig) -> RunState {
        RunState { config_hash: config.hash(), ..RunState::default() }
    }

    fn refused(saved: &RunState, config: &TrainConfig) -> Option<String> {
        unchanged(saved, &state(config), config).err().map(|error| error.to_string())
    }

    #[test]
    fn a_template_that_takes_no_results_is_refused_before_a_policy_calls() {
        let policy = Path::new("policy");
        assert!(takes_results(&world(llama()), policy).is_ok());
        let strict = "{% for message in messages %}{% if message.role == 'tool' %}{{ raise_exception('no tools') }}{% endif \
                      %}{{ message.content }}<|end|>{% endfor %}";
        let strict = protocol(strict, &["<|end|>"], &["<|end|>"]);
        let said = takes_results(&world(strict), policy).unwrap_err().to_string();
        assert!(
            said.starts_with("policy: the chat template does not take what tools say") && said.contains("no tools"),
            "{said}"
        );
    }

    #[test]
    fn how_a_server_is_reached_may_change() {
        let served = |rest: &str| {
            config(&format!("rollout_server = {{ url = \"http://h\", model = \"m\", weights = \"sglang\"{rest} }}"))
        };
        let (first, patient) = (served(""), served(", patience_s = 9, concurrency = 9, token_env = \"T\""));
        assert_eq!(refused(&state(&first), &patient), None);
        let earlier = RunState { config_hash: first.earlier_hash(), ..RunState::default() };
        assert_ne!(first.earlier_hash(), first.hash());
        assert_eq!(refused(&earlier, &first), None, "what an earlier version saved goes on");
        assert!(refused(&state(&first), &config("")).is_some());
    }

    #[test]
    fn what_of_the_loss_has_no_effect_may_go() {
        let (plain, idle) = (config(""), config("loss = { value_clip = 0.5 }"));
        assert_eq!(plain.hash(), idle.hash());
        let earlier = RunState { config_hash: idle.earlier_hash(), ..RunState::default() };
        assert_ne!(idle.earlier_hash(), idle.hash());
        assert_eq!(refused(&earlier, &idle), None, "what an earlier version saved goes on");
    }

    #[test]
    fn where_a_schedule_runs_over_the_steps_they_are_named() {
        for (schedule, wanted) in [("cosine", Some("runs over `steps`")), ("constant", None)] {
            let first = config(&format!("learning_rate = {{ schedule = \"{schedule}\" }}"));
            let more = TrainConfig { steps: 4, ..first.clone() };
            let said = refused(&state(&first), &more);
            assert_eq!(said.is_some(), wanted.is_some(), "{said:?}");
            assert!(wanted.is_none_or(|wanted| said.unwrap().contains(wanted)));
        }
    }

    #[test]
    fn what_dapo_takes_off_long_rollouts_is_a_setting_whoever_chose_it() {
        let dapo = |rest: &str| TrainConfig { algorithm: Algorithm::Dapo, ..config(rest) }.hash();
        assert_eq!(dapo(""), dapo("dapo.overlong_cache_tokens = 51"), "a fifth of 256");
        assert_ne!(dapo(""), dapo("dapo.overlong_cache_tokens = 0"));
        assert_eq!(config("").hash(), config("dapo.overlong_cache_tokens = 9").hash(), "GRPO takes nothing off");
    }

    #[test]
    fn what_takes_nothing_off_as_earlier_versions_did_is_named() {
        let dapo = |rest: &str| TrainConfig { algorithm: Algorithm::Dapo, ..config(rest) };
        let off = "dapo.overlong_cache_tokens = 0";
        let begun = dapo(off);
        for hash in [begun.hash(), begun.earlier_hash()] {
            let saved = RunState { config_hash: hash, ..RunState::default() };
            let error = refused(&saved, &dapo("")).unwrap();
            assert!(error.contains(&format!("set `{off}`")) && error.contains("--force"), "{error}");
            assert_eq!(refused(&saved, &begun), None, "what helps is what is said");
            // Where more than that changed it would not help.
            let error = refused(&saved, &TrainConfig { algorithm: Algorithm::Dapo, ..config("rollout.prompts = 3") });
            assert!(error.unwrap().contains("put it back"));
        }
        let error = refused(&state(&dapo("")), &begun).unwrap();
        assert!(error.contains("put it back"), "{error}");
    }

    #[test]
    fn another_judge_is_another_reward() {
        let config = config("");
        let judged = |judge: &str| {
            let judges = BTreeMap::from([("default".to_owned(), judge.to_owned())]);
            RunState { judges, ..state(&config) }
        };
        let said = |saved: &RunState| unchanged(saved, &judged("b"), &config).err().map(|error| error.to_string());
        let error = said(&judged("a")).unwrap();
        assert!(
            error.contains("the judge \"default\" changed since this run was stopped (a before, b now)"),
            "{error}"
        );
        assert_eq!((said(&judged("b")), said(&state(&config))), (None, None), "earlier versions did not say theirs");
    }

    #[test]
    fn wherever_the_template_stands_its_change_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["c", "t", "h"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let mut config = config("");
        let EnvironmentConfig::QaSearch(qa) = &mut config.environment;
        for path in [&mut qa.corpus, &mut qa.train, &mut qa.held_out] {
            *path = dir.path().join(&*path);
        }
        let mut seen = vec![hashes(&config, dir.path()).unwrap()];
        for name in ["special_tokens_map.json", "chat_template.json", "chat_template.jinja"] {
            std::fs::write(dir.path().join(name), "{}").unwrap();
            seen.push(hashes(&config, dir.path()).unwrap());
        }
        assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "{seen:?}");
    }

    #[test]
    fn what_an_earlier_version_read_otherwise_is_not_gone_on_with() {
        let data = |names: &[&str]| names.iter().map(|name| (format!("{POLICY}{name}"), String::new())).collect();
        let state = |names: &[&str]| RunState { data: data(names), ..RunState::default() };
        let (earlier, now) = (state(&["chat_template.jinja"]), state(&["chat_template.jinja", LATEST_FILE]));
        let by = |algorithm, saved: &RunState, protocol: Protocol| {
            same_prompts(saved, &world(protocol), algorithm).map_err(|error| error.to_string())
        };
        let said = |saved: &RunState, protocol: Protocol| by(Algorithm::Grpo, saved, protocol);
        assert!(said(&earlier, reasoner()).unwrap_err().contains("reasoning that the chat template opens"));
        assert!(said(&earlier, in_json()).unwrap_err().contains("did not escape"));
        for (saved, protocol) in [(&earlier, llama()), (&now, reasoner()), (&now, in_json())] {
            assert_eq!(said(saved, protocol), Ok(()));
        }
        // Words that a text begins with have tokens of their own.
        assert!(by(Algorithm::Sft, &earlier, words()).unwrap_err().contains("as if nothing stood before it"));
        for (algorithm, saved, protocol) in
            [(Algorithm::Sft, &earlier, llama()), (Algorithm::Sft, &now, words()), (Algorithm::Grpo, &earlier, words())]
        {
            assert_eq!(by(algorithm, saved, protocol), Ok(()));
        }
    }
}
