//! How far the GPU's log-odds are from the CPU's in float32. In: a device. Out: a JSON line for every small model and
//! number format. Random weights that are numbers of bfloat16, so that all formats compute the same model.

use candle_core::{DType, Device};
use serde_json::json;

use super::tokens;
use crate::lm::{Decoder, Engine, LmError, ModelConfig, Weights};

/// What float16 is held to; bfloat16 (a policy's format while it trains) is shown beside it.
const TOLERANCE: f64 = 2e-2;

/// Compares with the CPU in float32; true when every log-odds of the judge's format is within the tolerance.
pub(super) fn verify(device: &Device) -> anyhow::Result<bool> {
    let formats: &[DType] = if device.is_cpu() { &[DType::F32] } else { &[DType::F16, DType::BF16] };
    let mut right = true;
    for (name, config) in small_models() {
        let config = ModelConfig::from_json(&config.to_string())?;
        let prompts = prompts();
        let labels: Vec<u32> = (0..8).collect();
        let asked: Vec<(&[u32], &[u32])> =
            prompts.iter().map(|prompt| (prompt.as_slice(), labels.as_slice())).collect();
        let reference = log_odds(&mut engine(&config, &Device::Cpu, DType::F32)?, &asked)?;
        for format in formats {
            let mut there = engine(&config, device, *format)?;
            let together = log_odds(&mut there, &asked)?;
            // Again, one by one: from what is kept, and through the kernel for single rows.
            let mut alone = Vec::new();
            for one in &asked {
                alone.extend(log_odds(&mut there, &[*one])?);
            }
            let (shared, kept) = (Distance::between(&together, &reference), Distance::between(&alone, &reference));
            let held = *format != DType::BF16;
            right &= !held || shared.farthest.max(kept.farthest) <= TOLERANCE;
            say!(
                "{}",
                json!({
                    "verify": name, "format": format.as_str(), "log_odds_off_shared": shared.farthest,
                    "log_odds_off_kept": kept.farthest, "root_mean_square": shared.root_mean_square,
                    "tolerance": held.then_some(TOLERANCE),
                })
            );
        }
    }
    Ok(right)
}

fn engine(config: &ModelConfig, device: &Device, dtype: DType) -> anyhow::Result<Engine> {
    let weights = Weights::random(config, Some(1), dtype, device);
    Ok(Engine::new(Decoder::new(config.clone(), &weights, None)?, 20_000, 8192)?)
}

/// Twelve prompts, of which four each begin alike.
fn prompts() -> Vec<Vec<u32>> {
    let token = |count, of| tokens(count, of).into_iter().map(|token| token % 2048).collect::<Vec<u32>>();
    let prompt = |i: usize| [token(70 + 30 * (i % 3), (i % 3, 7)), token(5 + 13 * i, (i, 9))].concat();
    (0..12).map(prompt).collect()
}

/// How far numbers are from what they should be.
struct Distance {
    farthest: f64,
    root_mean_square: f64,
}

impl Distance {
    fn between(found: &[f64], wanted: &[f64]) -> Self {
        let off = || found.iter().zip(wanted).map(|(a, b)| (a - b).abs());
        let mean_square = off().map(|off| off * off).sum::<f64>() / wanted.len().max(1) as f64;
        Self { farthest: off().fold(0.0, f64::max), root_mean_square: mean_square.sqrt() }
    }
}

/// Small models of every family, with head widths that the kernels have.
pub(super) fn small_models() -> Vec<(&'static str, serde_json::Value)> {
    let model = |kind: &str, heads: usize, kv: usize, dim: usize, more: serde_json::Value| {
        let mut config = json!({
            "model_type": kind, "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4,
            "num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": dim, "vocab_size": 2048,
            "max_position_embeddings": 4096, "rope_theta": 1e4,
        });
        if let (Some(config), Some(more)) = (config.as_object_mut(), more.as_object()) {
            config.extend(more.clone());
        }
        config
    };
    vec![
        ("qwen2", model("qwen2", 14, 2, 64, json!({}))),
        ("qwen3", model("qwen3", 8, 2, 128, json!({"tie_word_embeddings": true}))),
        (
            "llama",
            model(
                "llama",
                8,
                8,
                96,
                json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}),
            ),
        ),
        ("mistral", model("mistral", 8, 2, 64, json!({"sliding_window": 50}))),
        (
            "gemma2",
            model(
                "gemma2",
                4,
                2,
                256,
                json!({"sliding_window": 50, "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 256}),
            ),
        ),
    ]
}

/// Every label against the first.
fn log_odds(engine: &mut Engine, asked: &[(&[u32], &[u32])]) -> Result<Vec<f64>, LmError> {
    let found = engine.label_logprobs(asked)?;
    let odds = |logprobs: &Vec<f64>| {
        let first = logprobs.first().copied().unwrap_or_default();
        logprobs.iter().map(move |logprob| logprob - first).collect::<Vec<_>>()
    };
    Ok(found.iter().flat_map(|found| odds(&found.logprobs)).collect())
}
