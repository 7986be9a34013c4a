//! What evaluating a schema on a value may cost, counted on that value. In: the schema's graph, then values; out: upper
//! bounds as [`super::cost`] gives them, only closer. Evaluates nothing.
//!
//! [`super::cost`] knows a value's size alone, so that a schema which refers to itself in several branches costs as if all of
//! them went on at every level. Here the value says which do: a branch whose property it has not, ends there. That takes a
//! walk through the value for every call, and is asked only where the other bound is too high.
//!
//! The walk carries how often each subschema is applied to the value at hand: for its verdict, to mark what it evaluated
//! (where members or elements that nobody evaluated count), and to list what is wrong. Subschemas of the same value come
//! after those that apply them, so that each is looked at once for each value.

use std::collections::{BTreeMap, HashSet};
use std::ops::{Add, AddAssign};

use serde_json::Value;

use super::building::TRACKING;
use super::cost::{ENDLESS, Own, Rates};
use super::graph::{Edge, Graph, Node, REFERENCES};
use super::likeness::Likeness;
use super::size;

/// Most subschemas that are looked at, for all values together.
const MAX_VISITS: f64 = 3e6;

/// Units of work that looking at one takes.
const VISIT_UNITS: f64 = 0.5;

/// Units of going past a member or an element, where a subschema looks for some of them only.
const PASSING: f64 = 0.25;

/// Most conditions on one way into nested conditionals that marking asks again for each conditional inside.
const MAX_CONDITIONS: f64 = 64.0;

/// A schema as the walk needs it.
#[derive(Debug)]
pub(super) struct Counter {
    /// In-place edges lead to later ones.
    steps: Box<[Step]>,
    root: u32,
}

/// One subschema.
#[derive(Debug)]
struct Step {
    own: Own,
    /// Bytes of the pointer to it.
    location: f64,
    /// Whether members or elements that nobody evaluated count.
    tracks: bool,
    in_place: Box<[(Edge, u32)]>,
    /// Named members, in the order of their names.
    named: Box<[(Box<str>, u32)]>,
    /// Members that are not named.
    others: Box<[u32]>,
    /// Every member, and whether marking asks it again.
    members: Box<[(u32, bool)]>,
    /// The names of members.
    names: Box<[u32]>,
    /// Elements, by position or not.
    elements: Box<[u32]>,
    /// Elements that marking asks again, and that are asked for a verdict only.
    contained: Box<[u32]>,
    /// Conditionals inside.
    conditions: f64,
}

/// How often a subschema is applied to a value.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    verdicts: f64,
    marks: f64,
    lists: f64,
    /// Bytes of the longest way through references to it, which every violation has.
    way: f64,
}

/// What evaluating may take.
#[derive(Debug)]
pub(super) struct Counted {
    /// Units of work.
    pub(super) work: f64,
    /// Bytes that are copied to list what is wrong.
    pub(super) report_bytes: f64,
    /// Units of work that counting took itself.
    pub(super) counting: f64,
}

impl Counter {
    /// For `graph`, whose `order` lists the nodes reached in place first, with what each does itself.
    pub(super) fn new(graph: &Graph<'_>, order: &[usize], own: &[Own]) -> Self {
        let mut place = vec![0; order.len()];
        for (position, &node) in order.iter().rev().enumerate() {
            place[node] = u32::try_from(position).unwrap_or(u32::MAX);
        }
        let mut conditions = vec![0.0_f64; order.len()];
        for &node in order {
            let inside = graph.nodes[node].edges.iter().filter(|(edge, _)| edge.in_place());
            let inside = inside.map(|&(edge, to)| conditions[to] + if edge == Edge::InPlace { 1.0 } else { 0.0 });
            conditions[node] = inside.sum::<f64>().min(MAX_CONDITIONS);
        }
        let steps = order.iter().rev().map(|&node| {
            Step::new(&graph.nodes[node], own[node], conditions[node], |to| place[to], |schema| graph.node_of(schema))
        });
        Self { steps: steps.collect(), root: place.first().copied().unwrap_or(0) }
    }

    /// Deciding on a value, which is counted in at most as many units of work.
    pub(super) fn deciding(&self, value: &Value, units: f64) -> Counted {
        self.count(value, units, Times { verdicts: 1.0, ..Times::default() })
    }

    /// Listing what is wrong with a value, likewise.
    pub(super) fn listing(&self, value: &Value, units: f64) -> Counted {
        self.count(value, units, Times { lists: 1.0, ..Times::default() })
    }

    fn count(&self, value: &Value, units: f64, times: Times) -> Counted {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within bounds that are no negative numbers"
        )]
        let visits_left = (units / VISIT_UNITS).clamp(0.0, MAX_VISITS) as usize;
        let mut walk = Walk { steps: &self.steps, visits_left, work: 0.0, reports: 0.0, report_bytes: 0.0 };
        let whole = walk.apply(value, 0.0, BTreeMap::from([(self.root, times)])).is_some();
        let counting = (visits_left - walk.visits_left) as f64 * VISIT_UNITS;
        let (work, report_bytes) = if whole { (walk.work, walk.report_bytes) } else { (f64::INFINITY, f64::INFINITY) };
        Counted { work, report_bytes, counting }
    }
}

impl Step {
    fn new(
        node: &Node<'_>,
        own: Own,
        conditions: f64,
        place: impl Fn(usize) -> u32,
        node_of: impl Fn(&Value) -> Option<usize>,
    ) -> Self {
        let to = |wanted: fn(Edge) -> bool| -> Box<[u32]> {
            node.edges.iter().filter(|(edge, _)| wanted(*edge)).map(|&(_, to)| place(to)).collect()
        };
        let keyword = |keyword: &str| node.schema.get(keyword);
        let child = |name: &str| keyword(name).and_then(&node_of).map(&place);
        let properties = keyword("properties").and_then(Value::as_object).into_iter().flatten();
        let mut named: Vec<_> =
            properties.filter_map(|(name, schema)| Some((name.as_str().into(), place(node_of(schema)?)))).collect();
        named.sort_unstable();
        let edges = node.edges.iter().filter(|(edge, _)| edge.in_place());
        let mut in_place: Vec<_> = edges.map(|&(edge, to)| (edge, place(to))).collect();
        // Of what one dynamic reference may mean, what is named twice is meant once.
        if REFERENCES.iter().filter(|reference| keyword(reference).is_some()).count() == 1 {
            let mut known = HashSet::new();
            in_place.retain(|(edge, to)| !matches!(edge, Edge::Reference { .. }) || known.insert(*to));
        }
        let names = child("propertyNames");
        let again = child("unevaluatedProperties");
        let every = to(|edge| edge == Edge::EachMember);
        Self {
            own,
            location: node.location as f64,
            tracks: TRACKING.iter().any(|name| keyword(name).is_some()),
            in_place: in_place.into(),
            named: named.into(),
            others: to(|edge| edge == Edge::OtherMember),
            members: every.iter().filter(|to| Some(**to) != names).map(|to| (*to, Some(*to) == again)).collect(),
            names: names.into_iter().collect(),
            elements: to(|edge| edge == Edge::Element),
            contained: to(|edge| edge == Edge::EachElement),
            conditions,
        }
    }

    /// Whether a verdict goes through the members or elements.
    fn looks_inside(&self) -> bool {
        [&self.others, &self.names, &self.elements, &self.contained].iter().any(|to| !to.is_empty())
            || !self.members.is_empty()
    }

    /// The subschema of a named member.
    fn named(&self, name: &str) -> Option<u32> {
        let found = self.named.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        self.named.get(found).map(|&(_, to)| to)
    }
}

/// The walk through one value.
struct Walk<'a> {
    steps: &'a [Step],
    visits_left: usize,
    work: f64,
    /// Violations that are listed.
    reports: f64,
    report_bytes: f64,
}

type Entering = BTreeMap<u32, Times>;

impl Walk<'_> {
    /// Goes through `value`, whose pointer has `path` bytes, and to which the steps in `entering` are applied. Gives the
    /// bytes of the value; nothing where that takes too long.
    fn apply(&mut self, value: &Value, path: f64, mut entering: Entering) -> Option<f64> {
        let mut applied = Vec::new();
        let (units, parts) = (size::own_units(value), size::parts_units(value));
        let (mut reports, mut texts, mut likeness) = (0.0, 0.0, None);
        while let Some((place, times)) = entering.pop_first() {
            let step = self.steps.get(place as usize)?;
            self.visit(1 + step.in_place.len())?;
            let times = if step.tracks {
                times + Times { marks: times.verdicts + times.lists, ..Times::default() }
            } else {
                times
            };
            let rounds = times.verdicts + times.marks + times.lists;
            let through = if step.looks_inside() { parts } else { parts * PASSING };
            self.work += rounds * (units * step.own.value.work + through + self.matching(&step.own, value)?);
            if let (Value::Array(items), true) = (value, step.own.value.comparing > 0.0) {
                let likeness: &Likeness = likeness.get_or_insert_with(|| Likeness::of(items));
                self.visit(likeness.values)?;
                self.work += rounds * likeness.units;
            }
            reports += times.lists * step.own.value.reports;
            texts += times.lists * (step.own.value.texts + step.own.value.reports * times.way);
            for &(edge, to) in &step.in_place {
                *entering.entry(to).or_default() += times.in_place(edge, step);
            }
            applied.push((step, times));
        }
        let bytes = match value {
            Value::Array(items) => self.items(items, path, &applied)?,
            Value::Object(members) => self.members(members, path, &applied)?,
            value => size::report_bytes(value),
        };
        self.reports += reports;
        self.report_bytes += reports * (bytes + path) + texts;
        Some(bytes)
    }

    /// What matching a value or its names once takes, beyond their units.
    fn matching(&mut self, own: &Own, value: &Value) -> Option<f64> {
        Some(match value {
            Value::String(text) => own.value.matching(text),
            Value::Object(members) if own.member != Rates::default() => {
                self.visit(members.len())?;
                let name = |name: &String| own.member.work * (1.0 + size::text_units(name)) + own.member.matching(name);
                members.keys().map(name).sum()
            }
            _ => 0.0,
        })
    }

    fn items(&mut self, items: &[Value], path: f64, applied: &[(&Step, Times)]) -> Option<f64> {
        let mut bytes = size::VIOLATION_BYTES;
        for item in items {
            let mut entering = Entering::new();
            for (step, times) in applied {
                self.visit(1 + step.elements.len() + step.contained.len())?;
                for &to in &step.elements {
                    *entering.entry(to).or_default() += times.inside();
                }
                for &to in &step.contained {
                    *entering.entry(to).or_default() += times.asked();
                }
            }
            bytes += self.below(item, path + 4.0, entering)?;
        }
        Some(bytes)
    }

    fn members(
        &mut self,
        members: &serde_json::Map<String, Value>,
        path: f64,
        applied: &[(&Step, Times)],
    ) -> Option<f64> {
        let (mut bytes, mut wrong_names) = (size::VIOLATION_BYTES, 0.0);
        for (name, member) in members {
            let (mut entering, mut naming) = (Entering::new(), Entering::new());
            for (step, times) in applied {
                self.visit(1 + step.members.len() + step.names.len())?;
                let named = step.named(name);
                let others = if named.is_some() { &[] } else { &*step.others };
                for &to in named.iter().chain(others) {
                    *entering.entry(to).or_default() += times.inside();
                }
                for &(to, again) in &step.members {
                    *entering.entry(to).or_default() += if again { times.asked() } else { times.inside() };
                }
                for &to in &step.names {
                    *naming.entry(to).or_default() += times.inside();
                }
            }
            let path = path + name.len() as f64 + 1.0;
            if !naming.is_empty() {
                let before = self.reports;
                self.apply(&Value::String(name.clone()), path, naming)?;
                wrong_names += self.reports - before;
            }
            bytes += name.len() as f64 + self.below(member, path, entering)?;
        }
        // What is wrong with a name repeats the object.
        self.report_bytes += wrong_names * bytes;
        Some(bytes)
    }

    fn below(&mut self, value: &Value, path: f64, entering: Entering) -> Option<f64> {
        if entering.is_empty() { Some(size::report_bytes(value)) } else { self.apply(value, path, entering) }
    }

    fn visit(&mut self, visits: usize) -> Option<()> {
        let left = self.visits_left.checked_sub(visits);
        self.visits_left = left.unwrap_or(0);
        left.map(|_| ())
    }
}

impl Times {
    /// How often a subschema of the same value is applied where `step`, which applies it, is applied these times.
    fn in_place(self, edge: Edge, step: &Step) -> Self {
        let Self { verdicts, marks, lists, way } = self;
        match edge {
            // What a reference leads to is marked without asking for its verdict, and listed at once.
            Edge::Reference { .. } => Self { way: way + step.location, ..self },
            // Alternatives are asked before they are marked, and before they are listed.
            Edge::Composed => Self { verdicts: verdicts + marks + lists, ..self },
            // Marking may ask a condition again for each conditional inside.
            _ => Self { verdicts: verdicts + marks * step.conditions.max(1.0) + lists, ..self },
        }
    }

    /// The same for a part of the value: marking does not go there.
    fn inside(self) -> Self {
        Self { marks: 0.0, ..self }
    }

    /// The same where marking does, and where listing asks for a verdict first.
    fn asked(self) -> Self {
        let Self { verdicts, marks, lists, .. } = self;
        Self { verdicts: verdicts + marks + lists, marks: 0.0, ..self }
    }
}

impl Add for Times {
    type Output = Self;

    /// Beyond all bounds it stays a number.
    fn add(self, other: Self) -> Self {
        Self {
            verdicts: (self.verdicts + other.verdicts).min(ENDLESS),
            marks: (self.marks + other.marks).min(ENDLESS),
            lists: (self.lists + other.lists).min(ENDLESS),
            way: self.way.max(other.way),
        }
    }
}

impl AddAssign for Times {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
