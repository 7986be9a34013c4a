//! Which JSON types a schema declares for the members of its object (rule X2). In: the schema's graph; out: a table
//! from parameter names to sets of types. Knows no arguments.
//!
//! Types come from `type`, `enum` and `const`, through `allOf`, `anyOf`, `oneOf` and local references, both for the
//! schema of the object and for that of the parameter. `additionalProperties` declares nothing (rule X3).

use std::collections::HashMap;
use std::ops::BitOr as _;

use jsonschema::Validator;
use serde_json::{Map, Value};

use super::graph::Graph;
use super::limits::MAX_SCHEMA_BYTES;
use super::pattern::{self, Engine};
use crate::toolcall::offered::Declared;

/// Name patterns that are kept of one schema; further ones declare nothing.
pub(super) const MAX_NAME_PATTERNS: usize = 16;

/// Longest name that is matched, in bytes.
const MAX_MATCHED_NAME: usize = 256;

/// States of a name pattern that is kept: it is matched with every parameter that a policy writes.
const MAX_NAME_STATES: u64 = 1024;

/// The declared types of each parameter.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    named: HashMap<Box<str>, Declared>,
    patterns: Vec<(Validator, Declared)>,
}

impl Parameters {
    /// The types of `parameter`; empty if the schema does not declare it.
    pub(super) fn declared(&self, parameter: &str) -> Declared {
        let named = self.named.get(parameter).copied().unwrap_or_default();
        if self.patterns.is_empty() || parameter.len() > MAX_MATCHED_NAME {
            return named;
        }
        let name = Value::String(parameter.to_owned());
        let matching = self.patterns.iter().filter(|(pattern, _)| pattern.is_valid(&name));
        matching.fold(named, |union, &(_, types)| union | types)
    }

    /// What stands in the `properties` of a schema's text, as far as it can be read.
    pub(super) fn written(text: &str) -> Self {
        let schema = if text.len() <= MAX_SCHEMA_BYTES { serde_json::from_str(text).ok() } else { None };
        let Some(Value::Object(keywords)) = schema else { return Self::default() };
        let named = members(&keywords, "properties").map(|(name, schema)| (name.as_str().into(), own_types(schema)));
        Self { named: named.collect(), patterns: Vec::new() }
    }

    /// Reads the table off `graph`, whose `order` lists the nodes reached in place first; `compile` makes a validator
    /// of a schema with nothing but a `pattern`.
    pub(super) fn of(graph: &Graph<'_>, order: &[usize], compile: impl Fn(&Value) -> Option<Validator>) -> Self {
        let types = types_of_nodes(graph, order);
        let declared = |schema: &Value| graph.node_of(schema).map_or(Declared::EMPTY, |node| types[node]);
        let mut parameters = Self::default();
        for object in composed_from_root(graph) {
            let Value::Object(keywords) = graph.nodes[object].schema else { continue };
            for (name, schema) in members(keywords, "properties") {
                *parameters.named.entry(name.as_str().into()).or_default() |= declared(schema);
            }
            for (pattern, schema) in members(keywords, "patternProperties") {
                if parameters.patterns.len() < MAX_NAME_PATTERNS && is_cheap(pattern) {
                    let validator = compile(&serde_json::json!({ "pattern": pattern }));
                    parameters.patterns.extend(validator.map(|validator| (validator, declared(schema))));
                }
            }
        }
        parameters
    }
}

/// Whether matching a pattern takes little time whatever the name is.
fn is_cheap(pattern: &str) -> bool {
    pattern::cost(pattern).is_ok_and(|cost| cost.engine == Engine::Linear && cost.states <= MAX_NAME_STATES)
}

fn members<'a>(keywords: &'a Map<String, Value>, keyword: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    keywords.get(keyword).and_then(Value::as_object).into_iter().flatten()
}

/// The nodes that describe the same value as the root.
fn composed_from_root(graph: &Graph<'_>) -> Vec<usize> {
    let mut seen = vec![false; graph.nodes.len()];
    let mut found = Vec::new();
    let mut pending = vec![0];
    while let Some(node) = pending.pop() {
        if !std::mem::replace(&mut seen[node], true) {
            found.push(node);
            let composed = graph.nodes[node].edges.iter().filter(|(edge, _)| edge.is_composed());
            pending.extend(composed.map(|&(_, target)| target));
        }
    }
    found
}

fn types_of_nodes(graph: &Graph<'_>, order: &[usize]) -> Vec<Declared> {
    let mut types = vec![Declared::EMPTY; graph.nodes.len()];
    for &node in order {
        let composed = graph.nodes[node].edges.iter().filter(|(edge, _)| edge.is_composed());
        types[node] = composed.fold(own_types(graph.nodes[node].schema), |union, &(_, target)| union | types[target]);
    }
    types
}

fn own_types(schema: &Value) -> Declared {
    let mut types = match schema.get("type") {
        Some(Value::String(name)) => type_named(name),
        Some(Value::Array(names)) => union(names.iter().filter_map(Value::as_str).map(type_named)),
        _ => Declared::EMPTY,
    };
    if let Some(Value::Array(values)) = schema.get("enum") {
        types |= union(values.iter().map(type_of));
    }
    types | schema.get("const").map_or(Declared::EMPTY, type_of)
}

fn union(types: impl Iterator<Item = Declared>) -> Declared {
    types.fold(Declared::EMPTY, Declared::bitor)
}

fn type_named(name: &str) -> Declared {
    match name {
        "null" => Declared::NULL,
        "boolean" => Declared::BOOLEAN,
        "integer" => Declared::INTEGER,
        "number" => Declared::NUMBER,
        "object" => Declared::OBJECT,
        "array" => Declared::ARRAY,
        "string" => Declared::STRING,
        _ => Declared::EMPTY,
    }
}

fn type_of(value: &Value) -> Declared {
    match value {
        Value::Null => Declared::NULL,
        Value::Bool(_) => Declared::BOOLEAN,
        Value::Number(number) if number.is_f64() => Declared::NUMBER,
        Value::Number(_) => Declared::INTEGER,
        Value::String(_) => Declared::STRING,
        Value::Array(_) => Declared::ARRAY,
        Value::Object(_) => Declared::OBJECT,
    }
}
