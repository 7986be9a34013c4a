//! Arguments against JSON Schema (rules V1 to V8). In: the text of a schema, and decoded arguments; out: valid, the
//! violations with JSON Pointers, or why the schema itself cannot be used. Fetches nothing; knows no tools.
//!
//! Drafts 4, 6, 7, 2019-09 and 2020-12 by `$schema`, 2020-12 without. `format` is an annotation unless asserted.
//! Schemas are hostile input, so each is judged before it is evaluated: reference cycles that never descend into the
//! value, expensive patterns and oversized documents are unsupported when compiled, and arguments that could take
//! more than [`BUDGET`] units of work are unsupported for them. What is counted, and what the bounds promise, is said in `cost`.

mod bounded;
mod branches;
mod building;
mod cache;
mod compile;
mod cost;
mod count;
mod declared;
mod ecma;
mod graph;
mod likeness;
mod limits;
mod locate;
mod pattern;
mod rates;
mod resolve;
mod size;
mod subschema;
#[cfg(test)]
mod tests;
mod text_hash;

use std::{
    collections::HashMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::OnceLock,
};

use jsonschema::{Validator, error::ValidationErrorKind};
use serde_json::Value;
use thiserror::Error;

pub(in crate::toolcall) use self::bounded::bounded;
pub use self::bounded::{MAX_MESSAGE_BYTES, MAX_POINTER_BYTES, bounded_pointer};
pub use self::cache::SchemaCache;
pub use self::locate::escape_pointer;
use self::{
    building::Depth, compile::compile, cost::Cost, count::Counter, declared::Parameters, limits::Contents, size::Size,
};
use crate::toolcall::offered::Declared;

/// Most units of work for one set of arguments; a unit is one keyword group at one value, a hundred nanoseconds at most.
pub const BUDGET: f64 = 5e6;

/// Most units of work for all arguments of one trajectory.
pub const TRAJECTORY_BUDGET: f64 = 1e7;

/// Units of work from which on listing is counted on the arguments.
const LISTED_UNCOUNTED: f64 = 2e4;

/// Most bytes that are copied to list violations; beyond, a single one stands for all.
const REPORT_BUDGET: f64 = 8e6;

/// Most schemas nested on the stack; one takes below 1 KiB of it.
const MAX_STACK: u32 = 1000;

/// Most violations that are listed.
pub const MAX_VIOLATIONS: usize = 16;

/// Bytes of messages and pointers after which no further violation of a call is listed.
const MAX_VIOLATIONS_BYTES: usize = 8 << 10;

/// Backtracking steps of one match before it is given up.
const BACKTRACK_LIMIT: usize = 20_000;

/// Bytes of a pattern's state, the engines that are built of it together.
const STATE_BYTES: usize = 512;

named! {
    /// Why a schema cannot be used.
    pub enum ProblemCode {
        /// The schema is no valid schema, or refers to what it does not contain.
        Invalid = "schema_invalid",
        /// The schema, or the arguments with it, take more than the limits allow.
        Unsupported = "schema_unsupported",
    }
}

/// A schema that cannot be used: a fault of the request, never of the policy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{code}: {message}")]
pub struct SchemaProblem {
    /// Whose limit or rule it breaks.
    pub code: ProblemCode,
    /// What is wrong, and the fix or the limit.
    pub message: String,
    /// JSON Pointer into the schema, at most [`MAX_POINTER_BYTES`] long.
    pub pointer: String,
}

impl SchemaProblem {
    fn new(code: ProblemCode, message: &impl fmt::Display, pointer: &str) -> Self {
        Self { code, message: bounded(message), pointer: bounded_pointer(pointer) }
    }

    fn invalid(message: impl fmt::Display, pointer: impl AsRef<str>) -> Self {
        Self::new(ProblemCode::Invalid, &message, pointer.as_ref())
    }

    fn unsupported(message: impl fmt::Display, pointer: impl AsRef<str>) -> Self {
        Self::new(ProblemCode::Unsupported, &message, pointer.as_ref())
    }
}

/// One way in which arguments break their schema. They are ordered by their places.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// JSON Pointer into the arguments, at most [`MAX_POINTER_BYTES`] long.
    pub pointer: String,
    /// JSON Pointer into the schema, likewise.
    pub schema_pointer: String,
    /// What is wrong, at most about [`MAX_MESSAGE_BYTES`] long.
    pub message: String,
}

/// The verdict on arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// They satisfy the schema.
    Valid,
    /// They do not; at least one and at most [`MAX_VIOLATIONS`] reasons.
    Invalid(Vec<Violation>),
    /// The schema cannot say.
    Problem(SchemaProblem),
}

/// A schema by its text, compiled when it is first needed.
#[derive(Debug)]
pub struct Schema {
    text: Box<str>,
    formats: Formats,
    pattern_states: u64,
    compiled: OnceLock<Result<Compiled, SchemaProblem>>,
    /// What a schema that cannot be compiled says of its parameters.
    written: OnceLock<Parameters>,
}

/// What `format` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Formats {
    /// Nothing (rule V2).
    Annotate,
    /// It rejects strings of another format, as far as the format is known.
    Assert,
}

impl Schema {
    /// Keeps the text of a schema.
    pub fn new(text: &str, formats: Formats) -> Self {
        // A key may be spelled with escapes.
        let may_match = text.contains("pattern") || text.contains("\\u");
        let readable = may_match && text.len() <= limits::MAX_SCHEMA_BYTES;
        let parsed = readable.then(|| serde_json::from_str::<Value>(text).ok()).flatten();
        let pattern_states = parsed.map_or(0, |schema| Contents::of(&schema).pattern_states());
        Self { text: text.into(), formats, pattern_states, compiled: OnceLock::new(), written: OnceLock::new() }
    }

    /// The same schema where it is not to be compiled, and why.
    #[must_use]
    pub fn unsupported(&self, message: &str) -> Self {
        let compiled = OnceLock::from(Err(SchemaProblem::unsupported(message, "")));
        Self { text: self.text.clone(), formats: self.formats, pattern_states: 0, compiled, written: OnceLock::new() }
    }

    /// States of its patterns once they are compiled, roughly; known before.
    pub fn pattern_states(&self) -> u64 {
        self.pattern_states
    }

    /// Bytes that the schema takes once compiled, roughly; known before.
    pub fn weight_bytes(&self) -> usize {
        let text = &*self.text;
        let subschemas = memchr::memchr3_iter(b'{', b'[', b',', text.as_bytes()).count();
        let patterns = usize::try_from(self.pattern_states).unwrap_or(usize::MAX).saturating_mul(STATE_BYTES);
        2048 + text.len() * 24 + subschemas * 150 + patterns + building::tracking_bytes(text)
    }

    /// Checks decoded arguments.
    pub fn check(&self, arguments: &Value) -> Check {
        let mut left = TRAJECTORY_BUDGET;
        self.check_within(arguments, &mut left)
    }

    /// Checks decoded arguments and takes the work from what is `left` for those that come with them.
    pub fn check_within(&self, arguments: &Value, left: &mut f64) -> Check {
        match self.compiled() {
            Ok(compiled) => compiled.check(arguments, left),
            Err(problem) => Check::Problem(problem.clone()),
        }
    }

    /// What makes the schema unusable for any arguments.
    pub fn problem(&self) -> Option<&SchemaProblem> {
        self.compiled().err()
    }

    /// The types that the schema declares for a member of the object that it describes (rule X2).
    pub fn declared(&self, parameter: &str) -> Declared {
        match self.compiled() {
            Ok(compiled) => compiled.parameters.declared(parameter),
            // One wrong word makes the schema unusable, and the types of the other parameters no less plain.
            Err(_) => self.written.get_or_init(|| Parameters::written(&self.text)).declared(parameter),
        }
    }

    fn compiled(&self) -> Result<&Compiled, &SchemaProblem> {
        self.compiled.get_or_init(|| compile(&self.text, self.formats)).as_ref()
    }
}

/// A validator with the bounds of its work.
#[derive(Debug)]
struct Compiled {
    /// There until it is dropped.
    validator: Option<Validator>,
    originals: HashMap<String, String>,
    depth: Depth,
    bounds: Bounds,
    parameters: Parameters,
}

impl Compiled {
    fn check(&self, arguments: &Value, left: &mut f64) -> Check {
        let Some(size) = Size::of(arguments) else {
            return unsupported(format!("the arguments nest deeper than {} levels", size::MAX_DEPTH));
        };
        if let Err(message) = self.bounds.spend(arguments, &size, left) {
            return unsupported(message);
        }
        let Some(validator) = &self.validator else { return unsupported("the schema is not there any more".into()) };
        if validator.is_valid(arguments) { Check::Valid } else { self.violations(validator, arguments, &size, left) }
    }

    /// Why `arguments` are not valid. A match that was given up makes "not valid" a guess, and the list shows it.
    fn violations(&self, validator: &Validator, arguments: &Value, size: &Size, left: &mut f64) -> Check {
        if !self.bounds.may_list(arguments, size, left) {
            if self.bounds.cost.gives_up {
                return unsupported("a pattern may have been given up on arguments of this size".into());
            }
            let message = "the arguments break the schema; they are too large to list where".into();
            return Check::Invalid(vec![Violation { pointer: String::new(), schema_pointer: String::new(), message }]);
        }
        let listed = catch_unwind(AssertUnwindSafe(|| list(validator, &self.originals, arguments)));
        listed.unwrap_or_else(|_| unsupported("the validator failed on these arguments".into()))
    }
}

/// The pattern that was not matched, as it was before it was spelled out.
fn original_of<'o>(
    error: &jsonschema::ValidationError<'_>,
    originals: &'o HashMap<String, String>,
) -> Option<&'o String> {
    match error.kind() {
        ValidationErrorKind::Pattern { pattern } => originals.get(pattern),
        _ => None,
    }
}

/// The violations that a validator finds.
fn list(validator: &Validator, originals: &HashMap<String, String>, arguments: &Value) -> Check {
    let (mut violations, mut bytes) = (Vec::new(), 0);
    for error in validator.iter_errors(arguments) {
        let given_up = matches!(
            error.kind(),
            ValidationErrorKind::BacktrackLimitExceeded { .. } | ValidationErrorKind::RegexEngineFailure { .. }
        );
        if given_up {
            let message = format!("a pattern took more than {BACKTRACK_LIMIT} steps; make it unambiguous");
            return Check::Problem(SchemaProblem::unsupported(message, error.schema_path().as_str()));
        }
        if violations.len() < MAX_VIOLATIONS && bytes < MAX_VIOLATIONS_BYTES {
            let violation = Violation {
                pointer: bounded_pointer(error.instance_path().as_str()),
                schema_pointer: bounded_pointer(error.schema_path().as_str()),
                message: match original_of(&error, originals) {
                    Some(pattern) => bounded(&format_args!("{} does not match \"{pattern}\"", error.instance())),
                    None => bounded(&error),
                },
            };
            bytes += violation.pointer.len() + violation.schema_pointer.len() + violation.message.len();
            violations.push(violation);
        }
    }
    if violations.is_empty() {
        return unsupported("the validator found the arguments invalid and gave no reason".into());
    }
    // In an order that does not hang on the order in which the policy wrote its arguments.
    violations.sort();
    Check::Invalid(violations)
}

/// What evaluating a schema may cost: at once by the size of the arguments, and closer where that is too much.
#[derive(Debug)]
struct Bounds {
    cost: Cost,
    counter: Counter,
}

impl Bounds {
    /// Takes the work of deciding on arguments from what is `left` to their trajectory.
    ///
    /// # Errors
    /// The limit that it may break.
    fn spend(&self, arguments: &Value, size: &Size, left: &mut f64) -> Result<(), String> {
        let nested = self.cost.stack(size.depth);
        if nested > MAX_STACK {
            return Err(format!("{nested} schemas apply inside each other; at most {MAX_STACK} are evaluated"));
        }
        let mut work = self.cost.work(size);
        if work > BUDGET.min(*left) {
            let counted = self.counter.deciding(arguments, *left);
            *left -= counted.counting;
            work = work.min(counted.work);
        }
        if work > BUDGET {
            return Err(format!("checking these arguments may take more than {BUDGET:.0} steps"));
        }
        if work > *left {
            return Err(format!(
                "checking the calls up to this one may take more than {TRAJECTORY_BUDGET:.0} steps; make fewer calls, or a \
                 simpler schema"
            ));
        }
        *left -= work;
        Ok(())
    }

    /// Takes the work of listing every violation from what is `left`, if they may be listed.
    fn may_list(&self, arguments: &Value, size: &Size, left: &mut f64) -> bool {
        // A verdict is asked again wherever alternatives nest.
        let mut work = self.cost.work(size) * f64::from(self.cost.stack(size.depth));
        let mut bytes = self.cost.report_bytes(size);
        if work > LISTED_UNCOUNTED.min(*left) || bytes > REPORT_BUDGET {
            let counted = self.counter.listing(arguments, *left);
            *left -= counted.counting;
            (work, bytes) = (work.min(counted.work), bytes.min(counted.report_bytes));
        }
        let may = work <= BUDGET.min(*left) && bytes <= REPORT_BUDGET;
        if may {
            *left -= work;
        }
        may
    }
}

fn unsupported(message: String) -> Check {
    Check::Problem(SchemaProblem::unsupported(message, ""))
}
