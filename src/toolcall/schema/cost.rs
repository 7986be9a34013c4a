//! What evaluating a schema may cost, known before it is evaluated. In: the schema's graph, and the size of a value;
//! out: upper bounds of the work, of the report and of the stack. Evaluates nothing.
//!
//! The model is ours. Let E(s, k) be the most evaluations that applying schema s to a value can cause at one value
//! exactly k levels below it:
//!
//!   E(s, 0) = own(s) + sum over in-place edges E(t, 0)
//!   E(s, k) = sum over in-place edges E(t, k) + the larger of the two, object or array:
//!             max over named members (elements) E(t, k-1) + sum over the others E(t, k-1)
//!
//! The whole is then at most the size of the value times the largest E(root, k) down to its depth. In-place edges
//! have no cycle (`Graph::in_place_order`), so the table exists; it ends at the first row of zeros, or at
//! [`MAX_DEPTH`]. Four rates are counted alike ([`Rates`]): they differ in own(s), and in the size that they multiply.

use std::ops::{Add, Mul};

use serde_json::Value;

use super::{
    building::TRACKING,
    graph::{Edge, Graph, Node},
    pattern::{self, Engine, Scanning},
    size::{self, MAX_DEPTH, Size, values_in},
};

/// How often an in-place subschema can be evaluated again where evaluated members are tracked: once for its verdict,
/// once to mark, and once more inside the mark.
const TRACKING_FACTOR: f64 = 3.0;

/// What is beyond all bounds: as a number, so that none of it is still nothing.
pub(super) const ENDLESS: f64 = 1e200;

/// The bounds of one schema.
#[derive(Debug)]
pub(super) struct Cost {
    /// By depth of the value: the largest E(root, k) so far.
    rates: Box<[Rates]>,
    /// By depth of the value: schemas nested on the stack.
    stack: Box<[u32]>,
    /// Bytes of the longest pointer to a subschema.
    location: f64,
    /// Whether a match may be given up.
    pub(super) gives_up: bool,
    /// Whether names are checked: what is wrong with one repeats the object that has it.
    names: bool,
}

/// Evaluations at one value.
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

impl Cost {
    /// The bounds for `graph`, whose `order` lists the nodes reached in place first, with what each does itself.
    pub(super) fn of(graph: &Graph<'_>, order: &[usize], own: &[Own]) -> Self {
        let tracks = graph.nodes.iter().any(tracks_evaluation);
        let (rates, stack) = table(graph, order, own, if tracks { TRACKING_FACTOR } else { 1.0 });
        let location = graph.nodes.iter().map(|node| node.location).max().unwrap_or(0) as f64;
        let names = graph.nodes.iter().any(|node| node.schema.get("propertyNames").is_some());
        Self { rates, stack, location, gives_up: own.iter().any(|own| own.gives_up), names }
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

/// What one node does itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Own {
    /// At each value that it is applied to.
    pub(super) value: Rates,
    /// At each member of an object that it is applied to: matching the names of `patternProperties`.
    pub(super) member: Rates,
    gives_up: bool,
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
        let Value::Object(keywords) = node.schema else { return Ok(own) };
        for (keyword, value) in keywords {
            own.value.work += listed(keyword, value);
            match (keyword.as_str(), value) {
                // Each name that is missing is a violation of its own, which takes as long as some.
                ("required", Value::Array(names)) => own.reports(4.0 * names.len() as f64, value),
                ("dependentRequired" | "dependencies" | "const" | "enum", value) => own.reports(0.0, value),
                // A violation repeats the schema that should not have matched.
                ("not", value) => own.reports(values_in(value) as f64, value),
                // With large exponents it divides exactly.
                ("multipleOf", _) => own.value.work += 25.0,
                // The text is read as what it says it is.
                ("contentMediaType" | "contentEncoding", _) => own.value.work += 4.0,
                ("uniqueItems", Value::Bool(true)) => own.value.comparing += 1.0,
                ("pattern", Value::String(pattern)) => {
                    own.reports(0.0, value);
                    own.value = own.value + own.matching(pattern)?;
                }
                ("patternProperties", Value::Object(patterns)) => {
                    for pattern in patterns.keys() {
                        own.member = own.member + own.matching(pattern)?;
                    }
                }
                _ => {}
            }
        }
        Ok(own)
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

/// The rows E(root, k), as running maxima, and the stack by depth.
fn table(graph: &Graph<'_>, order: &[usize], own: &[Own], tracking: f64) -> (Box<[Rates]>, Box<[u32]>) {
    let nodes = graph.nodes.len();
    let (mut above, mut row) = (vec![Rates::default(); nodes], vec![Rates::default(); nodes]);
    let (mut stack_above, mut stack) = (vec![0_u32; nodes], vec![0_u32; nodes]);
    let (mut rates, mut stacks) = (Vec::new(), Vec::new());
    let mut most = Rates::default();
    for depth in 0..=MAX_DEPTH {
        for &node in order {
            let edges = &graph.nodes[node].edges;
            let own = match depth {
                0 => own[node].value,
                1 => own[node].member,
                _ => Rates::default(),
            };
            row[node] = own + edge_rates(edges, &row, &above, tracking);
            stack[node] = 1 + edge_stack(edges, &stack, &stack_above);
        }
        most = most.max(row.first().copied().unwrap_or_default());
        rates.push(most);
        stacks.push(stack.first().copied().unwrap_or(0));
        if row.iter().all(|rates| *rates == Rates::default()) && stack == stack_above {
            break;
        }
        std::mem::swap(&mut above, &mut row);
        std::mem::swap(&mut stack_above, &mut stack);
    }
    (rates.into(), stacks.into())
}

fn edge_rates(edges: &[(Edge, usize)], row: &[Rates], above: &[Rates], tracking: f64) -> Rates {
    let zero = Rates::default();
    let (mut in_place, mut member, mut element, mut each_member, mut each_element) = (zero, zero, zero, zero, zero);
    for &(edge, target) in edges {
        match edge {
            Edge::Composed | Edge::Reference { .. } | Edge::InPlace => in_place = in_place + row[target] * tracking,
            Edge::Member | Edge::OtherMember => member = member.max(above[target]),
            Edge::EachMember => each_member = each_member + above[target],
            Edge::Element => element = element.max(above[target]),
            Edge::EachElement => each_element = each_element + above[target],
        }
    }
    in_place + (member + each_member).max(element + each_element)
}

/// The row above is empty at the first depth, where nothing descends.
fn edge_stack(edges: &[(Edge, usize)], row: &[u32], above: &[u32]) -> u32 {
    let nested = edges.iter().map(|&(edge, target)| if edge.in_place() { row[target] } else { above[target] });
    nested.max().unwrap_or(0)
}

impl Rates {
    /// Units of matching a text once, beyond those for each of its own.
    pub(super) fn matching(self, text: &str) -> f64 {
        self.backtracking * size::BACKTRACKING_UNITS + self.squares * size::squares(text)
    }

    /// The same of each.
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

    fn max(self, other: Self) -> Self {
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
