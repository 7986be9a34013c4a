//! DAPO (arXiv:2503.14476): the surrogate of GRPO with a higher upper clip (0.28), no divergence by default and a mean over
//! tokens. Its other half is outside the loss: groups whose rewards are all equal are replaced by fresh ones (dynamic
//! sampling), and overlong rollouts are punished softly (`overlong`, or the rubric's own penalty).

use super::terms::Terms;
use super::{Loss, LossConfig, grpo};

pub(super) fn loss(terms: &Terms, config: &LossConfig) -> Loss {
    grpo::loss(terms, config)
}
