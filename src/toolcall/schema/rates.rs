//! What applying one subschema costs, without those that it applies in turn: read off its own keywords. In: a node; out: its
//! [`Rates`], each of which is multiplied by the size of the value in a unit of its own. See [`super::cost`] for the model.

use std::ops::{Add, Mul};

use serde_json::Value;

use super::graph::{Graph, Node};
use super::pattern::{self, Engine, Scanning};
use super::size::{self, values_in};

/// What is beyond all bounds: as a number, so that none of it is still nothing.
pub(super) const ENDLESS: f64 = 1e200;

/// What applying a subschema once costs, for each unit of the value's size.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Rates {
    /// Units of work per unit of the value.
    pub(super) work: f64,
    /// Violations that may be reported.
    pub(super) reports: f64,
    /// Bytes of the schema that they copy.
    pub(super) texts: f64,
    /// Matches of patterns that backtrack freely.
    pub(super) backtracking: f64,
    /// Units of work that they take for each pair of bytes of a text.
    pub(super) squares: f64,
    /// Checks of `uniqueItems`.
    pub(super) comparing: f64,
}

impl Rates {
    /// Units of matching a text once, beyond those for each of its own.
    pub(super) fn matching(self, text: &str) -> f64 {
        self.backtracking * size::BACKTRACKING_UNITS + self.squares * size::squares(text)
    }

    /// Each rate `of` both.
    fn each(self, other: Self, of: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            work: of(self.work, other.work),
            reports: of(self.reports, other.reports),
            texts: of(self.texts, other.texts),
            backtracking: of(self.backtracking, other.backtracking),
            squares: of(self.squares, other.squares),
            comparing: of(self.comparing, other.comparing),
        }
    }

    /// The larger of each.
    pub(super) fn max(self, other: Self) -> Self {
        self.each(other, f64::max)
    }
}

impl Add for Rates {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.each(other, |one, other| (one + other).min(ENDLESS))
    }
}

impl Mul<f64> for Rates {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        self.each(self, |rate, _| (rate * factor).min(ENDLESS))
    }
}

/// What applying one node to a value costs, without the nodes that it applies in turn.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Own {
    /// At each value that it is applied to.
    pub(super) value: Rates,
    /// At each member of an object that it is applied to: matching the names of `patternProperties`.
    pub(super) member: Rates,
    /// Whether a match may be given up.
    pub(super) gives_up: bool,
}

impl Own {
    /// Of each node.
    ///
    /// # Errors
    ///
    /// The node whose pattern is too expensive, and why.
    pub(super) fn of_all(graph: &Graph<'_>) -> Result<Vec<Self>, (usize, String)> {
        let nodes = graph.nodes.iter().enumerate();
        nodes.map(|(at, node)| Self::of(node).map_err(|message| (at, message))).collect()
    }

    fn of(node: &Node<'_>) -> Result<Self, String> {
        let mut own = Self { value: Rates { work: 1.0, reports: 1.0, ..Rates::default() }, ..Self::default() };
        for (keyword, value) in node.schema.as_object().into_iter().flatten() {
            own.value.work += listed(keyword, value);
            own.keyword(keyword, value)?;
        }
        Ok(own)
    }

    fn keyword(&mut self, keyword: &str, value: &Value) -> Result<(), String> {
        match (keyword, value) {
            // Each name that is missing is a violation of its own, which takes as long as some.
            ("required", Value::Array(names)) => self.reports(4.0 * names.len() as f64, value),
            ("dependentRequired" | "dependencies" | "const" | "enum", value) => self.reports(0.0, value),
            // A violation repeats the schema that should not have matched.
            ("not", value) => self.reports(values_in(value) as f64, value),
            // With large exponents it divides exactly.
            ("multipleOf", _) => self.value.work += 25.0,
            // The text is read as what it says it is.
            ("contentMediaType" | "contentEncoding", _) => self.value.work += 4.0,
            ("uniqueItems", Value::Bool(true)) => self.value.comparing += 1.0,
            ("pattern", Value::String(pattern)) => {
                self.reports(0.0, value);
                self.value = self.value + self.matching(pattern)?;
            }
            ("patternProperties", Value::Object(patterns)) => {
                for pattern in patterns.keys() {
                    self.member = self.member + self.matching(pattern)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Counts more reports, and that they copy a keyword's value.
    fn reports(&mut self, more: f64, value: &Value) {
        self.value.reports += more;
        self.value.texts += size::copied_bytes(value);
    }

    fn matching(&mut self, pattern: &str) -> Result<Rates, String> {
        let cost = pattern::cost(pattern)?;
        self.gives_up |= cost.engine != Engine::Linear;
        let work = cost.units();
        if cost.engine != Engine::Backtracking {
            return Ok(Rates { work, ..Rates::default() });
        }
        let Scanning { steps, step_bytes, bytes, squares } = cost.scanning;
        // A step is about a unit.
        let work = work + (bytes + step_bytes * size::BACKTRACKING_UNITS) * size::UNIT_BYTES;
        Ok(Rates { work, backtracking: 1.0 + steps, squares, ..Rates::default() })
    }
}

/// The work of a keyword that goes through a list of its own.
fn listed(keyword: &str, value: &Value) -> f64 {
    let entries = match (keyword, value) {
        // Many strings are hashed.
        ("enum", Value::Array(items)) if items.iter().all(Value::is_string) => 1.0,
        ("enum" | "const" | "dependentRequired" | "dependencies", value) => values_in(value) as f64 / 4.0,
        ("required", Value::Array(items)) => items.len() as f64 / 2.0,
        ("properties", Value::Object(members)) => members.len() as f64 / 4.0,
        _ => return 0.0,
    };
    // Where lengths are equal, texts are compared.
    let text_bytes = match (keyword, value) {
        ("properties", Value::Object(members)) => members.keys().map(String::len).sum::<usize>() as f64,
        (_, value) => size::text_bytes(value),
    };
    entries + text_bytes / 1024.0
}
