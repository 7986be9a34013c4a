//! What evaluating a schema on a value may cost, counted on that value: the closer bound of the model in [`super::cost`]. In: the
//! schema's graph, then values; out: upper bounds. Evaluates nothing.
//!
//! [`super::cost`] knows a value's size alone, so that a schema which refers to itself in several branches costs as if all of
//! them went on at every level. Here the value says which do: a branch whose property it has not, ends there.
//!
//! The walk goes through the value once, and at each value through the subschemas that are applied to it, in topological order
//! of the in-place edges: by the time that one is looked at, all ways to it are, and it is looked at once with the sum of its
//! [`Applications`]. It ends early where it takes more than it may itself.

use std::collections::BTreeMap;
use std::ops::{Add, AddAssign};

use serde_json::{Map, Value};

use super::graph::{Edge, Graph};
use super::likeness::Likeness;
use super::rates::{ENDLESS, Own, Rates};
use super::size;
use super::subschema::{Places, Subschema};

/// Most subschemas that are looked at, for all values together.
const MAX_VISITS: f64 = 3e6;

/// Units of work that looking at one takes.
const VISIT_UNITS: f64 = 0.5;

/// Units of going past a member or an element, where a subschema looks for some of them only.
const PASSING: f64 = 0.25;

/// A schema as the walk needs it.
#[derive(Debug)]
pub(super) struct Counter {
    /// In topological order: in-place edges lead to later ones.
    subschemas: Box<[Subschema]>,
    root: u32,
}

/// How often a subschema is applied to a value, by what for.
#[derive(Debug, Clone, Copy, Default)]
struct Applications {
    /// To decide whether the value is valid.
    verdicts: f64,
    /// To mark which members and elements are evaluated, where those that are not count.
    marks: f64,
    /// To list what is wrong.
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
    /// For `graph`, with its [`Graph::in_place_order`] and what each node does itself.
    pub(super) fn new(graph: &Graph<'_>, order: &[usize], own: &[Own]) -> Self {
        let places = Places::new(graph, order);
        Self { subschemas: Subschema::all(&places, order, own), root: places.of_node(0) }
    }

    /// Deciding on a value, which is counted in at most as many units of work.
    pub(super) fn deciding(&self, value: &Value, units: f64) -> Counted {
        self.count(value, units, Applications { verdicts: 1.0, ..Applications::default() })
    }

    /// Listing what is wrong with a value, likewise.
    pub(super) fn listing(&self, value: &Value, units: f64) -> Counted {
        self.count(value, units, Applications { lists: 1.0, ..Applications::default() })
    }

    fn count(&self, value: &Value, units: f64, times: Applications) -> Counted {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within bounds that are no negative numbers"
        )]
        let visits_left = (units / VISIT_UNITS).clamp(0.0, MAX_VISITS) as usize;
        let mut walk = Walk { subschemas: &self.subschemas, visits_left, work: 0.0, reports: 0.0, report_bytes: 0.0 };
        let whole = walk.apply(value, 0.0, Pending::from([(self.root, times)])).is_some();
        let counting = (visits_left - walk.visits_left) as f64 * VISIT_UNITS;
        let (work, report_bytes) = if whole { (walk.work, walk.report_bytes) } else { (f64::INFINITY, f64::INFINITY) };
        Counted { work, report_bytes, counting }
    }
}

/// The walk through one value.
struct Walk<'a> {
    subschemas: &'a [Subschema],
    visits_left: usize,
    work: f64,
    /// Violations that are listed.
    reports: f64,
    report_bytes: f64,
}

/// Subschemas that are applied to the value at hand and not looked at yet, in topological order.
type Pending = BTreeMap<u32, Applications>;

/// Those that were looked at.
type Applied<'a> = [(&'a Subschema, Applications)];

/// The value at hand.
struct Here<'v> {
    value: &'v Value,
    /// Units of the value without its parts, and of going past these.
    units: f64,
    parts: f64,
    /// Violations here, and bytes of the schema that they copy.
    reports: f64,
    texts: f64,
    /// What comparing the elements takes, once it is known.
    likeness: Option<Likeness>,
}

impl<'a> Walk<'a> {
    /// Goes through `value`, whose pointer has `path` bytes, and to which the `pending` subschemas are applied. Gives the bytes
    /// of the value; nothing where that takes too long.
    fn apply(&mut self, value: &Value, path: f64, mut pending: Pending) -> Option<f64> {
        let (units, parts) = (size::own_units(value), size::parts_units(value));
        let mut here = Here { value, units, parts, reports: 0.0, texts: 0.0, likeness: None };
        let mut applied = Vec::new();
        while let Some((place, times)) = pending.pop_first() {
            let subschema: &'a Subschema = self.subschemas.get(place as usize)?;
            self.visit(1 + subschema.in_place.len())?;
            let times = times.at(subschema);
            self.charge(subschema, times, &mut here)?;
            for &(edge, to) in &subschema.in_place {
                *pending.entry(to).or_default() += times.in_place(edge, subschema);
            }
            applied.push((subschema, times));
        }
        let bytes = match value {
            Value::Array(items) => self.items(items, path, &applied)?,
            Value::Object(members) => self.members(members, path, &applied)?,
            value => size::report_bytes(value),
        };
        self.reports += here.reports;
        self.report_bytes += here.reports * (bytes + path) + here.texts;
        Some(bytes)
    }

    /// Adds what a subschema's own keywords take.
    fn charge(&mut self, subschema: &Subschema, times: Applications, here: &mut Here<'_>) -> Option<()> {
        let own = &subschema.own;
        let rounds = times.verdicts + times.marks + times.lists;
        let through = if subschema.looks_inside() { here.parts } else { here.parts * PASSING };
        self.work += rounds * (here.units * own.value.work + through + self.matching(own, here.value)?);
        if let (Value::Array(items), true) = (here.value, own.value.comparing > 0.0) {
            let likeness = here.likeness.get_or_insert_with(|| Likeness::of(items));
            self.visit(likeness.values)?;
            self.work += rounds * likeness.units;
        }
        here.reports += times.lists * own.value.reports;
        here.texts += times.lists * (own.value.texts + own.value.reports * times.way);
        Some(())
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

    fn items(&mut self, items: &[Value], path: f64, applied: &Applied<'_>) -> Option<f64> {
        let mut bytes = size::VIOLATION_BYTES;
        for item in items {
            let mut pending = Pending::new();
            for (subschema, times) in applied {
                self.visit(1 + subschema.elements.len() + subschema.contained.len())?;
                for &to in &subschema.elements {
                    *pending.entry(to).or_default() += times.inside();
                }
                for &to in &subschema.contained {
                    *pending.entry(to).or_default() += times.asked();
                }
            }
            bytes += self.below(item, path + 4.0, pending)?;
        }
        Some(bytes)
    }

    fn members(&mut self, members: &Map<String, Value>, path: f64, applied: &Applied<'_>) -> Option<f64> {
        let (mut bytes, mut wrong_names) = (size::VIOLATION_BYTES, 0.0);
        for (name, member) in members {
            let (pending, of_name) = self.of_member(name, applied)?;
            let path = path + name.len() as f64 + 1.0;
            if !of_name.is_empty() {
                let before = self.reports;
                self.apply(&Value::String(name.clone()), path, of_name)?;
                wrong_names += self.reports - before;
            }
            bytes += name.len() as f64 + self.below(member, path, pending)?;
        }
        // What is wrong with a name repeats the object.
        self.report_bytes += wrong_names * bytes;
        Some(bytes)
    }

    /// What is applied to a member, and to its name.
    fn of_member(&mut self, name: &str, applied: &Applied<'_>) -> Option<(Pending, Pending)> {
        let (mut pending, mut of_name) = (Pending::new(), Pending::new());
        for (subschema, times) in applied {
            self.visit(1 + subschema.members.len() + subschema.names.len())?;
            let named = subschema.named(name);
            let others = if named.is_some() { &[] } else { &*subschema.others };
            for &to in named.iter().chain(others) {
                *pending.entry(to).or_default() += times.inside();
            }
            for &(to, again) in &subschema.members {
                *pending.entry(to).or_default() += if again { times.asked() } else { times.inside() };
            }
            for &to in &subschema.names {
                *of_name.entry(to).or_default() += times.inside();
            }
        }
        Some((pending, of_name))
    }

    /// Goes through a part of the value, if anything is applied to it; gives its bytes.
    fn below(&mut self, value: &Value, path: f64, pending: Pending) -> Option<f64> {
        if pending.is_empty() { Some(size::report_bytes(value)) } else { self.apply(value, path, pending) }
    }

    /// Counts looking at subschemas; nothing once that is too much.
    fn visit(&mut self, visits: usize) -> Option<()> {
        let left = self.visits_left.checked_sub(visits);
        self.visits_left = left.unwrap_or(0);
        left.map(|_| ())
    }
}

impl Applications {
    /// How often `subschema` itself is evaluated: where it tracks, it marks for each verdict and list.
    fn at(self, subschema: &Subschema) -> Self {
        let marks = if subschema.tracks { self.verdicts + self.lists } else { 0.0 };
        self + Self { marks, ..Self::default() }
    }

    /// How often a subschema is applied to the same value that `from` applies over such an edge.
    fn in_place(self, edge: Edge, from: &Subschema) -> Self {
        let Self { verdicts, marks, lists, way } = self;
        match edge {
            // What a reference leads to is marked without asking for its verdict, and listed at once.
            Edge::Reference { .. } => Self { way: way + from.location, ..self },
            // Alternatives are asked before they are marked, and before they are listed.
            Edge::Composed => Self { verdicts: verdicts + marks + lists, ..self },
            // Marking may ask a condition again for each conditional inside.
            _ => Self { verdicts: verdicts + marks * from.conditions.max(1.0) + lists, ..self },
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

impl Add for Applications {
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

impl AddAssign for Applications {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
