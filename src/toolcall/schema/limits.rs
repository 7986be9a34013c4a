//! What a schema's text may hold before anything is built from it. In: a parsed schema; out: its weight in a cache, or
//! the limit that it breaks. Knows no keyword's meaning beyond names, identifiers and patterns.

use serde_json::{Map, Value};

use super::SchemaProblem;
use super::pattern::{self, Engine};

/// Longest schema text, in bytes.
pub(super) const MAX_SCHEMA_BYTES: usize = 1 << 20;

/// Bytes of all JSON Pointers into a schema together: a validator keeps one for every keyword.
const MAX_ALL_POINTERS_BYTES: usize = 16 << 20;

/// Longest JSON Pointer into a schema, in bytes: every violation has some.
const MAX_LOCATION_BYTES: usize = 4096;

/// Longest `$id`, in bytes: every reference below it is resolved against it.
const MAX_ID_BYTES: usize = 2048;

/// Schemas with an `$id` inside one document.
const MAX_RESOURCES: usize = 64;

/// Objects that are named like schemas, as data may be: each is given a base.
const MAX_IDS: usize = 4096;

/// Schemas with an `$id` times objects that may be named: each of the former indexes those in it.
const MAX_INDEXED: usize = 40_000;

/// States of all patterns in one schema.
const MAX_ALL_STATES: u64 = 200_000;

/// What compiling any pattern takes, in states.
const PATTERN_STATES: u64 = 24;

/// How many times the states of a pattern are kept that backtracks.
const BACKTRACKING_FACTOR: u64 = 4;

/// What compiling each lookaround takes beside its states: an engine of its own.
const LOOKAROUND_STATES: u64 = 128;

/// Square of the lengths of all patterns in one schema: translating one takes quadratic time.
const MAX_PATTERN_SQUARES: usize = 64 << 20;

/// What one schema holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pointer_bytes: usize,
    longest_location: usize,
    longest_id: usize,
    resources: usize,
    /// Objects that may be named, as schemas or as data.
    ids: usize,
    pub(super) patterns: usize,
    states: u64,
    pattern_squares: usize,
}

impl Contents {
    /// Counts what `schema` holds; as deep as its text, which the parser bounds.
    pub(super) fn of(schema: &Value) -> Self {
        let mut contents = Self::default();
        contents.add(schema, 0, false);
        contents
    }

    /// States of all patterns that are compiled.
    pub(super) fn pattern_states(&self) -> u64 {
        self.states.min(MAX_ALL_STATES)
    }

    /// Checks the limits.
    ///
    /// # Errors
    ///
    /// The limit that the schema breaks, as unsupported.
    pub(super) fn check(&self) -> Result<(), SchemaProblem> {
        let limits = [
            (self.pointer_bytes > MAX_ALL_POINTERS_BYTES, "names that are too long for their nesting; shorten them"),
            (
                self.longest_location > MAX_LOCATION_BYTES,
                "names of more than 4096 bytes on the way to a value; shorten them",
            ),
            (self.longest_id > MAX_ID_BYTES, "an $id of more than 2048 bytes; shorten it"),
            (self.resources > MAX_RESOURCES, "more than 64 schemas with an $id of their own; use $defs without $id"),
            (
                self.resources * self.ids > MAX_INDEXED,
                "too many schemas with an $id around objects with an id; use $defs without $id",
            ),
            (self.ids > MAX_IDS, "more than 4096 objects with an id; leave data out of it"),
            (self.states > MAX_ALL_STATES, "patterns that expand to more than 200000 states; simplify them"),
            (self.pattern_squares > MAX_PATTERN_SQUARES, "too many long patterns; shorten them"),
        ];
        let broken = limits.into_iter().find(|(broken, _)| *broken);
        broken.map_or(Ok(()), |(_, limit)| {
            Err(SchemaProblem::unsupported(format!("the schema has {limit}"), String::new()))
        })
    }

    fn add(&mut self, value: &Value, path: usize, data: bool) {
        self.pointer_bytes = self.pointer_bytes.saturating_add(path);
        self.longest_location = self.longest_location.max(path);
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.add(item, path + 4, data)),
            Value::Object(members) => {
                self.keywords(members, data);
                for (key, member) in members {
                    // Lists of values, whatever their objects look like; only a reference could make schemas of them.
                    let data = data || (matches!(key.as_str(), "enum" | "examples") && member.is_array());
                    self.add(member, path + key.len() + 1, data);
                }
            }
            _ => {}
        }
    }

    fn keywords(&mut self, members: &Map<String, Value>, data: bool) {
        let mut ids = ["$id", "id", "$schema"].iter().filter_map(|keyword| members.get(*keyword)?.as_str()).peekable();
        self.resources += usize::from(ids.peek().is_some() && !data);
        let indexed = ["$id", "id", "$anchor", "$dynamicAnchor"];
        self.ids += usize::from(indexed.iter().any(|keyword| members.contains_key(*keyword)));
        self.longest_id = ids.map(str::len).fold(self.longest_id, usize::max);
        if let Some(Value::String(text)) = members.get("pattern") {
            self.pattern(text);
        }
        if let Some(Value::Object(patterns)) = members.get("patternProperties") {
            patterns.keys().for_each(|text| self.pattern(text));
        }
    }

    /// A pattern that cannot be read counts nothing here: it is refused before it is compiled.
    fn pattern(&mut self, text: &str) {
        self.patterns += 1;
        self.pattern_squares = self.pattern_squares.saturating_add(text.len().saturating_mul(text.len()));
        if let Ok(cost) = pattern::cost(text) {
            let states = if cost.counted { 64 } else { cost.states + PATTERN_STATES };
            // Engines of parts are built several times, and what backtracks keeps more.
            let states = if cost.engine == Engine::Linear { states } else { BACKTRACKING_FACTOR * states };
            self.states = self.states.saturating_add(states + LOOKAROUND_STATES * cost.lookarounds);
        }
    }
}
