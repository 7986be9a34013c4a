//! A graph's nodes as [`super::count`] walks through them: numbered in topological order of the in-place edges, with the edges
//! sorted by which parts of a value they lead to. In: a graph and an order of it; out: a list. Knows no values.

use std::collections::HashSet;

use serde_json::Value;

use super::building::TRACKING;
use super::graph::{Edge, Graph, REFERENCES};
use super::rates::Own;

/// Most conditions on one way into nested conditionals that marking asks again for each conditional inside.
const MAX_CONDITIONS: f64 = 64.0;

/// One subschema, and by their places in that order those that it applies.
#[derive(Debug)]
pub(super) struct Subschema {
    pub(super) own: Own,
    /// Bytes of the pointer to it.
    pub(super) location: f64,
    /// Whether members or elements that nobody evaluated count.
    pub(super) tracks: bool,
    pub(super) in_place: Box<[(Edge, u32)]>,
    /// To members by name, in the order of their names.
    named: Box<[(Box<str>, u32)]>,
    /// To members that are not named.
    pub(super) others: Box<[u32]>,
    /// To every member, and whether marking asks it again.
    pub(super) members: Box<[(u32, bool)]>,
    /// To the names of members.
    pub(super) names: Box<[u32]>,
    /// To elements, by position or not.
    pub(super) elements: Box<[u32]>,
    /// To elements, where marking asks again, and listing asks for a verdict only.
    pub(super) contained: Box<[u32]>,
    /// Conditionals inside, counted along every way to one.
    pub(super) conditions: f64,
}

/// For each node the conditionals inside, counted along every way to one.
fn conditions(graph: &Graph<'_>, order: &[usize]) -> Vec<f64> {
    let mut conditions = vec![0.0_f64; order.len()];
    for &node in order {
        let in_place = graph.nodes[node].edges.iter().filter(|(edge, _)| edge.in_place());
        let inside = in_place.map(|&(edge, to)| conditions[to] + if edge == Edge::InPlace { 1.0 } else { 0.0 });
        conditions[node] = inside.sum::<f64>().min(MAX_CONDITIONS);
    }
    conditions
}

/// Where the nodes of a graph stand in topological order.
pub(super) struct Places<'g, 'a> {
    graph: &'g Graph<'a>,
    places: Vec<u32>,
}

impl<'g, 'a> Places<'g, 'a> {
    /// Of the nodes of `graph`, with its [`Graph::in_place_order`].
    pub(super) fn new(graph: &'g Graph<'a>, order: &[usize]) -> Self {
        let mut places = vec![0; order.len()];
        for (place, &node) in order.iter().rev().enumerate() {
            places[node] = u32::try_from(place).unwrap_or(u32::MAX);
        }
        Self { graph, places }
    }

    /// Of a node.
    pub(super) fn of_node(&self, node: usize) -> u32 {
        self.places.get(node).copied().unwrap_or(0)
    }

    /// Of the nodes to which such edges of a node lead.
    fn behind(&self, node: usize, such: impl Fn(Edge) -> bool) -> impl Iterator<Item = (Edge, u32)> {
        let edges = self.graph.nodes[node].edges.iter().filter(move |(edge, _)| such(*edge));
        edges.map(|&(edge, to)| (edge, self.places[to]))
    }

    /// Of a subschema.
    fn of(&self, schema: &Value) -> Option<u32> {
        self.graph.node_of(schema).map(|node| self.places[node])
    }
}

impl Subschema {
    /// All of a graph in topological order, of which `order` is the reverse.
    pub(super) fn all(places: &Places<'_, '_>, order: &[usize], own: &[Own]) -> Box<[Self]> {
        let conditions = conditions(places.graph, order);
        order.iter().rev().map(|&node| Self::new(places, node, own[node], conditions[node])).collect()
    }

    fn new(places: &Places<'_, '_>, node: usize, own: Own, conditions: f64) -> Self {
        let schema = places.graph.nodes[node].schema;
        let child = |keyword: &str| schema.get(keyword).and_then(|child| places.of(child));
        let to = |wanted: Edge| places.behind(node, move |edge| edge == wanted).map(|(_, to)| to);
        let (names, again) = (child("propertyNames"), child("unevaluatedProperties"));
        let members = to(Edge::EachMember).filter(|to| Some(*to) != names);
        Self {
            own,
            location: places.graph.nodes[node].location as f64,
            tracks: TRACKING.iter().any(|name| schema.get(name).is_some()),
            in_place: in_place(places, node),
            named: named(places, schema),
            others: to(Edge::OtherMember).collect(),
            members: members.map(|to| (to, Some(to) == again)).collect(),
            names: names.into_iter().collect(),
            elements: to(Edge::Element).collect(),
            contained: to(Edge::EachElement).collect(),
            conditions,
        }
    }

    /// Whether a verdict goes through the members or elements.
    pub(super) fn looks_inside(&self) -> bool {
        [&self.others, &self.names, &self.elements, &self.contained].iter().any(|to| !to.is_empty())
            || !self.members.is_empty()
    }

    /// The subschema of a named member.
    pub(super) fn named(&self, name: &str) -> Option<u32> {
        let found = self.named.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        self.named.get(found).map(|&(_, to)| to)
    }
}

fn in_place(places: &Places<'_, '_>, node: usize) -> Box<[(Edge, u32)]> {
    let schema = places.graph.nodes[node].schema;
    let mut in_place: Vec<_> = places.behind(node, Edge::in_place).collect();
    // Of what one dynamic reference may mean, what is named twice is meant once.
    if REFERENCES.iter().filter(|reference| schema.get(reference).is_some()).count() == 1 {
        let mut known = HashSet::new();
        in_place.retain(|(edge, to)| !matches!(edge, Edge::Reference { .. }) || known.insert(*to));
    }
    in_place.into()
}

fn named(places: &Places<'_, '_>, schema: &Value) -> Box<[(Box<str>, u32)]> {
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    let mut named: Vec<_> =
        properties.filter_map(|(name, schema)| Some((name.as_str().into(), places.of(schema)?))).collect();
    named.sort_unstable();
    named.into()
}
