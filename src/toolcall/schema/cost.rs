//! What evaluating a schema may cost, known before it is evaluated. In: the schema's graph, and the size of a value;
//! out: an upper bound of the work and of the stack. Evaluates nothing.
//!
//! The model is ours. Let E(s, k) be the most evaluations that applying schema s to a value can cause at one value
//! exactly k levels below it:
//!
//!   E(s, 0) = own(s) + sum over in-place edges E(t, 0)
//!   E(s, k) = sum over in-place edges E(t, k) + the larger of the two, object or array:
//!             max over named members (elements) E(t, k-1) + sum over the others E(t, k-1)
//!
//! Work is then at most the size of the value times the largest E(root, k) down to its depth. In-place edges have no
//! cycle (`Graph::in_place_order`), so the table exists; it ends at the first row of zeros, or at [`MAX_DEPTH`].

use serde_json::{Map, Value};

use super::{
    graph::{Edge, Graph, Node},
    pattern::{self, PatternCost},
};

/// Deepest nesting of arguments that is checked; the JSON parsers stop there as well.
pub(super) const MAX_DEPTH: usize = 128;

/// How often an in-place subschema can be evaluated again where evaluated members are tracked: once for its verdict,
/// once to mark, and once more inside the mark.
const TRACKING_FACTOR: f64 = 3.0;

/// Evaluations per schema node and value that the validator's memory of `$ref` results leaves.
const MEMORY_FACTOR: f64 = 64.0;

/// Units of one match that runs into the backtracking limit.
const BACKTRACKING_UNITS: f64 = 2048.0;

/// The bounds of one schema.
#[derive(Debug)]
pub(super) struct Cost {
    /// By depth of the value: the largest E(root, k) so far.
    evaluations: Box<[f64]>,
    /// By depth of the value: schemas nested on the stack.
    stack: Box<[u32]>,
    /// Evaluations at one value when results of references are remembered; infinite when they are not.
    remembered: f64,
    /// Whether a pattern may backtrack.
    pub(super) backtracking: bool,
}

impl Cost {
    /// The bounds for `graph`, whose `order` lists the nodes reached in place first.
    ///
    /// # Errors
    ///
    /// The node whose pattern is too expensive, and why.
    pub(super) fn of(graph: &Graph<'_>, order: &[usize]) -> Result<Self, (usize, String)> {
        let mut own = Vec::with_capacity(graph.nodes.len());
        for (position, node) in graph.nodes.iter().enumerate() {
            own.push(Own::of(node).map_err(|message| (position, message))?);
        }
        let tracks = graph.nodes.iter().any(tracks_evaluation);
        let weight = if tracks { TRACKING_FACTOR } else { 1.0 };
        let (evaluations, stack) = table(graph, order, &own, weight);
        let total: f64 = own.iter().map(|own| own.units + own.each_member).sum();
        Ok(Self {
            evaluations,
            stack,
            remembered: if tracks { f64::INFINITY } else { total * MEMORY_FACTOR },
            backtracking: own.iter().any(|own| own.backtracking),
        })
    }

    /// Most units of work that deciding on a value of this size takes.
    pub(super) fn work(&self, size: &Size) -> f64 {
        let evaluations = at_depth(&self.evaluations, size.depth).min(self.remembered);
        let matching = if self.backtracking { size.backtracking } else { 0.0 };
        evaluations * (size.units + matching) + self.distinct(size)
    }

    /// Most bytes that listing every violation in a value of this size copies.
    pub(super) fn listing(&self, size: &Size) -> f64 {
        at_depth(&self.evaluations, size.depth) * size.echo
    }

    /// Schemas that are nested on the stack for a value of this depth.
    pub(super) fn stack(&self, depth: usize) -> u32 {
        let last = self.stack.len().saturating_sub(1);
        self.stack.get(depth.min(last)).copied().unwrap_or(u32::MAX)
    }

    /// Comparing elements for `uniqueItems`, which hashing does not always spare.
    fn distinct(&self, size: &Size) -> f64 {
        at_depth(&self.evaluations, size.depth) * size.comparisons
    }
}

fn at_depth(row: &[f64], depth: usize) -> f64 {
    row.get(depth.min(row.len().saturating_sub(1))).copied().unwrap_or(f64::INFINITY)
}

/// Whether evaluating the node tracks which members and elements others evaluated.
fn tracks_evaluation(node: &Node<'_>) -> bool {
    let keywords = ["unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef"];
    keywords.iter().any(|keyword| node.schema.get(keyword).is_some())
}

/// The work of one node itself.
#[derive(Default)]
struct Own {
    /// Per byte and value that it is applied to.
    units: f64,
    /// Per member of an object that it is applied to: matching the names of `patternProperties`.
    each_member: f64,
    backtracking: bool,
}

impl Own {
    fn of(node: &Node<'_>) -> Result<Self, String> {
        let mut own = Self { units: 1.0, ..Self::default() };
        let Value::Object(keywords) = node.schema else { return Ok(own) };
        own.units += keywords.iter().map(|(keyword, value)| listed(keyword, value)).sum::<f64>();
        if let Some(pattern) = keywords.get("pattern").and_then(Value::as_str) {
            let cost = own.pattern(pattern)?;
            own.units += cost.units();
        }
        if let Some(patterns) = keywords.get("patternProperties").and_then(Value::as_object) {
            for pattern in patterns.keys() {
                let cost = own.pattern(pattern)?;
                own.each_member += cost.units();
            }
        }
        Ok(own)
    }

    fn pattern(&mut self, pattern: &str) -> Result<PatternCost, String> {
        let cost = pattern::cost(pattern)?;
        self.backtracking |= cost.backtracking;
        Ok(cost)
    }
}

/// The work of a keyword that goes through a list of its own.
fn listed(keyword: &str, value: &Value) -> f64 {
    match (keyword, value) {
        // Many strings are hashed.
        ("enum", Value::Array(items)) if items.iter().all(Value::is_string) => 1.0,
        ("enum" | "const" | "not", value) => values_in(value) / 4.0,
        ("required", Value::Array(items)) => items.len() as f64 / 4.0,
        ("properties", Value::Object(members)) => members.len() as f64 / 4.0,
        ("dependentRequired" | "dependencies", value) => values_in(value) / 4.0,
        _ => 0.0,
    }
}

fn values_in(value: &Value) -> f64 {
    1.0 + match value {
        Value::Array(items) => items.iter().map(values_in).sum(),
        Value::Object(members) => members.values().map(values_in).sum(),
        _ => 0.0,
    }
}

/// The rows E(root, k), as running maxima, and the stack by depth.
fn table(graph: &Graph<'_>, order: &[usize], own: &[Own], weight: f64) -> (Box<[f64]>, Box<[u32]>) {
    let nodes = graph.nodes.len();
    let (mut above, mut row) = (vec![0.0; nodes], vec![0.0; nodes]);
    let (mut stack_above, mut stack) = (vec![0_u32; nodes], vec![0_u32; nodes]);
    let (mut evaluations, mut stacks) = (Vec::new(), Vec::new());
    let mut most = 0.0_f64;
    for depth in 0..=MAX_DEPTH {
        for &node in order {
            let edges = &graph.nodes[node].edges;
            let own_units = match depth {
                0 => own[node].units,
                1 => own[node].each_member,
                _ => 0.0,
            };
            row[node] = own_units + edge_units(edges, &row, &above, weight);
            stack[node] = 1 + edge_stack(edges, &stack, &stack_above, depth);
        }
        most = most.max(row.first().copied().unwrap_or(0.0));
        evaluations.push(most);
        stacks.push(stack.first().copied().unwrap_or(0));
        if row.iter().all(|&units| units == 0.0) && stack == stack_above {
            break;
        }
        std::mem::swap(&mut above, &mut row);
        std::mem::swap(&mut stack_above, &mut stack);
    }
    (evaluations.into(), stacks.into())
}

fn edge_units(edges: &[(Edge, usize)], row: &[f64], above: &[f64], weight: f64) -> f64 {
    let (mut in_place, mut member, mut element) = (0.0, 0.0_f64, 0.0_f64);
    let (mut each_member, mut each_element) = (0.0, 0.0);
    for &(edge, target) in edges {
        match edge {
            Edge::Composed | Edge::InPlace => in_place += weight * row[target],
            Edge::Member => member = member.max(above[target]),
            Edge::EachMember => each_member += above[target],
            Edge::Element => element = element.max(above[target]),
            Edge::EachElement => each_element += above[target],
        }
    }
    in_place + f64::max(member + each_member, element + each_element)
}

fn edge_stack(edges: &[(Edge, usize)], row: &[u32], above: &[u32], depth: usize) -> u32 {
    let below = edges.iter().map(|&(edge, target)| match edge {
        edge if edge.in_place() => row[target],
        _ if depth > 0 => above[target],
        _ => 0,
    });
    below.max().unwrap_or(0)
}

/// The size of a value, in the terms of the model.
#[derive(Debug, Default)]
pub(super) struct Size {
    /// Values, and a sixteenth of the bytes in strings and keys.
    units: f64,
    /// Levels below the root.
    pub(super) depth: usize,
    /// Bytes that repeating each value and its pointer once takes.
    echo: f64,
    /// Elements compared pairwise, in units, if `uniqueItems` applies: those of arrays of arrays or objects.
    comparisons: f64,
    /// Units of matching every string once with an engine that backtracks.
    backtracking: f64,
}

impl Size {
    /// Measures `value`; none if it nests deeper than [`MAX_DEPTH`].
    pub(super) fn of(value: &Value) -> Option<Self> {
        let mut size = Self::default();
        size.add(value, 0, 0)?;
        Some(size)
    }

    /// Adds a value whose pointer has `path` bytes; returns its own bytes.
    fn add(&mut self, value: &Value, depth: usize, path: usize) -> Option<f64> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.depth = self.depth.max(depth);
        let before = self.units;
        self.units += 1.0;
        let bytes = match value {
            Value::String(text) => {
                self.text(text);
                16.0 + text.len() as f64
            }
            Value::Array(items) => {
                let bytes =
                    items.iter().try_fold(16.0, |sum, item| Some(sum + self.add(item, depth + 1, path + 4)?))?;
                let compound = items.iter().filter(|item| item.is_array() || item.is_object()).count();
                self.comparisons += compound as f64 * (self.units - before);
                bytes
            }
            Value::Object(members) => self.members(members, depth, path)?,
            _ => 16.0,
        };
        self.echo += bytes + path as f64;
        Some(bytes)
    }

    fn members(&mut self, members: &Map<String, Value>, depth: usize, path: usize) -> Option<f64> {
        let mut bytes = 16.0;
        for (key, member) in members {
            self.text(key);
            bytes += 16.0 + key.len() as f64 + self.add(member, depth + 1, path + key.len() + 1)?;
        }
        Some(bytes)
    }

    fn text(&mut self, text: &str) {
        let length = text.len() as f64;
        self.units += length / 16.0;
        self.backtracking += BACKTRACKING_UNITS + length * length / 64.0;
    }
}
