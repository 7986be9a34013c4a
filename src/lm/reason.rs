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
    /// The tokens that can begin each label, while its place is looked at.
    openers: Vec<Vec<u32>>,
    logprobs: Option<Vec<f64>>,
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
    /// When the labels cannot be told apart by their first tokens.
    pub fn new(constraints: &Constraints, labels: Arc<[String]>, reasoning: Reasoning) -> Result<Self, LmError> {
        let constraint = constraints.json(json!({
            "type": "object",
            "properties": {"verdict": {"enum": &*labels}},
            "required": ["verdict"],
            "additionalProperties": false,
        }))?;
        let phase = Phase::Reasoning { said: 0 };
        Ok(Self { labels, constraint, reasoning, phase, object: Vec::new(), openers: Vec::new(), logprobs: None })
    }

    /// The label that was said; `None` when the text ended before it was.
    pub fn label(&self) -> Option<usize> {
        let object: serde_json::Value = serde_json::from_slice(&self.object).ok()?;
        let said = object.get("verdict")?.as_str()?;
        self.labels.iter().position(|label| label == said)
    }

    /// Natural logarithms of the labels' probabilities where the label was due.
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
        self.object == LEAD && self.logprobs.is_none()
    }
}

/// The tokens that begin each label and no other, out of those allowed.
fn openers(labels: &[String], mask: &Mask, constraint: &Constraint) -> Vec<Vec<u32>> {
    let mut openers = vec![Vec::new(); labels.len()];
    for (word, bits) in mask.iter().enumerate() {
        for bit in (0..32).filter(|bit| bits >> bit & 1 == 1) {
            let token = super::packed::narrow(word * 32) + bit;
            let bytes = constraint.bytes(token);
            let quoted = |label: &String| [label.as_bytes(), b"\"}"].concat();
            let begins = |label: &String| !bytes.is_empty() && quoted(label).starts_with(bytes);
            let mut beginning = labels.iter().enumerate().filter(|(_, label)| begins(label));
            if let (Some((index, _)), None) = (beginning.next(), beginning.next())
                && let Some(of) = openers.get_mut(index)
            {
                of.push(token);
            }
        }
    }
    openers
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
        self.openers = openers(&self.labels, &mask, &self.constraint);
        self.openers.concat()
    }

    fn watch(&mut self, logprobs: Vec<f64>) {
        let mut logprobs = logprobs.into_iter();
        let sum = |of: &Vec<u32>| logprobs.by_ref().take(of.len()).map(f64::exp).sum::<f64>().ln();
        self.logprobs = Some(self.openers.iter().map(sum).collect());
    }

    fn accept(&mut self, drawn: Drawn) -> Result<Next, LmError> {
        match self.phase {
            Phase::Reasoning { .. } if self.reasoning.ends.contains(&drawn.token) => {
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
pub struct Held {
    constraint: Constraint,
    text: Vec<u8>,
}

impl Held {
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

impl Guide for Held {
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
