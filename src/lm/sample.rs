//! From logits to a token. In: a row of logits, a temperature, the tokens that are allowed, a seed. Out: the token and its
//! log-probability. The same seed and step give the same token, whatever else is in the batch.

use super::LmError;

/// How a sequence's tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// What the logits are divided by; 0 takes the likeliest token.
    pub temperature: f64,
    /// Makes the draws of this sequence.
    pub seed: u64,
}

/// A drawn token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawn {
    /// The token.
    pub token: u32,
    /// Natural logarithm of its probability at temperature 1 among all tokens.
    pub logprob: f64,
}

/// Which tokens are allowed: a bit each, lowest first.
pub type Mask = Vec<u32>;

/// How one row's token is drawn.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choice {
    pub(super) sampling: Sampling,
    /// The token's place in its text.
    pub(super) step: u64,
    pub(super) mask: Option<Mask>,
}

/// One token for every row of `[rows, vocab]`, on the CPU. A row without a choice gets none.
pub(super) fn draw_rows(logits: &[Vec<f32>], choices: &[Result<Choice, LmError>]) -> Vec<Result<Drawn, LmError>> {
    let one = |(logits, choice): (&Vec<f32>, &Result<Choice, LmError>)| match choice {
        Ok(choice) => draw(logits, choice.sampling, choice.step, choice.mask.as_deref()),
        Err(_) => Err(LmError::Unsupported("nothing was to be drawn".to_owned())),
    };
    logits.iter().zip(choices).map(one).collect()
}

fn allowed(mask: Option<&[u32]>, token: usize) -> bool {
    mask.is_none_or(|words| words.get(token / 32).is_some_and(|word| word >> (token % 32) & 1 == 1))
}

/// Draws from a row of logits by the Gumbel-max rule: the largest of `logit / temperature + noise`. The kernel for GPUs
/// does the same with other noise, so that a seed gives the same text on the same kind of device only.
///
/// # Errors
/// [`LmError::NotFinite`] for a NaN among the logits; [`LmError::Unsupported`] when no token is allowed.
fn draw(logits: &[f32], sampling: Sampling, step: u64, mask: Option<&[u32]>) -> Result<Drawn, LmError> {
    if logits.iter().any(|logit| logit.is_nan()) {
        return Err(LmError::NotFinite("a logit"));
    }
    let value = |(token, logit): (usize, &f32)| {
        let noise = if sampling.temperature > 0.0 { gumbel(sampling.seed, step, token as u64) } else { 0.0 };
        let scaled =
            if sampling.temperature > 0.0 { f64::from(*logit) / sampling.temperature } else { f64::from(*logit) };
        (token, scaled + noise)
    };
    let candidates = logits.iter().enumerate().filter(|(token, _)| allowed(mask, *token)).map(value);
    // The first of equals, as the kernel has it.
    let best = candidates.reduce(|best, next| if next.1 > best.1 { next } else { best });
    let (token, _) = best.ok_or_else(|| LmError::Unsupported("the constraint allows no token at all".to_owned()))?;
    let logit = logits.get(token).copied().map_or(f64::NEG_INFINITY, f64::from);
    Ok(Drawn { token: super::packed::narrow(token), logprob: logit - log_sum_exp(logits) })
}

/// ln sum exp of a row.
pub(super) fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    f64::from(max) + sum.ln()
}

/// Standard Gumbel noise, a pure function of its place. Finite.
fn gumbel(seed: u64, step: u64, token: u64) -> f64 {
    -(-uniform(mix(mix(mix(seed) ^ step) ^ token)).ln()).ln()
}

/// In (0, 1), never 0 or 1: 53 bits and a half. The half of the largest would be rounded up to 1.
fn uniform(bits: u64) -> f64 {
    (((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64).min(1.0 - f64::EPSILON / 2.0)
}

/// The finaliser of `SplitMix64` (Steele, Lea and Flood, 2014).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [0.0, 1.0, -1.0, 2.0];

    fn counts(temperature: f64, mask: Option<&[u32]>) -> [usize; 4] {
        let mut counts = [0; 4];
        for step in 0..20_000 {
            let drawn = draw(&LOGITS, Sampling { temperature, seed: 7 }, step, mask).unwrap();
            counts[drawn.token as usize] += 1;
        }
        counts
    }

    #[test]
    fn tokens_come_as_often_as_their_probability_says() {
        for temperature in [0.5, 1.0, 2.0] {
            let weights = LOGITS.map(|logit| (f64::from(logit) / temperature).exp());
            let total: f64 = weights.iter().sum();
            for (count, weight) in counts(temperature, None).iter().zip(weights) {
                let (share, wanted) = (*count as f64 / 20_000.0, weight / total);
                assert!((share - wanted).abs() < 0.015, "at {temperature}: {share} for {wanted}");
            }
        }
    }

    #[test]
    fn temperature_zero_takes_the_likeliest_and_the_first_of_equals() {
        let greedy = Sampling { temperature: 0.0, seed: 1 };
        assert_eq!(draw(&LOGITS, greedy, 0, None).unwrap().token, 3);
        assert_eq!(draw(&[1.0, 5.0, 5.0], greedy, 3, None).unwrap().token, 1);
    }

    #[test]
    fn a_token_that_is_not_allowed_never_comes() {
        let found = counts(1.0, Some(&[0b0101]));
        assert_eq!((found[1], found[3]), (0, 0));
        assert!(found[0] > found[2] && found[2] > 1000, "{found:?}");
        assert!(draw(&LOGITS, Sampling { temperature: 1.0, seed: 0 }, 0, Some(&[0])).is_err());
    }

    #[test]
    fn the_log_probability_is_that_of_the_whole_distribution() {
        let drawn = draw(&LOGITS, Sampling { temperature: 0.0, seed: 0 }, 0, Some(&[0b0001])).unwrap();
        let total: f64 = LOGITS.iter().map(|logit| f64::from(*logit).exp()).sum();
        assert!((drawn.logprob - (1.0 / total).ln()).abs() < 1e-9);
    }

    #[test]
    fn noise_is_finite_whatever_the_bits_are() {
        for bits in [0, 1 << 11, u64::MAX - (1 << 11), u64::MAX] {
            let uniform = uniform(bits);
            assert!(0.0 < uniform && uniform < 1.0, "{uniform} of {bits:x}");
        }
    }

    #[test]
    fn a_broken_logit_is_an_error_and_no_token() {
        assert!(draw(&[0.0, f32::NAN], Sampling { temperature: 1.0, seed: 0 }, 0, None).is_err());
    }
}
