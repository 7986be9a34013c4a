//! Whether a schema can be compiled at all, known before it is. In: the schema's graph; out: how deep compiling it nests, or
//! the node at which it takes too much. Compiles nothing.
//!
//! The walk goes wherever the validator's compiler goes, in whatever order that does. A subschema is compiled where it stands;
//! what a reference leads to, once for each way in which documents were entered until there, since a dynamic reference may
//! mean something else for each. Where evaluated members or elements are tracked, everything that sees the same value is walked
//! through once more, through references too and without a memory: two ways to a definition walk through it twice, and each way
//! nests on the stack.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::branches;
use super::graph::{Edge, Graph};
use super::size::values_in;

/// Work that any schema may take, in units of about 10 us and 128 bytes; one more for every two bytes of its text.
const FREE_WORK: usize = 1000;
/// Work of compiling a subschema, of one that a reference leads to, and of walking through one for what it evaluates.
const COMPILED: usize = 1;
const REFERRED: usize = 5;
const TRACKED: usize = 5;

/// Most subschemas of one reference's target that are compiled or tracked inside each other.
const MAX_NESTED: usize = 128;

/// Most subschemas that may own each other, one after the other; dropping one takes about 250 bytes of stack.
const MAX_OWNED: usize = 50_000;

/// Values in a subschema's own keywords, whose copies cost as much as compiling a subschema.
const VALUES: usize = 8;

/// Bytes that compiling may take beyond what the length of a text tells, where it tracks what is evaluated.
pub(super) fn tracking_bytes(text: &str) -> usize {
    if text.contains("unevaluated") || text.contains("\\u") { max_work(text.len()) * 128 } else { 0 }
}

fn max_work(text_bytes: usize) -> usize {
    FREE_WORK + text_bytes / 2
}

/// How deep compiling a schema goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Depth {
    /// Subschemas that are nested at most between two references.
    pub(super) nested: usize,
    /// The same, summed over all that references lead to: what is compiled owns what it refers to, and is dropped at once.
    pub(super) owned: usize,
}

/// Checks that compiling a schema, whose text has `text_bytes`, stays within its bounds.
///
/// # Errors
///
/// A node that is compiled too often or too deeply, and what to do.
pub(super) fn check(graph: &Graph<'_>, text_bytes: usize) -> Result<Depth, (usize, &'static str)> {
    let mut building = Building {
        graph,
        values: graph.nodes.iter().map(|node| values(node.schema) / VALUES).collect(),
        work_left: max_work(text_bytes),
        covering: covering(graph),
        nested: 0,
        deepest: 0,
        open: [vec![0; graph.nodes.len()], vec![0; graph.nodes.len()]],
        waiting: vec![(0, 0)],
        known: HashSet::new(),
        scopes: vec![0],
        entered: HashMap::new(),
        most_entered: entries(graph),
    };
    let mut depth = Depth { nested: 0, owned: 0 };
    while let Some((node, scope)) = building.waiting.pop() {
        building.deepest = 0;
        building.compile(node, scope)?;
        depth.nested = depth.nested.max(building.deepest);
        depth.owned += building.deepest;
        if depth.owned > MAX_OWNED {
            return Err((node, "too many definitions that nest too deeply; use fewer, or nest fewer"));
        }
    }
    Ok(depth)
}

/// How many subschemas are referred to from other documents. On its way to one, the compiler compiles none twice, so that it
/// enters no more documents than these.
fn entries(graph: &Graph<'_>) -> usize {
    let edges = graph.nodes.iter().flat_map(|node| &node.edges);
    let entries = edges.filter(|(edge, _)| matches!(edge, Edge::Reference { enters: true })).map(|(_, to)| to);
    entries.collect::<HashSet<_>>().len()
}

/// What a validator copies of a subschema's own keywords, in values and names.
fn values(schema: &Value) -> usize {
    let Value::Object(keywords) = schema else { return 0 };
    let copied = |(keyword, value): (&String, &Value)| match (keyword.as_str(), value) {
        ("const" | "enum" | "required" | "dependentRequired" | "dependencies" | "not", value) => values_in(value),
        ("properties", Value::Object(members)) => members.len(),
        _ => 0,
    };
    keywords.iter().map(copied).sum()
}

type Checked = Result<(), (usize, &'static str)>;

/// Each pattern of a branch is looked up among those of the others.
fn covering(graph: &Graph<'_>) -> usize {
    let patterns = graph.nodes.iter().filter_map(|node| node.schema.get("patternProperties")?.as_object());
    let patterns = patterns.map(serde_json::Map::len).sum::<usize>();
    patterns.saturating_mul(patterns) / 2000
}

/// What may be tracked: members or elements.
pub(super) const TRACKING: [&str; 2] = ["unevaluatedProperties", "unevaluatedItems"];

struct Building<'g, 'a> {
    graph: &'g Graph<'a>,
    /// The work of copying what stands in each node's own keywords.
    values: Vec<usize>,
    work_left: usize,
    /// The work of finding out whether what one branch evaluates, others do.
    covering: usize,
    nested: usize,
    deepest: usize,
    /// How often each node is being tracked, for each kind.
    open: [Vec<u32>; 2],
    /// What references lead to, in a scope.
    waiting: Vec<(usize, usize)>,
    known: HashSet<(usize, usize)>,
    /// Of each scope how many documents were entered.
    scopes: Vec<usize>,
    /// The scope that leaving a base gives in a scope.
    entered: HashMap<(usize, usize), usize>,
    most_entered: usize,
}

impl Building<'_, '_> {
    fn spend(&mut self, work: usize, node: usize) -> Checked {
        let left = self.work_left.checked_sub(work);
        self.work_left = left.ok_or((node, "compiling the schema comes here too often; refer to it in fewer ways"))?;
        Ok(())
    }

    fn nest(&mut self, node: usize, inside: impl FnOnce(&mut Self) -> Checked) -> Checked {
        if self.nested == MAX_NESTED {
            return Err((node, "more than 128 schemas apply inside each other here; nest fewer"));
        }
        self.nested += 1;
        self.deepest = self.deepest.max(self.nested);
        inside(self)?;
        self.nested -= 1;
        Ok(())
    }

    fn compile(&mut self, node: usize, scope: usize) -> Checked {
        self.spend(COMPILED + self.values[node], node)?;
        self.spend(branches::work(self.graph, node, self.work_left), node)?;
        self.nest(node, |building| {
            let graph = building.graph;
            let tracks =
                |keyword: &str| graph.nodes[node].schema.get(keyword).is_some_and(|value| *value != Value::Bool(true));
            for kind in [0, 1].into_iter().filter(|kind| tracks(TRACKING[*kind])) {
                building.track(kind, node, scope, false)?;
            }
            for &(edge, to) in &graph.nodes[node].edges {
                match edge {
                    Edge::Reference { enters } => building.refer(node, (to, enters), scope)?,
                    _ => building.compile(to, scope)?,
                }
            }
            Ok(())
        })
    }

    /// Goes through what sees the same value. `moved`: a reference was followed to here, so that nothing of it is compiled
    /// under this name yet.
    fn track(&mut self, kind: usize, node: usize, scope: usize, moved: bool) -> Checked {
        self.spend(TRACKED + self.values[node] + self.covering, node)?;
        self.open[kind][node] += 1;
        self.nest(node, |building| {
            let graph = building.graph;
            for &(edge, to) in &graph.nodes[node].edges {
                match edge {
                    Edge::Reference { .. } if building.open[kind][to] > 0 => {}
                    Edge::Reference { enters } => {
                        let scope = if enters { building.enter(node, scope) } else { Some(scope) };
                        building.track(kind, to, scope.unwrap_or_default(), true)?;
                    }
                    Edge::Member => {}
                    _ => {
                        if moved {
                            building.compile(to, scope)?;
                        }
                        if edge.in_place() {
                            building.track(kind, to, scope, moved)?;
                        }
                    }
                }
            }
            Ok(())
        })?;
        self.open[kind][node] -= 1;
        Ok(())
    }

    /// Has what a reference leads to compiled, unless it is.
    fn refer(&mut self, node: usize, (to, enters): (usize, bool), scope: usize) -> Checked {
        let scope = if enters { self.enter(node, scope) } else { Some(scope) };
        if let Some(scope) = scope
            && self.known.insert((to, scope))
        {
            self.spend(REFERRED, to)?;
            self.waiting.push((to, scope));
        }
        Ok(())
    }

    /// The scope behind a reference into another document; none where no way of the compiler's leads.
    fn enter(&mut self, node: usize, scope: usize) -> Option<usize> {
        let (scopes, left) = (&mut self.scopes, self.graph.nodes[node].base);
        if scopes[scope] == self.most_entered {
            return None;
        }
        Some(*self.entered.entry((scope, left)).or_insert_with(|| {
            scopes.push(scopes[scope] + 1);
            scopes.len() - 1
        }))
    }
}
