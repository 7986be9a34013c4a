//! The model of what evaluating a schema costs, and the bound that needs no more of a value than its size. In: the schema's
//! graph, and the size of a value; out: upper bounds of the work, of the report and of the stack. Evaluates nothing.
//!
//! # The model (ours)
//!
//! The unit of work is one subschema's own keywords applied to one value, or to 16 bytes of a text: at most a hundred
//! nanoseconds ([`super::BUDGET`]). Beside the work are counted what violations copy, in bytes, and subschemas nested on the
//! stack. Evaluating never takes more than the bound; where the bound is over a limit, nothing is evaluated.
//!
//! Nodes are subschemas. An edge s -> t says that applying s to a value applies t to the same value (in place), or to its members
//! or elements (descending); see [`super::graph`]. What is counted is how often each node is applied to each value:
//!
//! * Here by depth alone: E(s, k) is the most that applying s to a value can cost at any one value exactly k levels below it.
//!
//!   ```text
//!   E(s, k)         = own(s, k) + f * sum over in-place edges of E(t, k) + the larger of members(s, k) and elements(s, k)
//!   members(s, k)   = max over named and other members of E(t, k-1) + sum over "every member" of E(t, k-1)
//!   elements(s, k)  = max over elements by position of E(t, k-1)    + sum over "every element" of E(t, k-1)
//!   ```
//!
//!   own(s, k) is the cost of the node's own keywords ([`Own`]), at k = 0 for the value, at k = 1 for matching the names of its
//!   members, and nothing deeper. f is 1, or [`TRACKING_FACTOR`] where evaluated members are tracked. The whole is at most the
//!   size of the value times the largest E(root, k) down to its depth. In-place edges have no cycle
//!   ([`super::graph::Graph::in_place_order`]), so that each row k is computed in one pass over that order; a schema that does
//!   not refer to itself reaches a row of zeros.
//! * [`super::count`] counts the same on the value itself, where this bound is too high. That takes a walk through the value.

use super::building::TRACKING;
use super::graph::{Edge, Graph, Node};
use super::rates::{Own, Rates};
use super::size::{MAX_DEPTH, Size};

/// How often an in-place subschema can be evaluated again where evaluated members are tracked: once for its verdict,
/// once to mark, and once more inside the mark.
const TRACKING_FACTOR: f64 = 3.0;

/// The bounds of one schema.
#[derive(Debug)]
pub(super) struct Cost {
    /// By depth of the value: the largest E(root, k) so far. Deeper ones are as the last.
    rates: Box<[Rates]>,
    /// By depth of the value: schemas nested on the stack. Deeper ones are as the last.
    stack: Box<[u32]>,
    /// Bytes of the longest pointer to a subschema.
    location: f64,
    /// Whether a match may be given up.
    pub(super) gives_up: bool,
    /// Whether names are checked: what is wrong with one repeats the object that has it.
    names: bool,
}

impl Cost {
    /// The bounds for `graph`, with its [`Graph::in_place_order`] and what each node does itself.
    pub(super) fn of(graph: &Graph<'_>, order: &[usize], own: &[Own]) -> Self {
        let location = graph.nodes.iter().map(|node| node.location).max().unwrap_or(0) as f64;
        let names = graph.nodes.iter().any(|node| node.schema.get("propertyNames").is_some());
        Self {
            rates: rates_by_depth(graph, order, own),
            stack: stack_by_depth(graph, order),
            location,
            gives_up: own.iter().any(|own| own.gives_up),
            names,
        }
    }

    /// Most units of work that deciding on a value of this size takes.
    pub(super) fn work(&self, size: &Size) -> f64 {
        let rates = self.rates(size.depth);
        rates.work * size.units
            + rates.backtracking * size.backtracking
            + rates.squares * size.squares
            + rates.comparing * size.comparing
    }

    /// Most bytes that listing every violation in a value of this size copies; infinite where that has to be counted.
    pub(super) fn report_bytes(&self, size: &Size) -> f64 {
        if self.names {
            return f64::INFINITY;
        }
        let rates = self.rates(size.depth);
        // With each, the way through references to where it stands.
        let way = self.location * f64::from(self.stack(size.depth));
        rates.reports * (size.report_bytes + way * size.units) + rates.texts * size.units
    }

    /// Schemas that are nested on the stack for a value of this depth.
    pub(super) fn stack(&self, depth: usize) -> u32 {
        let last = self.stack.len().saturating_sub(1);
        self.stack.get(depth.min(last)).copied().unwrap_or(u32::MAX)
    }

    fn rates(&self, depth: usize) -> Rates {
        let last = self.rates.len().saturating_sub(1);
        self.rates.get(depth.min(last)).copied().unwrap_or_default()
    }
}

/// Whether evaluating the node tracks which members and elements others evaluated.
fn tracks_evaluation(node: &Node<'_>) -> bool {
    let keywords = TRACKING.iter().chain(&["$dynamicRef", "$recursiveRef"]);
    keywords.into_iter().any(|keyword| node.schema.get(keyword).is_some())
}

/// The largest E(root, k) so far, for each k until nothing is applied so deep.
fn rates_by_depth(graph: &Graph<'_>, order: &[usize], own: &[Own]) -> Box<[Rates]> {
    let repeats = if graph.nodes.iter().any(tracks_evaluation) { TRACKING_FACTOR } else { 1.0 };
    let nothing = vec![Rates::default(); graph.nodes.len()];
    let (mut above, mut largest, mut by_depth) = (nothing.clone(), Rates::default(), Vec::new());
    for depth in 0..=MAX_DEPTH {
        let mut row = nothing.clone();
        for &node in order {
            let own = match depth {
                0 => own[node].value,
                1 => own[node].member,
                _ => Rates::default(),
            };
            row[node] = own + applied(&graph.nodes[node].edges, &row, &above, repeats);
        }
        largest = largest.max(row.first().copied().unwrap_or_default());
        by_depth.push(largest);
        if row == nothing {
            break;
        }
        above = row;
    }
    by_depth.into()
}

/// What the nodes behind `edges` cost: at the same value by the `row` so far, at its members and elements by the row `above`.
fn applied(edges: &[(Edge, usize)], row: &[Rates], above: &[Rates], repeats: f64) -> Rates {
    let nothing = Rates::default();
    let (mut in_place, mut one_member, mut every_member) = (nothing, nothing, nothing);
    let (mut one_element, mut every_element) = (nothing, nothing);
    for &(edge, target) in edges {
        match edge {
            Edge::Composed | Edge::Reference { .. } | Edge::InPlace => in_place = in_place + row[target] * repeats,
            Edge::Member | Edge::OtherMember => one_member = one_member.max(above[target]),
            Edge::EachMember => every_member = every_member + above[target],
            Edge::Element => one_element = one_element.max(above[target]),
            Edge::EachElement => every_element = every_element + above[target],
        }
    }
    in_place + (one_member + every_member).max(one_element + every_element)
}

/// Schemas on the longest path from the root with k descending edges at most, for each k until it grows no longer.
fn stack_by_depth(graph: &Graph<'_>, order: &[usize]) -> Box<[u32]> {
    let (mut above, mut by_depth) = (vec![0_u32; graph.nodes.len()], Vec::new());
    for _ in 0..=MAX_DEPTH {
        let mut row = vec![0_u32; graph.nodes.len()];
        for &node in order {
            let edges = graph.nodes[node].edges.iter();
            let nested = edges.map(|&(edge, target)| if edge.in_place() { row[target] } else { above[target] });
            row[node] = 1 + nested.max().unwrap_or(0);
        }
        by_depth.push(row.first().copied().unwrap_or(0));
        if row == above {
            break;
        }
        above = row;
    }
    by_depth.into()
}
