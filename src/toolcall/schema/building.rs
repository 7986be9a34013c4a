//! Whether a schema can be compiled at all, known before it is. In: the schema's graph; out: the node at which compiling it
//! takes too much time or stack. Compiles nothing.
//!
//! The walk goes where the validator's compiler goes. A subschema is compiled where it stands; what a reference leads to,
//! once for each way in which `$id`s were entered until there, since a dynamic reference may mean something else for each.
//! Where evaluated members or elements are tracked, everything that sees the same value is walked through once more, through
//! references too and without a memory: two ways to a definition walk through it twice, and each way nests on the stack.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::graph::{Edge, Graph};

/// Most work: units of about 10 us.
const MAX_WORK: usize = 60_000;
/// Work of compiling a subschema, of one that a reference leads to, and of walking through one for what it evaluates.
const COMPILED: usize = 1;
const REFERRED: usize = 5;
const TRACKED: usize = 5;

/// Most subschemas that are compiled or tracked inside each other; one takes up to 4 KiB of stack.
const MAX_NESTED: usize = 128;

/// Most times that references lead from one `$id` into another, one after the other.
const MAX_CROSSINGS: usize = 16;

/// Checks that compiling stays within its bounds.
///
/// # Errors
///
/// A node that is compiled too often or too deeply, and what to do.
pub(super) fn check(graph: &Graph<'_>) -> Result<(), (usize, &'static str)> {
    let mut building = Building {
        graph,
        work: 0,
        nested: 0,
        open: vec![0; graph.nodes.len()],
        targets: vec![Target { node: 0, scope: 0, from: None }],
        known: HashSet::from([(0, 0)]),
        seen: vec![false; graph.nodes.len()],
        scopes: vec![0],
        entered: HashMap::new(),
    };
    let mut next = 0;
    while let Some(&Target { node, scope, .. }) = building.targets.get(next) {
        building.compile(node, At { scope, target: next })?;
        next += 1;
    }
    Ok(())
}

type Checked = Result<(), (usize, &'static str)>;

/// What a reference leads to.
#[derive(Clone, Copy)]
struct Target {
    node: usize,
    scope: usize,
    /// The target in which the reference stands.
    from: Option<usize>,
}

/// In which target a subschema is compiled, and in which scope: how it was come to.
#[derive(Clone, Copy)]
struct At {
    target: usize,
    scope: usize,
}

struct Building<'g, 'a> {
    graph: &'g Graph<'a>,
    work: usize,
    nested: usize,
    /// How often each node is being tracked.
    open: Vec<u32>,
    /// What waits for its turn, and what had it.
    targets: Vec<Target>,
    known: HashSet<(usize, usize)>,
    seen: Vec<bool>,
    /// Of each scope how many bases were entered.
    scopes: Vec<usize>,
    /// The scope that entering a base from a scope gives.
    entered: HashMap<(usize, usize), usize>,
}

impl Building<'_, '_> {
    fn spend(&mut self, work: usize, node: usize) -> Checked {
        self.work += work;
        if self.work > MAX_WORK {
            return Err((node, "compiling the schema goes through this one too often; refer to it in fewer ways"));
        }
        Ok(())
    }

    fn nest(&mut self, node: usize, inside: impl FnOnce(&mut Self) -> Checked) -> Checked {
        if self.nested == MAX_NESTED {
            return Err((node, "more than 128 schemas apply inside each other here; nest fewer"));
        }
        self.nested += 1;
        inside(self)?;
        self.nested -= 1;
        Ok(())
    }

    fn compile(&mut self, node: usize, at: At) -> Checked {
        self.spend(COMPILED, node)?;
        self.nest(node, |building| {
            let graph = building.graph;
            for _ in 0..tracked_kinds(graph.nodes[node].schema) {
                building.track(node, at, false)?;
            }
            for &(edge, to) in &graph.nodes[node].edges {
                match edge {
                    Edge::Reference => building.refer(node, to, at)?,
                    _ => building.compile(to, at)?,
                }
            }
            Ok(())
        })
    }

    /// Goes through what sees the same value. `moved`: a reference was followed to here, so that nothing of it is compiled
    /// under this name yet.
    fn track(&mut self, node: usize, at: At, moved: bool) -> Checked {
        self.spend(TRACKED, node)?;
        self.open[node] += 1;
        self.nest(node, |building| {
            let graph = building.graph;
            for &(edge, to) in &graph.nodes[node].edges {
                match edge {
                    Edge::Reference if building.open[to] > 0 => {}
                    Edge::Reference => {
                        let scope = building.scope(node, to, at.scope)?;
                        building.track(to, At { scope, ..at }, true)?;
                    }
                    Edge::Member => {}
                    _ => {
                        if moved {
                            building.compile(to, at)?;
                        }
                        if edge.in_place() {
                            building.track(to, at, moved)?;
                        }
                    }
                }
            }
            Ok(())
        })?;
        self.open[node] -= 1;
        Ok(())
    }

    /// Has what a reference leads to compiled, unless it is, or is on the way.
    fn refer(&mut self, node: usize, to: usize, at: At) -> Checked {
        let scope = self.scope(node, to, at.scope)?;
        if self.known.contains(&(to, scope)) {
            return Ok(());
        }
        if self.seen[to] {
            let mut outer = Some(at.target);
            let mut steps = 0;
            while let Some(target) = outer {
                if self.targets[target].node == to {
                    return self.spend(steps / 16, to);
                }
                outer = self.targets[target].from;
                steps += 1;
            }
            self.spend(steps / 16, to)?;
        }
        self.spend(REFERRED, to)?;
        self.seen[to] = true;
        self.known.insert((to, scope));
        self.targets.push(Target { node: to, scope, from: Some(at.target) });
        Ok(())
    }

    /// The scope behind a reference.
    fn scope(&mut self, node: usize, to: usize, scope: usize) -> Result<usize, (usize, &'static str)> {
        let base = self.graph.nodes[node].base;
        if base == self.graph.nodes[to].base {
            return Ok(scope);
        }
        if self.scopes[scope] == MAX_CROSSINGS {
            return Err((
                node,
                "references lead from one $id to another more than 16 times here; use $defs without $id",
            ));
        }
        let scopes = &mut self.scopes;
        Ok(*self.entered.entry((scope, base)).or_insert_with(|| {
            scopes.push(scopes[scope] + 1);
            scopes.len() - 1
        }))
    }
}

/// How many kinds of parts, members and elements, a schema tracks.
fn tracked_kinds(schema: &Value) -> usize {
    let keywords = ["unevaluatedProperties", "unevaluatedItems"];
    keywords.iter().filter(|keyword| schema.get(keyword).is_some_and(|value| *value != Value::Bool(true))).count()
}
