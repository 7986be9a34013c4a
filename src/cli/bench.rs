//! `gradus bench`: how fast, and how right, the language-model engine is on this machine. Random weights of public shapes:
//! speed does not depend on the values. One JSON line a result.

mod training;
mod verify;

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use candle_core::{DType, Device};
use clap::ValueEnum;
use serde_json::json;

use crate::lm::training::Activations;
use crate::lm::{
    Decoder, Engine, GenerateRequest, Generator, Joined, LmError, ModelConfig, Sampling, UnconstrainedGuide, Weights,
    cuda_device,
};

/// Measure the language-model engine
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to do
    #[arg(long, value_delimiter = ',', default_values = ["verify"])]
    work: Vec<Work>,
    /// Shape of the model that is measured
    #[arg(long, default_value = "qwen2.5-7b")]
    shape: Shape,
    /// Where to compute
    #[arg(long, default_value = "cuda")]
    device: Where,
    /// Times that each work is measured, after one that is not; the median counts; 1 or more
    #[arg(long, default_value = "3")]
    repeats: NonZeroUsize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Work {
    /// The GPU's log-odds against the CPU's, for small models of every family; float16 is held to 2e-2
    Verify,
    /// 64 prompts of 2,048 tokens that share nothing
    Unshared,
    /// 64 prompts of 2,048 tokens, 8 groups of 8 that share 1,536
    Shared,
    /// 64 prompts of 256 to 2,048 tokens
    Ragged,
    /// 256 tokens after each of 64 prompts of 512
    Generate,
    /// The GPU's gradients against the CPU's, for small models; needs --device cuda
    VerifyTraining,
    /// A policy-gradient step over 16 sequences of 1,024 tokens
    Train,
    /// The same with `activations = "recompute"`
    TrainRecompute,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Where {
    Cpu,
    Cuda,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    #[value(name = "qwen2.5-0.5b")]
    Small,
    #[value(name = "qwen2.5-1.5b")]
    Medium,
    #[value(name = "qwen2.5-7b")]
    Large,
}

/// What the command line calls a choice.
fn name(choice: &impl ValueEnum) -> String {
    choice.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// The median of what was measured.
fn median(mut seconds: Vec<f64>) -> anyhow::Result<f64> {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().context("nothing was measured")
}

impl Shape {
    fn config(self) -> Result<ModelConfig, LmError> {
        let (hidden, inner, layers, heads, kv, vocab, tied) = match self {
            Self::Small => (896, 4864, 24, 14, 2, 151_936, true),
            Self::Medium => (1536, 8960, 28, 12, 2, 151_936, true),
            Self::Large => (3584, 18_944, 28, 28, 4, 152_064, false),
        };
        let text = json!({
            "model_type": "qwen2", "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": kv, "vocab_size": vocab, "tie_word_embeddings": tied,
            "max_position_embeddings": 32_768, "rope_theta": 1e6,
        });
        ModelConfig::from_json(&text.to_string())
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.device == Where::Cpu && args.work.contains(&Work::VerifyTraining) {
        bail!(
            "--work verify-training compares a GPU with the CPU: on --device cpu there is nothing to compare; leave it out"
        );
    }
    let device = match args.device {
        Where::Cpu => Device::Cpu,
        Where::Cuda => cuda_device()?,
    };
    let mut right = true;
    if args.work.contains(&Work::Verify) {
        right = verify::verify(&device)?;
    }
    if args.work.contains(&Work::VerifyTraining) {
        right &= training::verify(&device)?;
    }
    for (work, activations) in [(Work::Train, Activations::Keep), (Work::TrainRecompute, Activations::Recompute)] {
        if args.work.contains(&work) {
            training::measure(args.shape, activations, &device, args.repeats.get())?;
        }
    }
    let apart = [Work::Verify, Work::VerifyTraining, Work::Train, Work::TrainRecompute];
    let rest: Vec<Work> = args.work.iter().copied().filter(|work| !apart.contains(work)).collect();
    if !rest.is_empty() {
        let mut engine = engine(args.shape, &device)?;
        for work in rest {
            measure(&mut engine, work, args.repeats.get())?;
        }
    }
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn engine(shape: Shape, device: &Device) -> anyhow::Result<Engine> {
    let dtype = if device.is_cpu() { DType::F32 } else { DType::F16 };
    let config = shape.config()?;
    let weights = Weights::random(&config, None, dtype, device);
    let decoder = Decoder::new(config, &weights, Some(4096))?;
    Ok(Engine::new(decoder, 300_000, 32_768)?)
}

/// Tokens that no other call has: what was kept of an earlier one is of no use.
fn tokens(count: usize, of: (usize, usize)) -> Vec<u32> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{of:?}").as_bytes());
    let mut bytes = vec![0; 4 * count];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
        .chunks_exact(4)
        .map(|word| word.iter().fold(0u32, |all, byte| all << 8 | u32::from(*byte)) % 150_000)
        .collect()
}

fn prompts(work: Work, round: usize) -> Vec<Vec<u32>> {
    let prompt = |index: usize| match work {
        Work::Shared => [tokens(1536, (round, 1000 + index / 8)), tokens(512, (round, index))].concat(),
        Work::Ragged => tokens(256 + (2048 - 256) * index / 63, (round, index)),
        Work::Generate => tokens(512, (round, index)),
        Work::Unshared | Work::Verify | Work::VerifyTraining | Work::Train | Work::TrainRecompute => {
            tokens(2048, (round, index))
        }
    };
    (0..64).map(prompt).collect()
}

fn measure(engine: &mut Engine, work: Work, repeats: usize) -> anyhow::Result<()> {
    let mut seconds = Vec::new();
    let (mut asked, mut made) = (0, 0);
    for round in 0..=repeats {
        let prompts = prompts(work, round);
        asked = prompts.iter().map(Vec::len).sum();
        let began = Instant::now();
        if work == Work::Generate {
            made = generate(engine, prompts)?;
        } else {
            let labels = [11, 12];
            let asked: Vec<(&[u32], &[u32])> =
                prompts.iter().map(|prompt| (prompt.as_slice(), labels.as_slice())).collect();
            engine.label_logprobs(&asked)?;
        }
        seconds.push(began.elapsed().as_secs_f64());
    }
    let median = median(seconds.split_off(1))?;
    say!(
        "{}",
        json!({
            "work": name(&work), "seconds": median, "prompts_per_s": 64.0 / median, "tokens_per_s": asked as f64 / median,
            "new_tokens_per_s": made as f64 / median,
        })
    );
    Ok(())
}

fn generate(engine: &mut Engine, prompts: Vec<Vec<u32>>) -> anyhow::Result<usize> {
    let mut generator = Generator::default();
    for (seed, prompt) in prompts.into_iter().enumerate() {
        let sampling = Sampling { temperature: 1.0, seed: seed as u64 };
        let request = GenerateRequest { prompt, max_tokens: 256, sampling, guide: Box::new(UnconstrainedGuide) };
        if matches!(generator.join(engine, request)?, Joined::NoRoom(_)) {
            bail!("the texts do not fit the cache");
        }
    }
    let mut made = 0;
    while generator.running() > 0 {
        made += generator.step(engine)?.iter().map(|text| text.tokens.len()).sum::<usize>();
    }
    Ok(made)
}
