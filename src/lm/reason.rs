//! A text that reasons first and then says one of several labels in a JSON object: `{"verdict":"LABEL"}`.
//!
//! The reasoning is free, until the model closes it or its budget is spent. The object is then held to its schema, and the
//! distribution over the labels is read where the label is due.

use std::sync::Arc;

use serde_json::json;

use super::LmError;
use super::constrain::{Constraint, Constraints};
use super::generate::{Guide, Next};
use super::sample::{Drawn, Mask};

/// Leads into the label.
const LEAD: &[u8] = b"{\"verdict\":\"";
/// Largest probability of the tokens that begin several labels: beyond it the labels' probabilities are not known.
const MOST_SHARED: f64 = 0.1;

/// What a model's reasoning ends with.
#[derive(Debug, Clone)]
pub struct Reasoning {
    /// Tokens that end it: the end of the text, and the end of thinking if the model has one.
    pub ends: Vec<u32>,
    /// What is said between the reasoning and the object.
    pub bridge: Vec<u32>,
    /// Most tokens of it.
    pub budget: usize,
}

/// The guide of one such text.
pub struct ReasonedLabel {
    labels: Arc<[String]>,
    constraint: Constraint,
    reasoning: Reasoning,
    phase: Phase,
    /// The object so far.
    object: Vec<u8>,
    /// The tokens that can begin the label, while its place is looked at.
    openers: LabelStartTokens,
    logprobs: Option<Vec<f64>>,
}

/// Tokens that can begin a label.
#[derive(Default)]
struct LabelStartTokens {
    /// Of each label, those that say that it is meant.
    own: Vec<Vec<u32>>,
    /// Those that leave open which one is.
    shared: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Reasoning { said: usize },
    Object,
}

impl ReasonedLabel {
    /// A guide to one of `labels`.
    ///
    /// # Errors
    /// When the text cannot be held to the labels.
    pub fn new(constraints: &Constraints, labels: Arc<[String]>, reasoning: Reasoning) -> Result<Self, LmError> {
        let constraint = constraints.json(json!({
            "type": "object",
            "properties": {"verdict": {"enum": &*labels}},
            "required": ["verdict"],
            "additionalProperties": false,
        }))?;
        let phase = Phase::Reasoning { said: 0 };
        let openers = LabelStartTokens::default();
        Ok(Self { labels, constraint, reasoning, phase, object: Vec::new(), openers, logprobs: None })
    }

    /// The label that was said; `None` when the text ended before it was.
    pub fn label(&self) -> Option<usize> {
        let object: serde_json::Value = serde_json::from_slice(&self.object).ok()?;
        let said = object.get("verdict")?.as_str()?;
        self.labels.iter().position(|label| label == said)
    }

    /// Natural logarithms of the labels' probabilities where the label was due; `None` where much of the probability is of
    /// tokens that begin several labels, such as "1" of "1" and "10" where digits are written one by one.
    pub fn logprobs(&self) -> Option<&[f64]> {
        self.logprobs.as_deref()
    }

    /// The bridge and as much of the object as is certain.
    fn begin_object(&mut self) -> Result<Vec<u32>, LmError> {
        self.phase = Phase::Object;
        let mut said = self.reasoning.bridge.clone();
        said.extend(self.take_forced()?);
        Ok(said)
    }

    fn take_forced(&mut self) -> Result<Vec<u32>, LmError> {
        // Never past the place of the label, which is to be looked at.
        let mut taken = Vec::new();
        while !self.at_label()
            && self.label().is_none()
            && let Some(token) = self.constraint.forced()?
        {
            self.take(token)?;
            taken.push(token);
        }
        Ok(taken)
    }

    fn take(&mut self, token: u32) -> Result<(), LmError> {
        let bytes = self.constraint.bytes(token).to_vec();
        self.constraint.accept(token)?;
        self.object.extend(bytes);
        Ok(())
    }

    fn at_label(&self) -> bool {
        self.object == LEAD
    }
}

/// The tokens of a mask.
fn ids(mask: &Mask) -> impl Iterator<Item = u32> {
    let of = |(word, bits): (usize, &u32)| {
        let bits = *bits;
        (0..32).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| super::packed::narrow(word * 32) + bit)
    };
    mask.iter().enumerate().flat_map(of)
}

impl LabelStartTokens {
    /// Sorts the tokens of `allowed` that begin labels.
    fn find(labels: &[String], allowed: &Mask, constraint: &Constraint) -> Self {
        let begins = |label: &str, bytes: &[u8]| [label.as_bytes(), b"\"}"].concat().starts_with(bytes);
        let tokens = ids(allowed).map(|token| (token, constraint.bytes(token)));
        let tokens = tokens.filter(|(_, bytes)| !bytes.is_empty() && labels.iter().any(|label| begins(label, bytes)));
        let tokens: Vec<(u32, &[u8])> = tokens.collect();
        let is_token = |label: &str| tokens.iter().any(|(_, bytes)| *bytes == label.as_bytes());
        let mut openers = Self { own: vec![Vec::new(); labels.len()], shared: Vec::new() };
        for (token, bytes) in &tokens {
            let begun: Vec<(usize, &String)> =
                labels.iter().enumerate().filter(|(_, label)| begins(label, bytes)).collect();
            // A label that is a token itself is not written as a shorter one and more.
            let is_whole = |label: &str| label.as_bytes() == *bytes;
            let whole = begun.iter().find(|(_, label)| is_whole(label));
            let whole = whole.filter(|_| begun.iter().all(|(_, label)| is_whole(label) || is_token(label)));
            let meant = if let [only] = begun.as_slice() { Some(only) } else { whole };
            match meant.and_then(|(index, _)| openers.own.get_mut(*index)) {
                Some(own) => own.push(*token),
                None => openers.shared.push(*token),
            }
        }
        openers
    }
}

impl Guide for ReasonedLabel {
    fn allowed(&mut self) -> Result<Option<Mask>, LmError> {
        match self.phase {
            Phase::Reasoning { .. } => Ok(None),
            Phase::Object => self.constraint.allowed().map(Some),
        }
    }

    fn watched(&mut self) -> Vec<u32> {
        if self.phase != Phase::Object || !self.at_label() {
            return Vec::new();
        }
        let Ok(mask) = self.constraint.allowed() else { return Vec::new() };
        self.openers = LabelStartTokens::find(&self.labels, &mask, &self.constraint);
        [self.openers.own.concat(), self.openers.shared.clone()].concat()
    }

    fn watch(&mut self, logprobs: Vec<f64>) {
        let mut probabilities = logprobs.into_iter().map(f64::exp);
        let sum = |of: &Vec<u32>| probabilities.by_ref().take(of.len()).sum::<f64>().ln();
        let of_labels: Vec<f64> = self.openers.own.iter().map(sum).collect();
        self.logprobs = (probabilities.sum::<f64>() <= MOST_SHARED).then_some(of_labels);
    }

    fn accept(&mut self, drawn: Drawn) -> Result<Next, LmError> {
        match self.phase {
            Phase::Reasoning { .. } if self.reasoning.budget == 0 || self.reasoning.ends.contains(&drawn.token) => {
                Ok(Next::Instead(self.begin_object()?))
            }
            Phase::Reasoning { said } if said + 1 >= self.reasoning.budget => Ok(Next::Say(self.begin_object()?)),
            Phase::Reasoning { said } => {
                self.phase = Phase::Reasoning { said: said + 1 };
                Ok(Next::Draw)
            }
            Phase::Object => {
                self.take(drawn.token)?;
                if self.label().is_some() {
                    return Ok(Next::Stop);
                }
                let forced = self.take_forced()?;
                if self.label().is_some() {
                    return Ok(Next::Stop);
                }
                Ok(if forced.is_empty() { Next::Draw } else { Next::Say(forced) })
            }
        }
    }
}

/// A guide that holds a whole text to a JSON schema.
pub struct SchemaGuide {
    constraint: Constraint,
    text: Vec<u8>,
}

impl SchemaGuide {
    /// A guide to the JSON texts of a schema.
    ///
    /// # Errors
    /// When the schema cannot be held to.
    pub fn new(constraints: &Constraints, schema: serde_json::Value) -> Result<Self, LmError> {
        Ok(Self { constraint: constraints.json(schema)?, text: Vec::new() })
    }

    /// The text so far.
    pub fn text(&self) -> &[u8] {
        &self.text
    }
}

impl Guide for SchemaGuide {
    fn allowed(&mut self) -> Result<Option<Mask>, LmError> {
        self.constraint.allowed().map(Some)
    }

    fn accept(&mut self, drawn: Drawn) -> Result<Next, LmError> {
        let bytes = self.constraint.bytes(drawn.token).to_vec();
        self.constraint.accept(drawn.token)?;
        self.text.extend(bytes);
        Ok(if self.constraint.done() { Next::Stop } else { Next::Draw })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lm::tokenizer::Tokenizer;

    /// Ends a text of the small judge.
    const END: u32 = 262;

    /// A guide that has just begun, with a tokenizer that has a token for each of `words` in place of control characters.
    fn begun(labels: &[&str], words: &[&str], budget: usize) -> ReasonedLabel {
        let file = include_bytes!("../../tests/small_judge/tokenizer.json");
        let mut file: serde_json::Value = serde_json::from_slice(file).unwrap();
        let vocabulary = file["model"]["vocab"].as_object_mut().unwrap();
        for (control, word) in ["\u{100}", "\u{101}"].iter().zip(words) {
            let id = vocabulary.remove(*control).unwrap();
            vocabulary.insert((*word).to_owned(), id);
        }
        let tokenizer = Tokenizer::from_json("tokenizer.json".as_ref(), file.to_string().as_bytes()).unwrap();
        let constraints = Constraints::new(&tokenizer, 288, END).unwrap();
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let reasoning = Reasoning { ends: vec![END], bridge: Vec::new(), budget };
        ReasonedLabel::new(&constraints, labels, reasoning).unwrap()
    }

    /// A guide where its label is due.
    fn guide(labels: &[&str], words: &[&str]) -> ReasonedLabel {
        let mut guide = begun(labels, words, 9);
        guide.accept(Drawn { token: END, logprob: 0.0 }).unwrap();
        assert!(guide.at_label());
        guide
    }

    /// The labels' probabilities where tokens have these.
    fn probabilities(guide: &mut ReasonedLabel, tokens: &[(&str, f64)]) -> Option<Vec<f64>> {
        let watched = guide.watched();
        let of = |token: &u32| {
            let bytes = guide.constraint.bytes(*token);
            tokens.iter().find(|(text, _)| text.as_bytes() == bytes).map_or(0.0, |(_, probability)| *probability)
        };
        let logprobs = watched.iter().map(|token| of(token).ln()).collect();
        guide.watch(logprobs);
        Some(guide.logprobs()?.iter().map(|logprob| (logprob.exp() * 1e9).round() / 1e9).collect())
    }

    #[test]
    fn a_label_that_begins_another_takes_nothing_from_it() {
        let labels = ["1", "2", "10"];
        let mut guide = guide(&labels, &[]);
        assert_eq!(probabilities(&mut guide, &[("1", 0.97), ("2", 0.01)]), None, "which one is not known");
        for digit in ["1", "0"] {
            let allowed = guide.constraint.allowed().unwrap();
            let token = ids(&allowed).find(|token| guide.constraint.bytes(*token) == digit.as_bytes()).unwrap();
            guide.accept(Drawn { token, logprob: 0.0 }).unwrap();
        }
        assert_eq!(guide.label(), Some(2), "the one that was said counts");

        let mut guide = self::guide(&labels, &[]);
        let little = probabilities(&mut guide, &[("1", 0.05), ("2", 0.9)]);
        assert_eq!(little, Some(vec![0.0, 0.9, 0.0]), "little is outside the labels");
    }

    #[test]
    fn no_token_is_said_beyond_the_budget() {
        let drawn = || Drawn { token: 1, logprob: 0.0 };
        for budget in 0..3 {
            let mut guide = begun(&["1", "2"], &[], budget);
            let free = (0..budget.saturating_sub(1)).all(|_| matches!(guide.accept(drawn()), Ok(Next::Draw)));
            let next = guide.accept(drawn()).unwrap();
            let is_kept = matches!(&next, Next::Say(_));
            assert!(free && is_kept == (budget > 0) && guide.at_label(), "{budget}");
        }
    }

    #[test]
    fn labels_that_are_tokens_are_told_apart() {
        let mut guide = guide(&["1", "2", "10"], &["10", "10\""]);
        let told = probabilities(&mut guide, &[("1", 0.6), ("2", 0.1), ("10", 0.15), ("10\"", 0.05)]);
        assert_eq!(told, Some(vec![0.6, 0.1, 0.2]));
        let mut guide = self::guide(&["Match", "Mismatch"], &["Mat"]);
        let told = probabilities(&mut guide, &[("Match", 0.6), ("Mat", 0.1), ("Mismatch", 0.2), ("M", 0.05)]);
        assert_eq!(told, Some(vec![0.7, 0.2]));
    }
}
