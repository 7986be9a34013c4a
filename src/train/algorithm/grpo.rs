//! Group relative policy optimisation (arXiv:2402.03300): advantages `(r - mean) / (std + eps)` within a group, the clipped
//! surrogate, and the divergence from the reference policy in the loss.
//!
//! `L = - mean min(rho A, clip(rho, 1 - eps_low, 1 + eps_high) A) + beta mean KL`
//!
//! DAPO (arXiv:2503.14476) takes it with a higher upper clip (0.28), no divergence by default and a mean over tokens. Its other
//! half is outside the loss: groups whose rewards are all equal are replaced by fresh ones (dynamic sampling), and overlong
//! rollouts are punished softly (`overlong`, or the rubric's own penalty).
//!
//! VSPO (arXiv:2512.07478) takes it over groups drawn by their task value:
//!
//! `L = (- sum_q f(m_q) sum min(rho A, clip(rho) A) + beta sum_q m_q sum KL) / sum_q m_q T_q`
//!
//! The multiplicities `m` and the smoothed factors `f(m)` are in the tokens' weights ([`plan`](crate::advantage)): copies have
//! equal gradients, so that each group runs once.

use super::terms::Terms;
use super::{Loss, LossConfig};

pub(super) fn loss(terms: &Terms, config: &LossConfig) -> Loss {
    let surrogate = terms.clipped_surrogate(config.clip_low, config.clip_high)?;
    terms.mean(&surrogate)?.neg()? + terms.divergence(config.kl_estimator, config.kl_coefficient)?
}
