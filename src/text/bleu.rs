//! Sentence BLEU (Papineni et al., 2002), equal to sacreBLEU's. In: a hypothesis and its references; out: a score in
//! [0, 1], which is sacreBLEU's divided by 100, and a signature. Knows nothing of tokens but their matches.

use std::fmt;
use std::str::FromStr;

use super::overlap::{Clip, Overlap};
use super::scratch;
use super::tokenizer::{Case, Tokenizer};
use super::without_repeats;

/// The sacreBLEU version whose numbers these are: the fixtures in the tests come from it.
pub const SACREBLEU_VERSION: &str = "2.6.0";

/// The largest n-gram order of BLEU as it is commonly reported.
pub(super) const USUAL_ORDER: u8 = 4;

/// What becomes of a precision that is 0 (Chen and Cherry, 2014), under sacreBLEU's names.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Smoothing {
    /// `none`: the score is 0.
    None,
    /// `floor`: this many matches are assumed, 0.1 in sacreBLEU.
    Floor(f64),
    /// `add-k`: this is added to matches and totals beyond single tokens, 1 in sacreBLEU.
    AddK(f64),
    /// `exp`: 1/2 of a match is assumed at the first order without one, 1/4 at the second, and so on; sacreBLEU's
    /// default.
    #[default]
    Exp,
}

/// The name of no smoothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown smoothing `{0}`: use none, exp, floor or add-k, the last two also with a value from 0, as in floor[0.1]"
)]
pub struct UnknownSmoothing(pub String);

impl Smoothing {
    /// Every way, with sacreBLEU's value where it has one.
    pub const ALL: [Self; 4] = [Self::None, Self::Floor(0.1), Self::AddK(1.0), Self::Exp];

    /// sacreBLEU's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Floor(_) => "floor",
            Self::AddK(_) => "add-k",
            Self::Exp => "exp",
        }
    }

    /// Its value, where it has one.
    pub const fn value(self) -> Option<f64> {
        match self {
            Self::None | Self::Exp => None,
            Self::Floor(value) | Self::AddK(value) => Some(value),
        }
    }

    /// The same with another value; `None` where it has none.
    pub const fn with_value(self, value: f64) -> Option<Self> {
        match self {
            Self::None | Self::Exp => None,
            Self::Floor(_) => Some(Self::Floor(value)),
            Self::AddK(_) => Some(Self::AddK(value)),
        }
    }
}

impl FromStr for Smoothing {
    type Err = UnknownSmoothing;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || UnknownSmoothing(text.to_owned());
        let (method, value) = match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
            Some((method, value)) => {
                let value = value.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0);
                (method, Some(value.ok_or_else(error)?))
            }
            None => (text, None),
        };
        let usual = Self::ALL.into_iter().find(|smoothing| smoothing.name() == method).ok_or_else(error)?;
        value.map_or(Ok(usual), |value| usual.with_value(value).ok_or_else(error))
    }
}

impl fmt::Display for Smoothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = self.name();
        let Some(value) = self.value() else { return f.write_str(method) };
        // sacreBLEU prints two digits, which would not reproduce a value that has more.
        let short = format!("{value:.2}");
        if short.parse() == Ok(value) { write!(f, "{method}[{short}]") } else { write!(f, "{method}[{value}]") }
    }
}

/// Sentence BLEU. [`Bleu::default`] is what sacreBLEU recommends for sentences: `13a`, `exp`, effective order, order 4.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bleu {
    /// How text becomes tokens.
    pub tokenizer: Tokenizer,
    /// Whether case is ignored.
    pub lowercase: bool,
    /// What becomes of a precision that is 0. A negative or non-finite value is read as 0.
    pub smoothing: Smoothing,
    /// Whether orders longer than the hypothesis are left out of the mean. Off, a hypothesis of fewer than
    /// `max_ngram_order` tokens scores 0 (unless `add-k` gives it matches).
    pub effective_order: bool,
    /// The longest n-grams counted; 0 scores everything 0. Time grows with it.
    pub max_ngram_order: u8,
}

impl Default for Bleu {
    fn default() -> Self {
        Self {
            tokenizer: Tokenizer::default(),
            lowercase: false,
            smoothing: Smoothing::default(),
            effective_order: true,
            max_ngram_order: USUAL_ORDER,
        }
    }
}

impl Bleu {
    /// The score of a hypothesis, in [0, 1]: sacreBLEU's `sentence_score` divided by 100.
    ///
    /// Matches are clipped by the largest count of any reference; the brevity penalty takes the reference length
    /// closest to the hypothesis's, the shorter one on a tie. 0 if nothing matches, so also without references, where
    /// sacreBLEU has no answer. A `floor` above 1 can lift sacreBLEU's score beyond 100; here it stays within 1.
    pub fn sentence<S: AsRef<str>>(&self, hypothesis: &str, references: &[S]) -> f64 {
        let order = usize::from(self.max_ngram_order);
        if order == 0 {
            return 0.0;
        }
        scratch::with(|scratch| {
            let overlap = &mut scratch.overlap;
            read(overlap, self.tokenizer, Case::lower_if(self.lowercase), hypothesis, references);
            overlap.count(order, Clip::LargestReference);
            let hypothesis_len = overlap.hypothesis_len();
            let closest = overlap.reference_lens().min_by_key(|&len| (len.abs_diff(hypothesis_len), len)).unwrap_or(0);
            let precision = Precision { smoothing: self.smoothing, effective_order: self.effective_order };
            (brevity_penalty(hypothesis_len, closest) * precision.mean(overlap.matches(), hypothesis_len)).min(1.0)
        })
    }

    /// What it takes to reproduce a score with sacreBLEU: its signature, with our version, the sacreBLEU version that
    /// gives the same numbers, and the n-gram order where it is not 4.
    pub fn signature(&self, n_references: usize) -> String {
        let case = Case::lower_if(self.lowercase).name();
        let effective = if self.effective_order { "yes" } else { "no" };
        let order = match self.max_ngram_order {
            USUAL_ORDER => String::new(),
            order => format!("|order:{order}"),
        };
        let Self { tokenizer, smoothing, .. } = self;
        format!(
            "nrefs:{n_references}|case:{case}|eff:{effective}|tok:{tokenizer}|smooth:{smoothing}{order}|{}",
            version_signature()
        )
    }
}

/// The end of every signature.
pub(super) fn version_signature() -> String {
    format!("version:gradus-{}|equals:sacrebleu-{SACREBLEU_VERSION}", env!("CARGO_PKG_VERSION"))
}

/// Reads the tokens of a hypothesis and its references.
#[inline]
pub(super) fn read<S: AsRef<str>>(
    overlap: &mut Overlap,
    tokenizer: Tokenizer,
    case: Case,
    hypothesis: &str,
    references: &[S],
) {
    overlap.clear();
    for reference in without_repeats(references) {
        tokenizer.for_each_token(reference, case, |token| overlap.push_reference_token(token));
        overlap.end_reference();
    }
    tokenizer.for_each_token(hypothesis, case, |token| overlap.push_hypothesis_token(token));
}

/// exp(1 - r/h) for a hypothesis of h tokens shorter than the reference's r, otherwise 1.
pub(super) fn brevity_penalty(hypothesis_len: usize, reference_len: usize) -> f64 {
    match hypothesis_len {
        0 => 0.0,
        _ if hypothesis_len >= reference_len => 1.0,
        _ => (1.0 - reference_len as f64 / hypothesis_len as f64).exp(),
    }
}

/// How precisions become one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Precision {
    pub(super) smoothing: Smoothing,
    pub(super) effective_order: bool,
}

impl Precision {
    /// The geometric mean over the orders of `matches` of the smoothed precisions; above 1 only with a `floor` above 1.
    ///
    /// sacreBLEU takes the logarithm of a precision of 0 as -9999999999, which makes the mean 0 for every order a `u8`
    /// holds; here it is 0 at once.
    pub(super) fn mean(self, matches: &[u32], hypothesis_len: usize) -> f64 {
        if matches.iter().all(|&matched| matched == 0) {
            return 0.0;
        }
        let (mut log_sum, mut orders, mut zero_match) = (0.0, 0_u32, 1.0);
        for (shorter_by, &matched) in matches.iter().enumerate() {
            let (mut matched, mut total) = (f64::from(matched), hypothesis_len.saturating_sub(shorter_by) as f64);
            if let Smoothing::AddK(k) = self.smoothing
                && shorter_by > 0
            {
                matched += non_negative(k);
                total += non_negative(k);
            }
            if total == 0.0 {
                if self.effective_order {
                    break;
                }
                return 0.0;
            }
            if matched == 0.0 {
                matched = match self.smoothing {
                    Smoothing::Exp => {
                        zero_match /= 2.0;
                        zero_match
                    }
                    Smoothing::Floor(value) => non_negative(value),
                    Smoothing::None | Smoothing::AddK(_) => 0.0,
                };
            }
            if matched == 0.0 {
                return 0.0;
            }
            log_sum += (matched / total).ln();
            orders += 1;
        }
        (log_sum / f64::from(orders)).exp()
    }
}

fn non_negative(value: f64) -> f64 {
    if value.is_finite() { value.max(0.0) } else { 0.0 }
}
