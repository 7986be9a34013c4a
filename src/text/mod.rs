//! Scoring an answer against references by their words. In: an answer and its references as plain text; out: numbers in
//! [0, 1] and the signatures that reproduce them. Knows nothing of trajectories, stages or rewards.
//!
//! Three scores: [`exact_match`] and [`f1`] as `SQuAD` v1.1 defines them, [`Bleu`] equal to sacreBLEU's sentence score,
//! and [`LaBleu`], the length-aware BLEU that does not punish a short answer for being short. F1 and both BLEUs rest on
//! one count of clipped n-gram matches (`overlap`), which is linear in the text: an answer may be hostile and long.
//!
//! Reading order: `tokenizer` and `split` (text to tokens), `squad` (normalisation, exact match, F1), `overlap` over
//! `names` (counting), `bleu`, `la_bleu`.

mod bleu;
mod la_bleu;
#[cfg(test)]
mod laws;
mod names;
mod overlap;
mod scratch;
mod split;
mod squad;
mod tokenizer;
mod unicode;
mod unicode_tables;

pub use bleu::{Bleu, SACREBLEU_VERSION, Smoothing, UnknownSmoothing};
pub use la_bleu::LaBleu;
pub use squad::{Squad, exact_match, f1, normalize, squad};
pub use tokenizer::{Tokenizer, UnknownTokenizer};

/// The references without those that stand right after an equal one: data sets repeat them, and no score here changes.
fn without_repeats<S: AsRef<str>>(references: &[S]) -> impl Iterator<Item = &str> {
    let mut last = None;
    references.iter().map(AsRef::as_ref).filter(move |reference| last.replace(*reference) != Some(*reference))
}
