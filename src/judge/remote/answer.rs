//! What the JSON of an answer says. In: a reply whose content is an object; out: a label or an order, checked against what
//! was asked. Knows no endpoint.

use serde::Deserialize;

use super::endpoint::Quoting;
use super::failure::{Failure, quote};
use super::reply::ChatReply;
use crate::judge::inquiry::BackendAnswer;
use crate::judge::rank::check_order;

/// A JSON object that names a label.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedLabel {
    #[serde(default)]
    reasoning: String,
    verdict: String,
}

/// A JSON object that orders candidates, from 1.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedOrder {
    order: Vec<usize>,
}

impl Quoting for BackendAnswer {
    fn map_quoted(self, change: impl Fn(String) -> String) -> Self {
        match self {
            Self::Chosen { label, reasoning, logprobs } => {
                Self::Chosen { label, reasoning: change(reasoning), logprobs }
            }
            Self::Labels(_) | Self::Reward(_) | Self::Order(_) => self,
        }
    }
}

/// The label that a reply names, and the reasoning before it.
///
/// # Errors
/// No object of the form, or a verdict off the labels.
pub(super) fn chosen(reply: &ChatReply, labels: &[String]) -> Result<BackendAnswer, Failure> {
    let (NamedLabel { reasoning, verdict }, thought) = reply.json()?;
    let label = labels.iter().position(|label| *label == verdict).ok_or_else(|| {
        Failure::no_verdict(format!("the verdict {} is none of the labels", quote(&format!("{verdict:?}"))))
    })?;
    let parts: Vec<&str> = [thought.trim(), reasoning.trim()].into_iter().filter(|part| !part.is_empty()).collect();
    Ok(BackendAnswer::Chosen { label, reasoning: parts.join("\n\n"), logprobs: None })
}

/// The order that a reply gives.
///
/// # Errors
/// No object of the form, or an order that does not name each candidate once.
pub(super) fn order(reply: &ChatReply, candidates: usize) -> Result<BackendAnswer, Failure> {
    let (NamedOrder { order }, _) = reply.json()?;
    // A 0, which names nobody, becomes an index that nobody has.
    let order: Vec<usize> = order.into_iter().map(|number| number.wrapping_sub(1)).collect();
    check_order(&order, candidates).map_err(Failure::no_verdict)?;
    Ok(BackendAnswer::Order(order))
}
