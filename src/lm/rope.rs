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
        RopeScaling::Yarn { factor, beta_slow, beta_fast, truncate, original_context, .. } => {
            let dimension = |turns: f64| {
                let periods = original_context / (turns * std::f64::consts::TAU);
                half as f64 * periods.ln() / theta.ln()
            };
            let (low, high) = (dimension(beta_fast), dimension(beta_slow));
            let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
            let (low, high) = (low.max(0.0), high.min(2.0 * half as f64 - 1.0));
            let scaled = |(i, f): (usize, f64)| {
                let ramp = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                f / factor * ramp + f * (1.0 - ramp)
            };
            base.enumerate().map(scaled).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `YaRN` with some more options, on heads of 64 dimensions.
    fn yarn(more: &str) -> ModelConfig {
        let config = format!(
            r#"{{"model_type": "qwen2", "hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 131072, "vocab_size": 16, "rope_theta": 10000.0,
            "rope_scaling": {{"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096{more}}}}}"#
        );
        ModelConfig::from_json(&config).unwrap()
    }

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-9, "{found} is not {wanted}");
    }

    /// At position 0 the cosine is the attention factor.
    #[test]
    fn the_attention_factor_is_that_of_transformers() {
        for (more, wanted) in [
            ("", 0.1 * 4f64.ln() + 1.0),
            (r#", "mscale": 0.707"#, 0.1 * 4f64.ln() + 1.0),
            (r#", "mscale": 1.0, "mscale_all_dim": 0"#, 0.1 * 4f64.ln() + 1.0),
            (r#", "mscale": 0.0, "mscale_all_dim": 1.0"#, 0.1 * 4f64.ln() + 1.0),
            (r#", "mscale": 1.0, "mscale_all_dim": 1.0"#, 1.0),
            (r#", "mscale": 1.0, "mscale_all_dim": 0.5"#, (0.1 * 4f64.ln() + 1.0) / (0.05 * 4f64.ln() + 1.0)),
            (r#", "mscale": 1.0, "mscale_all_dim": 0.5, "attention_factor": 1.25"#, 1.25),
        ] {
            let table = RopeTable::new(&yarn(more), 1, &Device::Cpu).unwrap();
            let cos = table.cos.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(cos.iter().all(|cos| (f64::from(*cos) - wanted).abs() < 1e-6), "{more}: {cos:?}");
        }
    }

    /// The ramp runs from dimension 10.47 to 22.51 of 32, or from 10 to 23.
    #[test]
    fn the_ramp_is_at_whole_dimensions_unless_it_is_told_otherwise() {
        let at_16 = |more| frequencies(&yarn(more))[16];
        let ramp = |low: f64, high: f64| (16.0 - low) / (high - low);
        let wanted = |ramp: f64| 1e-2 * (ramp / 4.0 + 1.0 - ramp);
        near(at_16(""), wanted(ramp(10.0, 23.0)));
        near(at_16(r#", "truncate": true"#), wanted(ramp(10.0, 23.0)));
        let at = |turns: f64| 32.0 * (4096.0 / (turns * std::f64::consts::TAU)).ln() / 1e4f64.ln();
        near(at_16(r#", "truncate": false"#), wanted(ramp(at(32.0), at(1.0))));
    }
}
