//! A request that has no scores, for dialects whose clients must be told so in their own words. In: what can be known of
//! it. Out: what each of its items gets. Knows no dialect's words.

use std::sync::Arc;

use super::options::Options;
use crate::http::wire::OnInvalid;
use crate::rubric::Rubric;

/// What is known of a request that has no scores.
pub(super) struct Unscored {
    /// How many items it has, as far as that is known.
    pub(super) items: usize,
    /// What can be read of its query.
    pub(super) options: Options,
    /// The rubric that it asks for, if there is one of that name.
    pub(super) rubric: Option<Arc<Rubric>>,
}

impl Unscored {
    /// The reward of every item: the rubric's lowest, so that no broken request is worth more than a wrong answer; 0 where
    /// there is no such rubric, and `null` where the query asks for that.
    pub(super) fn reward(&self) -> Option<f64> {
        let null = self.options.on_invalid() == OnInvalid::Null;
        (!null).then(|| self.rubric.as_ref().map_or(0.0, |rubric| rubric.range.min()))
    }

    /// The names of the metrics that its items would have.
    pub(super) fn metric_names(&self) -> impl Iterator<Item = &str> {
        self.rubric.as_deref().into_iter().flat_map(Rubric::metric_names)
    }
}
