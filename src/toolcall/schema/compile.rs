//! From the text of a schema to what checks arguments. In: text that may be hostile; out: a validator with the bounds of its
//! work, or why there is none. A schema that nests deeply is compiled, and dropped, on a stack with room for it.

use std::{
    collections::HashMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

use jsonschema::{Draft, PatternOptions, Validator, error::ValidationErrorKind};
use serde_json::Value;

use super::{
    BACKTRACK_LIMIT, Bounds, Compiled, Formats, SchemaProblem, TRAJECTORY_BUDGET, building,
    building::Depth,
    cost::Cost,
    count::Counter,
    declared::{MAX_NAME_PATTERNS, Parameters},
    ecma::{self, Spelled},
    limits::{self, Contents},
    locate, pattern,
    rates::Own,
    resolve::{self, NoFetch},
    size::{self, Size},
};

/// Bytes of one compiled pattern.
const PATTERN_BYTES: usize = 4 << 20;

/// Bytes of the transitions that matching the patterns of a schema caches, and the least that one needs to be worth it.
const TRANSITION_BYTES: std::ops::RangeInclusive<usize> = (128 << 10)..=(1 << 20);

/// A pattern with fewer states compiles within [`PATTERN_BYTES`], so if it fails it is wrong and not large.
const SURELY_FITS_STATES: u64 = 4096;

/// Compiles the text of a schema, whatever it holds.
pub(super) fn compile(text: &str, formats: Formats) -> Result<Compiled, SchemaProblem> {
    if text.len() > limits::MAX_SCHEMA_BYTES {
        let limit = limits::MAX_SCHEMA_BYTES;
        let message = format!("the schema has {} bytes; at most {limit} are compiled", text.len());
        return Err(SchemaProblem::unsupported(message, ""));
    }
    let mut schema: Value = serde_json::from_str(text).map_err(|error| {
        let said = error.to_string();
        if said.starts_with("recursion limit exceeded") {
            return SchemaProblem::unsupported(
                format!("the schema nests deeper than {} levels", size::MAX_DEPTH - 1),
                "",
            );
        }
        SchemaProblem::invalid(format!("the schema is not usable JSON: {said}"), "")
    })?;
    if !schema.is_object() && !schema.is_boolean() {
        return Err(SchemaProblem::invalid("a schema is an object, true or false", ""));
    }
    if text.contains("null") {
        drop_nulls(&mut schema);
    }
    let contents = Contents::of(&schema);
    contents.check()?;
    // The validator is a dependency that meets hostile input: a panic in it is this schema's problem alone.
    let compiled = catch_unwind(AssertUnwindSafe(|| compile_value(&schema, (text.len(), contents.patterns), formats)));
    compiled.unwrap_or_else(|_| Err(SchemaProblem::unsupported("the schema cannot be compiled", "")))
}

/// Keywords that hold values, not schemas.
const OF_VALUES: [&str; 5] = ["const", "default", "enum", "example", "examples"];

/// Keywords that hold schemas by name.
const OF_NAMES: [&str; 6] =
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"];

/// Takes out what is null: tables of tools (Arrow, Parquet, data sets) have every member of every tool in each, `null` where a
/// tool has none. No keyword may be null but `const` and `default`.
fn drop_nulls(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.retain(|key, value| !value.is_null() || matches!(key.as_str(), "const" | "default"));
            for (key, value) in members.iter_mut().filter(|(key, _)| !OF_VALUES.contains(&key.as_str())) {
                match value {
                    Value::Object(named) if OF_NAMES.contains(&key.as_str()) => {
                        named.retain(|_, schema| !schema.is_null());
                        named.values_mut().for_each(drop_nulls);
                    }
                    value => drop_nulls(value),
                }
            }
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn compile_value(
    schema: &Value,
    (text_bytes, patterns): (usize, usize),
    formats: Formats,
) -> Result<Compiled, SchemaProblem> {
    let draft = draft_of(schema)?;
    let graph = resolve::build(schema, draft)?;
    let unsupported_at = |node: usize, message: &dyn fmt::Display| {
        SchemaProblem::unsupported(message, locate::pointer_to(schema, graph.nodes[node].schema))
    };
    let order = graph.in_place_order().map_err(|node| {
        unsupported_at(
            node,
            &"a reference leads back to this schema without descending into the value; evaluation cannot end",
        )
    })?;
    let depth = building::check(&graph, text_bytes).map_err(|(node, message)| unsupported_at(node, &message))?;
    let own = Own::of_all(&graph).map_err(|(node, message)| unsupported_at(node, &message))?;
    let bounds = Bounds { cost: Cost::of(&graph, &order, &own), counter: Counter::new(&graph, &order, &own) };
    // What is too much for the least arguments is a fault of the schema, not of any arguments.
    let least = Value::Object(serde_json::Map::new());
    let affordable = Size::of(&least).map_or(Ok(()), |size| bounds.spend(&least, &size, &mut { TRAJECTORY_BUDGET }));
    affordable.map_err(|message| SchemaProblem::unsupported(message, ""))?;
    let Spelled { schema: spelled, originals } = ecma::spell(schema, &graph);
    let made = || validator(&spelled, patterns, formats).map_err(|error| unusable(&error, &originals));
    let validator = with_stack(depth, made)?;
    let parameters = Parameters::of(&graph, &order, validator_of_pattern);
    Ok(Compiled { validator: Some(validator), originals, depth, bounds, parameters })
}

/// Subschemas nested between two references that any thread's stack has room for: the compiler goes through nine such stretches
/// at once.
const NESTED_ANYWHERE: usize = 10;

/// Subschemas owned by each other that any thread's stack has room for when they are dropped.
const OWNED_ANYWHERE: usize = 1000;

/// Room for nine times the deepest nesting that is compiled, and for dropping it.
const COMPILING_STACK: usize = 64 << 20;

impl Depth {
    /// Whether any thread can compile and drop it.
    fn is_small(self) -> bool {
        self.nested <= NESTED_ANYWHERE && self.owned <= OWNED_ANYWHERE
    }
}

/// A thread with room for any schema.
fn roomy() -> std::thread::Builder {
    std::thread::Builder::new().name("schema".to_owned()).stack_size(COMPILING_STACK)
}

impl Drop for Compiled {
    fn drop(&mut self) {
        if self.depth.is_small() {
            return;
        }
        // Held here, too, until the thread has it: without a thread it stays, rather than being dropped too deep.
        let held = Arc::new(Mutex::new(self.validator.take()));
        let dropped = Arc::clone(&held);
        let take = move || drop(dropped.lock().map(|mut validator| validator.take()));
        match roomy().spawn(take) {
            Ok(thread) => _ = thread.join(),
            Err(_) => std::mem::forget(held),
        }
    }
}

/// Compiles here, or on a thread with a stack that is large enough.
fn with_stack<T: Send>(
    depth: Depth,
    work: impl FnOnce() -> Result<T, SchemaProblem> + Send,
) -> Result<T, SchemaProblem> {
    if depth.is_small() {
        return work();
    }
    let done = std::thread::scope(|scope| roomy().spawn_scoped(scope, work).ok().and_then(|thread| thread.join().ok()));
    done.unwrap_or_else(|| Err(SchemaProblem::unsupported("the schema cannot be compiled", "")))
}

/// The draft that `$schema` names. An unknown one is a dialect whose rules would have to be fetched.
fn draft_of(schema: &Value) -> Result<Draft, SchemaProblem> {
    let draft = Draft::default().detect(schema);
    if draft == Draft::Unknown {
        let message = "$schema names no known draft; use 4, 6, 7, 2019-09 or 2020-12, or leave it out";
        return Err(SchemaProblem::invalid(message, "/$schema"));
    }
    Ok(draft)
}

fn validator(
    schema: &Value,
    patterns: usize,
    formats: Formats,
) -> Result<Validator, jsonschema::ValidationError<'static>> {
    let transitions = (TRANSITION_BYTES.end() / patterns.max(1)).max(*TRANSITION_BYTES.start());
    let options = PatternOptions::fancy_regex().backtrack_limit(BACKTRACK_LIMIT).size_limit(PATTERN_BYTES);
    jsonschema::options()
        .with_retriever(NoFetch)
        .should_validate_formats(formats == Formats::Assert)
        .should_ignore_unknown_formats(true)
        .with_pattern_options(options.dfa_size_limit(transitions))
        .build(schema)
}

fn validator_of_pattern(schema: &Value) -> Option<Validator> {
    validator(schema, MAX_NAME_PATTERNS, Formats::Annotate).ok()
}

/// What is wrong with a schema that does not compile.
fn unusable(error: &jsonschema::ValidationError<'static>, originals: &HashMap<String, String>) -> SchemaProblem {
    // A pattern fails where it stands in the schema; everything else is a violation of the draft's own schema.
    if !matches!(error.kind(), ValidationErrorKind::Format { format } if format == "regex") {
        return SchemaProblem::invalid(error, error.instance_path().as_str());
    }
    let place = error.schema_path().as_str();
    let cost = error.instance().as_str().map(pattern::cost);
    if cost.is_some_and(|cost| cost.is_ok_and(|cost| cost.states > SURELY_FITS_STATES)) {
        return SchemaProblem::unsupported("a pattern does not compile within 4 MiB; simplify it", place);
    }
    match error.instance().as_str().and_then(|pattern| originals.get(pattern)) {
        Some(pattern) => SchemaProblem::invalid(format_args!("\"{pattern}\" is not a \"regex\""), place),
        None => SchemaProblem::invalid(error, place),
    }
}
