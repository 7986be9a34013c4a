//! What a run is put together from. In: its configuration, and what the command line adds. Out: the parts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::TrainError;
use super::client::Endpoint;
use super::config::{EnvironmentConfig, TrainConfig};
use super::env::{Environment, QaSearch};
use super::metrics::RunInfo;
use super::policy::{Policy, PolicyConfig};
use super::reward::{Local, Remote, Rewarder};
use super::rollout::{Sampler, Server};
use super::run::RunOptions;
use crate::stages::Reading;
use crate::toolcall::Options;

/// What writes rollouts, of which the longest may take `longest` tokens with its prompt.
pub(super) fn sampler(
    config: &TrainConfig,
    policy: &Policy,
    options: &RunOptions,
    longest: usize,
) -> Result<Sampler, TrainError> {
    if let Some(server) = &config.rollout_server {
        let serving = config.output.join("serving");
        return Ok(Sampler::Server(Box::new(Server::new(server.clone(), options.rollout_token.clone(), serving)?)));
    }
    // Not the whole context: of a long one the keys and values alone would fill the memory.
    Ok(Sampler::Engine(Box::new(policy.engine(at_once(config), longest.max(1))?)))
}

/// Most rollouts that are written at once: those of a step, or of an evaluation where there is any.
fn at_once(config: &TrainConfig) -> usize {
    let questions = if config.evaluation.every > 0 { config.evaluation.questions } else { 0 };
    (config.rollout.prompts * config.rollout.group_size).max(questions)
}

/// How rollouts read calls: as the rubric that scores them does.
pub(super) fn calls(rewarder: &Rewarder) -> Options {
    let usual = Options::default();
    rewarder.rules().map_or(usual, |rubric| {
        let Reading { format, mode, max_calls, .. } = rubric.reading;
        Options { format, mode, max_calls, ..usual }
    })
}

pub(super) fn environment(config: &EnvironmentConfig) -> Result<Arc<dyn Environment>, TrainError> {
    match config {
        EnvironmentConfig::QaSearch(qa) => Ok(Arc::new(QaSearch::open(qa.clone()).map_err(TrainError::other)?)),
    }
}

pub(super) fn rewarder(config: &TrainConfig, options: &RunOptions, tools: &str) -> Result<Rewarder, TrainError> {
    let reward = &config.reward;
    if let Some(url) = &reward.url {
        let patience = Duration::from_secs(reward.patience_s);
        let endpoint = Endpoint { url: url.clone(), token: options.reward_token.clone(), patience };
        let run_id = config.run_id();
        let remote = Remote::connect(endpoint, &reward.rubric, (&config.output, &run_id), tools)?;
        return Ok(Rewarder::Remote(Box::new(remote)));
    }
    let rubric = options.rubric.clone();
    let rubric = rubric.ok_or_else(|| TrainError::other(format!("there is no rubric {:?}", reward.rubric)))?;
    let (judges, runtime) = options.judges.clone();
    if let Some(missing) = rubric.judges().find(|name| judges.identity_of(name).is_none()) {
        return Err(TrainError::other(format!(
            "the rubric {:?} asks the judge {missing:?}, and there is none of that name: give it with --judge, or take a \
             rubric without a judge stage",
            rubric.name
        )));
    }
    Ok(Rewarder::Local(Box::new(Local::new(rubric, tools, judges, runtime))))
}

pub(super) fn info(config: &TrainConfig) -> RunInfo {
    let rubric = Path::new(&config.reward.rubric).file_stem().and_then(|stem| stem.to_str());
    RunInfo {
        name: config.name.clone(),
        group: config.group.clone().unwrap_or_else(|| config.name.clone()),
        algorithm: config.algorithm.name().to_owned(),
        reward: rubric.unwrap_or(&config.reward.rubric).to_owned(),
        seed: config.seed,
        // Runs of a group may begin with models of their own.
        config_hash: TrainConfig { policy: PolicyConfig { model: None, ..config.policy.clone() }, ..config.clone() }
            .hash(),
        threshold: config.evaluation.threshold,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Judges;
    use crate::rubric::Rubric;
    use crate::train::config::tests::config;
    use crate::trajectory::{ParseMode, ToolFormat};

    #[test]
    fn an_evaluation_that_never_comes_takes_no_memory() {
        let with = |evaluation: &str| {
            let rest = format!("rollout = {{ prompts = 2, group_size = 3 }}\nevaluation = {{ {evaluation} }}");
            at_once(&config("grpo", &rest))
        };
        let found = ["every = 0, questions = 500", "every = 1, questions = 500", "every = 1, questions = 4"].map(with);
        assert_eq!(found, [6, 500, 6]);
    }

    #[test]
    fn rollouts_read_calls_as_their_rubric_does() {
        let text = include_str!("../../rubrics/binary_em.toml");
        let read = |section: &str| {
            let rubric = Arc::new(Rubric::from_toml(&format!("{text}\n[calls]\n{section}\n")).unwrap());
            let found = calls(&Rewarder::Local(Box::new(Local::new(rubric, "[]", Judges::none(), None))));
            (found.format, found.mode, found.max_calls)
        };
        let tolerant = read("format = \"react\"\nmode = \"tolerant\"\nmax_calls = 7");
        assert_eq!(tolerant, (ToolFormat::React, ParseMode::Tolerant, 7));
        assert_eq!(read(""), (ToolFormat::Auto, ParseMode::Strict, 256));
    }
}
