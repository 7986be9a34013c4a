//! Length-aware BLEU: a BLEU that gives a right answer of one word its due. In: an answer and its references; out: a
//! score in [0, 1]. Knows no stage: `floor` and `cap` are its caller's choice.
//!
//! BLEU that does not punish short answers is the idea of arXiv:2512.07478; the formula is ours. With `N_r` = min(4,
//! |r|):
//!
//! ```text
//! LB(h, r)      = BP(h, r) * exp( 1/N_r * sum over n = 1..N_r of ln p_n )
//! la_bleu(h, R) = max over r in R of LB(h, r)
//! ```
//!
//! `p_n` are the clipped precisions under sacreBLEU's `exp` smoothing. Orders longer than h have no n-grams and are
//! left out of the mean; BP is what punishes shortness. Beyond (1 + slack) |r| tokens BP falls again, so that an answer
//! cannot win by holding every guess at once.

use super::bleu::{Precision, Smoothing, USUAL_ORDER, brevity_penalty, read, version_signature};
use super::overlap::Clip;
use super::scratch;
use super::squad::exact_match;
use super::tokenizer::{Case, Tokenizer};

/// Length-aware BLEU and the credit it gives an answer that is not an exact match.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LaBleu {
    /// How text becomes tokens.
    pub tokenizer: Tokenizer,
    /// Whether case is ignored.
    pub lowercase: bool,
    /// How many times its length a reference may be exceeded by without loss; 1 by default, infinity turns the guard
    /// off. What is not a number from 0 is read as 0, where any surplus costs as much as the same shortfall.
    pub slack: f64,
    /// The similarity up to which an answer earns nothing, in [0, 1]; 0 by default.
    pub floor: f64,
    /// The most that an answer earns without being an exact match, in [0, 1]; 0.5 by default.
    pub cap: f64,
}

impl Default for LaBleu {
    fn default() -> Self {
        Self { tokenizer: Tokenizer::default(), lowercase: false, slack: 1.0, floor: 0.0, cap: 0.5 }
    }
}

impl LaBleu {
    /// `la_bleu(h, R)` in [0, 1]: the length-aware BLEU of the best reference. 0 without references.
    ///
    /// With infinite slack this is, for one reference of m tokens, sacreBLEU's sentence score / 100 with
    /// `max_ngram_order = min(4, m)` and `effective_order = True`.
    pub fn similarity<S: AsRef<str>>(&self, hypothesis: &str, references: &[S]) -> f64 {
        scratch::with(|scratch| {
            let overlap = &mut scratch.overlap;
            read(overlap, self.tokenizer, Case::lower_if(self.lowercase), hypothesis, references);
            let longest = overlap.reference_lens().max().unwrap_or(0);
            let order = longest.clamp(1, usize::from(USUAL_ORDER));
            overlap.count(order, Clip::EachReference);
            let hypothesis_len = overlap.hypothesis_len();
            let precision = Precision { smoothing: Smoothing::Exp, effective_order: true };
            let scores = overlap.reference_lens().zip(overlap.matches().chunks_exact(order)).map(|(len, matches)| {
                let orders = matches.get(..order.min(len)).unwrap_or_default();
                match precision.mean(orders, hypothesis_len) {
                    0.0 => 0.0,
                    mean => mean * self.length_penalty(hypothesis_len, len),
                }
            });
            scores.fold(0.0, f64::max)
        })
    }

    /// 1 for an exact match (`SQuAD`'s), otherwise the [partial credit](Self::partial_credit); in [0, 1].
    pub fn score<S: AsRef<str>>(&self, hypothesis: &str, references: &[S]) -> f64 {
        if exact_match(hypothesis, references) {
            return 1.0;
        }
        self.partial_credit(self.similarity(hypothesis, references))
    }

    /// What an answer earns that is not an exact match: `cap * max(0, (similarity - floor) / (1 - floor))`.
    ///
    /// Partial credit is what a policy that cannot answer learns to farm, so it ends at `cap`. A floor of 1 leaves
    /// nothing to earn.
    pub fn partial_credit(&self, similarity: f64) -> f64 {
        // What is not a number becomes 0, too.
        let floor = self.floor.max(0.0);
        let cap = if self.cap > 0.0 { self.cap.min(1.0) } else { 0.0 };
        let surplus = similarity - floor;
        if surplus > 0.0 { cap * (surplus / (1.0 - floor)).min(1.0) } else { 0.0 }
    }

    /// What it takes to reproduce a score: the keys of sacreBLEU's signature, and ours.
    pub fn signature(&self) -> String {
        let Self { tokenizer, slack, floor, cap, .. } = self;
        let case = Case::lower_if(self.lowercase).name();
        format!(
            "la_bleu|nrefs:max|case:{case}|eff:yes|tok:{tokenizer}|smooth:exp|order:min({USUAL_ORDER},ref)\
             |slack:{slack}|floor:{floor}|cap:{cap}|{}",
            version_signature()
        )
    }

    /// BLEU's brevity penalty, and its mirror image beyond `(1 + slack)` times the reference.
    fn length_penalty(&self, hypothesis_len: usize, reference_len: usize) -> f64 {
        let slack = if self.slack >= 0.0 { self.slack } else { 0.0 };
        let allowed = (1.0 + slack) * reference_len as f64;
        let len = hypothesis_len as f64;
        if len > allowed { (1.0 - len / allowed).exp() } else { brevity_penalty(hypothesis_len, reference_len) }
    }
}
