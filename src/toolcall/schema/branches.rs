//! What the validator works out beforehand from lists of branches, in units of [`super::building`]. In: the schema's graph and a
//! node; out: the work. Works nothing out.
//!
//! For `anyOf` and `oneOf` it looks for a property whose value tells the branches apart, and for `allOf` it merges the
//! properties of the branches. Either way it goes through `$ref` and `allOf`, without a memory: what is reached in several ways
//! is gone through as often.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::graph::{Edge, Graph};

/// Branches from which on the validator looks for what tells them apart.
const TOLD_APART: usize = 3;

/// How deep the validator goes through references and `allOf` for that.
const MAX_DEPTH: usize = 16;

/// What is done in a unit of work: subschemas gone through; names put into a set; names looked up in a branch; names compared;
/// branches compared with a value.
const VISITS: usize = 8;
const NAMES: usize = 256;
const LOOKUPS: usize = 200;
const COMPARED: usize = 4000;
const VALUES: usize = 10_000;

/// The work at `node`; what is more than `most` is only known to be so.
pub(super) fn work(graph: &Graph<'_>, node: usize, most: usize) -> usize {
    let Value::Object(keywords) = graph.nodes[node].schema else { return 0 };
    let branches =
        |keyword: &str| keywords.get(keyword).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let told_apart = ["anyOf", "oneOf"].map(branches).into_iter().filter(|branches| branches.len() >= TOLD_APART);
    let merged = Some(branches("allOf")).filter(|branches| branches.len() > 1);
    let told_apart =
        told_apart.map(|branches| Found::of(graph, branches, MAX_DEPTH, most).telling_apart(branches.len()));
    // Merging goes as deep as references do.
    let merged = merged.map(|branches| Found::of(graph, branches, usize::MAX, most).merging());
    told_apart.chain(merged).fold(0, usize::saturating_add)
}

/// What is found in the branches of a list, each as often as it is gone through.
#[derive(Default)]
struct Found<'a> {
    visits: usize,
    /// Objects with properties.
    objects: usize,
    /// How often each name is that of a property, and required.
    properties: HashMap<&'a str, usize>,
    required: HashMap<&'a str, usize>,
    /// All of these.
    names: usize,
    /// Values that properties may have, and properties that exclude some.
    values: usize,
    excluding: usize,
}

impl<'a> Found<'a> {
    fn of(graph: &Graph<'a>, branches: &[Value], depth: usize, most: usize) -> Self {
        let mut found = Self::default();
        let mut open: Vec<_> =
            branches.iter().filter_map(|branch| graph.node_of(branch)).map(|branch| (branch, depth)).collect();
        let mut times = HashMap::<usize, usize>::new();
        while let Some((node, depth)) = open.pop() {
            found.visits += 1;
            if found.visits / VISITS > most {
                return found;
            }
            *times.entry(node).or_default() += 1;
            let (Value::Object(keywords), Some(depth)) = (graph.nodes[node].schema, depth.checked_sub(1)) else {
                continue;
            };
            let referred = graph.nodes[node].edges.iter().filter(|(edge, _)| matches!(edge, Edge::Reference { .. }));
            open.extend(referred.map(|&(_, to)| (to, depth)));
            let all = keywords.get("allOf").and_then(Value::as_array).into_iter().flatten();
            open.extend(all.filter_map(|branch| graph.node_of(branch)).map(|branch| (branch, depth)));
        }
        for (node, times) in times {
            if let Value::Object(keywords) = graph.nodes[node].schema {
                found.count(keywords, times);
            }
        }
        found
    }

    fn count(&mut self, keywords: &'a Map<String, Value>, times: usize) {
        let required = keywords.get("required").and_then(Value::as_array).into_iter().flatten();
        for name in required.filter_map(Value::as_str) {
            self.names += times;
            *self.required.entry(name).or_default() += times;
        }
        let Some(Value::Object(properties)) = keywords.get("properties") else { return };
        self.objects += times;
        for (name, property) in properties {
            self.names += times;
            *self.properties.entry(name).or_default() += times;
            self.values += times * property.get("enum").and_then(Value::as_array).map_or(1, Vec::len);
            // What is excluded may stand elsewhere.
            let excludes = property.get("not").is_some() || property.get("$ref").is_some();
            self.excluding += times * usize::from(excludes);
        }
    }

    fn telling_apart(&self, branches: usize) -> usize {
        // Only a name that several branches have tells them apart.
        let several = |names: &HashMap<&str, usize>| names.values().filter(|count| **count > 1).count();
        let names = several(&self.properties) + several(&self.required);
        let looked_up = names.saturating_mul(self.objects + branches) / LOOKUPS;
        let excluded = self.values.saturating_mul(branches).saturating_mul(self.excluding.min(branches)) / VALUES;
        (self.visits / VISITS + self.names / NAMES).saturating_add(looked_up).saturating_add(excluded)
    }

    fn merging(&self) -> usize {
        let names = self.properties.len() + self.required.len();
        self.visits / VISITS + self.names / NAMES + names.saturating_mul(names) / COMPARED
    }
}
