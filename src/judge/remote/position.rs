//! What a reply's first token and the likeliest in its place say of the labels. In: tokens with log-probabilities, not
//! trusted; out: the labels' log-probabilities, or why they are not known. A token that leaves open which label is meant, and
//! the probability of labels that are not listed, are unknown: they may be small, and are never taken for zero beyond that.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use super::failure::{Failure, quote};

/// By how much a logarithm of a probability may exceed 0, and a sum of probabilities 1: rounding.
const ROUNDING: f64 = 1e-3;
/// Largest probability of which it may be unknown whose it is. Below, it counts as outside the labels.
const MOST_UNKNOWN: f64 = 0.1;
/// A label's spellings: with a space before it and without.
const SPELLINGS: usize = 2;
/// What a piece of a character is in text.
const REPLACEMENT: &[u8] = "\u{FFFD}".as_bytes();

/// The sampled token, and the likeliest in its place.
#[derive(Debug, Deserialize)]
pub(super) struct Position {
    token: String,
    logprob: Value,
    #[serde(default)]
    bytes: Value,
    #[serde(default)]
    top_logprobs: Option<Vec<TokenLogprob>>,
}

#[derive(Debug, Deserialize)]
struct TokenLogprob {
    token: String,
    logprob: Value,
    #[serde(default)]
    bytes: Value,
}

/// A token as it is compared with labels.
struct Token<'a> {
    text: &'a str,
    /// Its bytes without the space that leads into a word.
    spelled: Cow<'a, [u8]>,
    logprob: &'a Value,
}

impl Position {
    /// Whether the endpoint lists no likeliest tokens at all.
    pub(super) fn has_no_list(&self) -> bool {
        self.top_logprobs.as_ref().is_none_or(Vec::is_empty)
    }

    /// The labels' log-probabilities, where so many of the likeliest tokens were `asked` for.
    ///
    /// # Errors
    /// A log-probability that is none, or probability of which it is not known whether it is a label's.
    pub(super) fn label_logprobs(&self, labels: &[String], asked: u32) -> Result<Vec<f64>, Failure> {
        let tokens = self.tokens();
        let mut logprobs = vec![f64::NEG_INFINITY; labels.len()];
        let (mut total, mut begun) = (f64::NEG_INFINITY, (f64::NEG_INFINITY, Cow::Borrowed("")));
        for token in &tokens {
            let logprob = checked(token.text, token.logprob)?;
            total = log_add(total, logprob);
            if only_begins(&token.spelled, labels, &tokens) {
                if logprob > begun.0 {
                    begun = (logprob, String::from_utf8_lossy(&token.spelled));
                }
                continue;
            }
            for (label, sum) in labels.iter().zip(&mut logprobs) {
                if label.as_bytes() == &*token.spelled {
                    *sum = log_add(*sum, logprob);
                }
            }
        }
        if total > ROUNDING {
            let total = total.exp();
            return Err(Failure::no_verdict(format!("the tokens' probabilities add up to {total:.3}, more than 1")));
        }
        if begun.0 > MOST_UNKNOWN.ln() {
            return Err(Failure::no_verdict(format!(
                "the judge begins a label with the token `{}`, and what it would have gone on with is not known; use \
                 labels that are one token each and do not begin one another",
                quote(&begun.1)
            )));
        }
        if logprobs.iter().all(|logprob| *logprob == f64::NEG_INFINITY) {
            return Err(Failure::no_verdict(format!(
                "none of the labels is among the likeliest tokens; the judge wants to say `{}`",
                quote(&self.token)
            )));
        }
        let unlisted = labels.iter().zip(&logprobs).filter(|(_, logprob)| **logprob == f64::NEG_INFINITY);
        let unlisted: Vec<&str> = unlisted.map(|(label, _)| label.as_str()).collect();
        self.check_unlisted(&unlisted, total.exp(), asked)?;
        Ok(logprobs.into_iter().map(|logprob| logprob.min(0.0)).collect())
    }

    /// Labels that are not among the tokens, whose probabilities are `total` in all, can have but little probability.
    fn check_unlisted(&self, labels: &[&str], total: f64, asked: u32) -> Result<(), Failure> {
        let unknown = self.unlisted(asked)? * (SPELLINGS * labels.len()) as f64;
        let unknown = unknown.min(1.0 - total);
        if unknown <= MOST_UNKNOWN {
            return Ok(());
        }
        let listed = self.list().len();
        // A list of all that were asked for bounds what is not on it; a shorter one does so only if it was asked for as such.
        let advice = if listed < asked as usize {
            format!("Where it never lists more, lower `top_logprobs` to {listed} (it is {asked})")
        } else {
            format!("Raise `top_logprobs` (it is {asked}), or use an endpoint that lists more")
        };
        Err(Failure::no_verdict(format!(
            "not among the {listed} tokens that the endpoint lists: {}; up to {unknown:.3} of the probability may be theirs. \
             {advice}",
            quote(&labels.join(", ")),
        )))
    }

    /// The largest probability of a token that is not listed: that of the least of the likeliest that were asked for, or
    /// anything where the endpoint lists fewer.
    fn unlisted(&self, asked: u32) -> Result<f64, Failure> {
        let mut logprobs: Vec<f64> =
            self.list().iter().map(|listed| checked(&listed.token, &listed.logprob)).collect::<Result<_, _>>()?;
        logprobs.sort_by(|a, b| b.total_cmp(a));
        Ok((asked as usize).checked_sub(1).and_then(|last| logprobs.get(last)).map_or(1.0, |logprob| logprob.exp()))
    }

    fn list(&self) -> &[TokenLogprob] {
        self.top_logprobs.as_deref().unwrap_or_default()
    }

    /// The likeliest tokens, and the sampled one if it is not among them.
    fn tokens(&self) -> Vec<Token<'_>> {
        let is_listed = self.list().iter().any(|listed| listed.token == self.token);
        let sampled = (!is_listed).then(|| Token::new(&self.token, &self.bytes, &self.logprob));
        self.list()
            .iter()
            .map(|listed| Token::new(&listed.token, &listed.bytes, &listed.logprob))
            .chain(sampled)
            .collect()
    }
}

impl<'a> Token<'a> {
    /// The bytes as the endpoint tells them: text cannot say which piece of a character a token is. Those of the text where it
    /// tells none.
    fn new(text: &'a str, told: &Value, logprob: &'a Value) -> Self {
        let byte = |byte: &Value| u8::try_from(byte.as_u64()?).ok();
        let told: Option<Vec<u8>> = told.as_array().and_then(|told| told.iter().map(byte).collect());
        let spelled = match told.filter(|told| !told.is_empty()) {
            Some(mut told) => {
                if told.first() == Some(&b' ') {
                    told.remove(0);
                }
                Cow::Owned(told)
            }
            None => Cow::Borrowed(text.strip_prefix(' ').unwrap_or(text).as_bytes()),
        };
        Self { text, spelled, logprob }
    }
}

/// Whether a token does not say which label is meant: it is a part of one, or a whole one with which another begins. That
/// other one is told apart only where it is a token of this reply itself: no tokenizer then writes it in parts.
fn only_begins(spelled: &[u8], labels: &[String], tokens: &[Token<'_>]) -> bool {
    let is_label = labels.iter().any(|label| label.as_bytes() == spelled);
    let is_token = |label: &String| tokens.iter().any(|token| *token.spelled == *label.as_bytes());
    let goes_on = |label: &&String| goes_on(label.as_bytes(), spelled);
    !spelled.is_empty() && labels.iter().filter(goes_on).any(|label| !is_label || !is_token(label))
}

/// Whether a label goes on after these bytes. A piece of a character of which the bytes are not known may be one of any
/// character that is not ASCII.
fn goes_on(label: &[u8], spelled: &[u8]) -> bool {
    let known = spelled.windows(REPLACEMENT.len()).position(|window| window == REPLACEMENT);
    match label.strip_prefix(spelled.get(..known.unwrap_or(spelled.len())).unwrap_or_default()) {
        Some(rest) if known.is_some() => label != spelled && rest.first().is_some_and(|byte| !byte.is_ascii()),
        Some(rest) => !rest.is_empty(),
        None => false,
    }
}

/// A log-probability: a number that is not above 0, but for rounding.
fn checked(token: &str, logprob: &Value) -> Result<f64, Failure> {
    match logprob.as_f64() {
        Some(number) if number.is_finite() && number <= ROUNDING => Ok(number),
        _ => Err(Failure::no_verdict(format!(
            "the log-probability of `{}` is {}, which is none",
            quote(token),
            quote(&logprob.to_string())
        ))),
    }
}

/// ln(e^a + e^b), exact where one of them is no probability at all.
fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}
