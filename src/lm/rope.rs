//! Rotary position embeddings. In: a model's shape. Out: tables of cosines and sines, `[positions, head_dim / 2]`, in
//! float32. Half-split form (a pair is dimension `i` and `i + head_dim / 2`).

use candle_core::{Device, Tensor};

use super::LmError;
use super::config::{ModelConfig, RopeScaling};

/// Cosines and sines for each position.
#[derive(Debug, Clone)]
pub(super) struct RopeTable {
    /// `[positions, head_dim / 2]`.
    pub(super) cos: Tensor,
    /// `[positions, head_dim / 2]`.
    pub(super) sin: Tensor,
}

impl RopeTable {
    /// The table of a model for positions 0 to `positions`.
    pub(super) fn new(config: &ModelConfig, positions: usize, device: &Device) -> Result<Self, LmError> {
        let half = config.head_dim / 2;
        let frequencies = frequencies(config);
        let scale = match config.rope_scaling {
            RopeScaling::Yarn { attention_factor, .. } => attention_factor,
            _ => 1.0,
        };
        // Angles as float32 products, as the reference implementation computes them.
        let angles = |part: fn(f32) -> f32| -> Vec<f32> {
            let row = |position: usize| frequencies.iter().map(move |f| part(position as f32 * *f as f32));
            (0..positions).flat_map(row).map(|value| value * scale as f32).collect()
        };
        let table = |part| Tensor::from_vec(angles(part), (positions, half), device);
        Ok(Self { cos: table(f32::cos)?, sin: table(f32::sin)? })
    }
}

/// Radians per position of each pair of dimensions.
fn frequencies(config: &ModelConfig) -> Vec<f64> {
    let (half, theta) = (config.head_dim / 2, config.rope_theta);
    let base = (0..half).map(|i| theta.powf(-(i as f64) / half as f64));
    match config.rope_scaling {
        RopeScaling::None => base.collect(),
        RopeScaling::Linear { factor } => base.map(|f| f / factor).collect(),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let scaled = |f: f64| {
                let turns = original_context * f / std::f64::consts::TAU;
                let ramp = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                ramp * f + (1.0 - ramp) * f / factor
            };
            base.map(scaled).collect()
        }
        RopeScaling::Yarn { factor, beta_slow, beta_fast, original_context, .. } => {
            let dimension = |turns: f64| {
                let periods = original_context / (turns * std::f64::consts::TAU);
                half as f64 * periods.ln() / theta.ln()
            };
            let low = dimension(beta_fast).floor().max(0.0);
            let high = dimension(beta_slow).ceil().min(2.0 * half as f64 - 1.0);
            let scaled = |(i, f): (usize, f64)| {
                let ramp = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                f / factor * ramp + f * (1.0 - ramp)
            };
            base.enumerate().map(scaled).collect()
        }
    }
}
