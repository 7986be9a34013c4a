//! The runs of the paper's comparison: six algorithms, two rewards, and the ablations of value-based sampling.

use crate::advantage::Sampling;
use crate::train::algorithm::Algorithm;
use crate::train::config::VspoConfig;

/// Runs that differ from the others in one thing.
#[derive(Debug, Clone, PartialEq)]
pub struct Arm {
    /// Its name in files.
    pub name: String,
    /// Its name in tables and plots.
    pub title: String,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The rubric.
    pub rubric: String,
    /// VSPO's settings.
    pub vspo: VspoConfig,
    /// Whether it gets more seeds.
    pub is_main: bool,
}

/// The 0-1 reward.
const BINARY: &str = "binary_em";

/// All arms; `dense` is the rubric of the dense reward.
pub fn arms(dense: &str) -> Vec<Arm> {
    let rewards = [("binary", "binary", BINARY), ("prs", "PRS", dense)];
    let algorithms = [
        ("grpo", "GRPO", Algorithm::Grpo),
        ("vspo", "VSPO", Algorithm::Vspo),
        ("ppo", "PPO", Algorithm::Ppo),
        ("dapo", "DAPO", Algorithm::Dapo),
        ("cispo", "CISPO", Algorithm::Cispo),
    ];
    let mut arms: Vec<Arm> = Vec::new();
    for (name, title, algorithm) in algorithms {
        for (reward, reward_title, rubric) in rewards {
            arms.push(Arm {
                name: format!("{name}-{reward}"),
                title: format!("{title} + {reward_title}"),
                algorithm,
                rubric: rubric.to_owned(),
                vspo: VspoConfig::default(),
                is_main: matches!(algorithm, Algorithm::Grpo | Algorithm::Vspo),
            });
        }
    }
    let ablations = [
        ("random-noclip", "random sampling, no clip", Sampling::Uniform, false),
        ("value-noclip", "value sampling, no clip", Sampling::Value, false),
        ("random-clip", "random sampling, clip", Sampling::Uniform, true),
    ];
    for (name, title, sampling, smoothing) in ablations {
        arms.push(Arm {
            name: format!("ablation-{name}"),
            title: format!("{title} + PRS"),
            algorithm: Algorithm::Vspo,
            rubric: dense.to_owned(),
            vspo: VspoConfig { sampling, smoothing, ..VspoConfig::default() },
            is_main: false,
        });
    }
    arms.push(Arm {
        name: "sft".to_owned(),
        title: "SFT only".to_owned(),
        algorithm: Algorithm::Sft,
        rubric: BINARY.to_owned(),
        vspo: VspoConfig::default(),
        is_main: false,
    });
    arms
}
