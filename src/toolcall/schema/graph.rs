//! A schema as a directed graph. Nodes are its subschemas; an edge leads from a subschema to one that it applies, and tells to
//! what: to the same value (in place), or to a member or element of it (descending). In: a node's keywords; out: its edges, and
//! an order of the nodes. Evaluates nothing; `resolve` builds it.
//!
//! Edges are a superset of those that a validator follows: keywords of every draft count. What holds for the graph then holds
//! for the evaluation. Descending edges may form cycles, which end with the value; in-place edges must not, see
//! [`Graph::in_place_order`].

use std::collections::HashMap;

use serde_json::{Map, Value};

/// The keywords whose values are references.
pub(super) const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];

/// How a schema hands on the value that it is given: as it is (in place), or a member or element of it (descending).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    /// The same value, and its types count: `allOf`, `anyOf`, `oneOf`.
    Composed,
    /// The same, of a schema that stands elsewhere: `$ref` and its kin. `enters`: by the name of another document than the one
    /// whose base holds.
    Reference { enters: bool },
    /// The same value otherwise: `not`, `if`, `then`, `else`, dependencies.
    InPlace,
    /// A member of an object, named: at most one edge of this kind and the next applies to a member.
    Member,
    /// A member that is not named: `additionalProperties`.
    OtherMember,
    /// Every member of an object, beside the others: `patternProperties`, `propertyNames`, `unevaluatedProperties`.
    EachMember,
    /// An element of an array, by position: at most one such edge applies to an element.
    Element,
    /// Every element of an array, beside the others: `contains`, `unevaluatedItems`.
    EachElement,
}

impl Edge {
    /// Whether the edge keeps the value that it was given.
    pub(super) fn in_place(self) -> bool {
        self.is_composed() || self == Self::InPlace
    }

    /// Whether the types of the other schema count for this one.
    pub(super) fn is_composed(self) -> bool {
        matches!(self, Self::Composed | Self::Reference { .. })
    }
}

/// One subschema.
#[derive(Debug)]
pub(super) struct Node<'a> {
    /// Its text.
    pub(super) schema: &'a Value,
    /// Where it hands values to: the index of a node.
    pub(super) edges: Vec<(Edge, usize)>,
    /// Which base URI its references have; equal for equal ones.
    pub(super) base: usize,
    /// Bytes of the pointer to it, escapes aside.
    pub(super) location: usize,
}

/// The subschemas that evaluating the root can reach.
#[derive(Debug)]
pub(super) struct Graph<'a> {
    /// The root comes first.
    pub(super) nodes: Vec<Node<'a>>,
    /// Nodes by the addresses of their schemas.
    pub(super) index: HashMap<usize, usize>,
}

impl Graph<'_> {
    /// The node of a subschema, if evaluation can reach it.
    pub(super) fn node_of(&self, schema: &Value) -> Option<usize> {
        self.index.get(&address(schema)).copied()
    }

    /// The nodes in topological order of the in-place edges: each one after all those that it reaches by them.
    ///
    /// # Errors
    ///
    /// The index of a node on a cycle of in-place edges: evaluating it would not end.
    pub(super) fn in_place_order(&self) -> Result<Vec<usize>, usize> {
        let mut search = DepthFirst {
            marks: vec![Mark::New; self.nodes.len()],
            stack: Vec::new(),
            order: Vec::with_capacity(self.nodes.len()),
        };
        for root in 0..self.nodes.len() {
            search.from(root, self)?;
        }
        Ok(search.order)
    }
}

/// A depth-first search along in-place edges; with a stack of its own, as chains of references can be long.
struct DepthFirst {
    marks: Vec<Mark>,
    stack: Vec<Visit>,
    /// Nodes in the order in which they are left.
    order: Vec<usize>,
}

#[derive(Clone, Copy)]
enum Mark {
    New,
    /// Entered and not left: on the path to the node at hand.
    Open,
    Done,
}

enum Visit {
    Enter(usize),
    Leave(usize),
}

impl DepthFirst {
    fn from(&mut self, root: usize, graph: &Graph<'_>) -> Result<(), usize> {
        self.stack.push(Visit::Enter(root));
        while let Some(visit) = self.stack.pop() {
            match visit {
                Visit::Enter(node) => match self.marks[node] {
                    Mark::Done => {}
                    Mark::Open => return Err(node),
                    Mark::New => {
                        self.marks[node] = Mark::Open;
                        self.stack.push(Visit::Leave(node));
                        let in_place = graph.nodes[node].edges.iter().filter(|(edge, _)| edge.in_place());
                        self.stack.extend(in_place.rev().map(|&(_, target)| Visit::Enter(target)));
                    }
                },
                Visit::Leave(node) => {
                    self.marks[node] = Mark::Done;
                    self.order.push(node);
                }
            }
        }
        Ok(())
    }
}

/// What tells a subschema from all others of the document.
pub(super) fn address(schema: &Value) -> usize {
    std::ptr::from_ref(schema).addr()
}

/// Calls `visit` for each subschema in `keywords`, of whichever draft.
pub(super) fn for_each_subschema<'a>(keywords: &'a Map<String, Value>, visit: &mut impl FnMut(Edge, &'a Value)) {
    for (keyword, value) in keywords {
        let edge = match keyword.as_str() {
            "allOf" | "anyOf" | "oneOf" => Edge::Composed,
            "not" | "if" | "then" | "else" | "dependentSchemas" | "dependencies" => Edge::InPlace,
            "properties" => Edge::Member,
            "additionalProperties" => Edge::OtherMember,
            "patternProperties" | "propertyNames" | "unevaluatedProperties" => Edge::EachMember,
            "items" | "prefixItems" | "additionalItems" => Edge::Element,
            "contains" | "unevaluatedItems" => Edge::EachElement,
            _ => continue,
        };
        let named =
            matches!(keyword.as_str(), "properties" | "patternProperties" | "dependentSchemas" | "dependencies");
        match value {
            Value::Object(members) if named => {
                let schemas = members.values().filter(|member| member.is_object() || member.is_boolean());
                schemas.for_each(|member| visit(edge, member));
            }
            Value::Array(items) => items.iter().for_each(|item| visit(edge, item)),
            Value::Object(_) | Value::Bool(_) => visit(edge, value),
            _ => {}
        }
    }
}
