//! A schema as a graph: its subschemas, and how each one hands the value, or a part of it, to others. In: a parsed
//! schema; out: nodes with typed edges, `$ref`s resolved inside the document. Evaluates nothing and fetches nothing.
//!
//! Edges are a superset of what a validator follows: keywords of every draft count, and a dynamic reference leads to
//! each anchor that could be meant. What holds for the graph then holds for the evaluation.

use std::{collections::HashMap, error::Error, sync::Arc};

use jsonschema::{Draft, Registry, Retrieve, Uri};
use serde_json::{Map, Value};

use super::{SchemaProblem, locate::pointer_to};

/// Base URI of a schema without `$id`, as the validator names it.
const DEFAULT_BASE: &str = "json-schema:///";

/// Most subschemas of one schema; a compiled one takes about 600 bytes.
const MAX_SUBSCHEMAS: usize = 40_000;

/// Most pairs of a dynamic reference and an anchor that it may mean.
const MAX_DYNAMIC_EDGES: usize = 10_000;

/// How a schema hands on the value that it is given.
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

/// The subschemas that evaluating the first one can reach.
#[derive(Debug)]
pub(super) struct Graph<'a> {
    /// The root comes first.
    pub(super) nodes: Vec<Node<'a>>,
    index: HashMap<usize, usize>,
}

impl Graph<'_> {
    /// The node of a subschema, if evaluation can reach it.
    pub(super) fn node_of(&self, schema: &Value) -> Option<usize> {
        self.index.get(&address(schema)).copied()
    }

    /// The nodes ordered so that those reached in place come before the nodes that reach them.
    ///
    /// # Errors
    ///
    /// The index of a node that reaches itself in place: evaluating it would not end.
    pub(super) fn in_place_order(&self) -> Result<Vec<usize>, usize> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; self.nodes.len()];
        let mut order = Vec::with_capacity(self.nodes.len());
        for start in 0..self.nodes.len() {
            // The path of the walk: a node, and how many of its edges were taken. No recursion: chains can be long.
            let mut path = vec![(start, 0_usize)];
            while let Some((node, taken)) = path.pop() {
                if taken == 0 {
                    if marks[node] == Mark::Done {
                        continue;
                    }
                    marks[node] = Mark::Open;
                }
                let Some(&(edge, target)) = self.nodes[node].edges.get(taken) else {
                    marks[node] = Mark::Done;
                    order.push(node);
                    continue;
                };
                path.push((node, taken + 1));
                if edge.in_place() {
                    match marks[target] {
                        Mark::Open => return Err(target),
                        Mark::New => path.push((target, 0)),
                        Mark::Done => {}
                    }
                }
            }
        }
        Ok(order)
    }
}

/// Refuses to fetch: whatever is not in the schema itself is out of reach.
pub(super) struct NoFetch;

impl Retrieve for NoFetch {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn Error + Send + Sync>> {
        Err(format!("{uri} is outside the schema and never fetched").into())
    }
}

/// Builds the graph of `schema`, read as `draft`.
///
/// # Errors
///
/// A reference that leads out of the schema or to nothing, or too many subschemas.
pub(super) fn build(schema: &Value, draft: Draft) -> Result<Graph<'_>, SchemaProblem> {
    let resource = draft.create_resource_ref(schema);
    let base = resource.id().unwrap_or(DEFAULT_BASE);
    let unusable = |error: jsonschema::ReferencingError| SchemaProblem::invalid(unclear(schema, &error), String::new());
    let base = jsonschema::uri::from_str(base.trim_end_matches('#')).map_err(unusable)?;
    let registry = Registry::new()
        .retriever(NoFetch)
        .draft(draft)
        .add(base.as_str(), resource)
        .and_then(jsonschema::RegistryBuilder::prepare)
        .map_err(unusable)?;
    let mut builder = Builder {
        root: schema,
        draft,
        registry: &registry,
        owned: HashMap::new(),
        anchors: Vec::new(),
        nodes: Vec::new(),
        base_index: HashMap::from([(base.as_str().to_owned(), 0)]),
        bases: vec![Arc::new(base)],
        index: HashMap::new(),
        dynamic_edges: 0,
    };
    builder.survey(schema, 0, 0);
    builder.node(schema);
    let mut next = 0;
    while next < builder.nodes.len() {
        builder.connect(next)?;
        next += 1;
        if builder.nodes.len() > MAX_SUBSCHEMAS {
            return Err(SchemaProblem::unsupported("the schema has more than 40000 subschemas; use fewer", ""));
        }
    }
    Ok(Graph { nodes: builder.nodes, index: builder.index })
}

/// The keywords whose values are references.
pub(super) const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];

/// What a registry that could not be made says: of several references that lead elsewhere it names any, now this one and
/// now that, and a report must not change from run to run.
fn unclear(schema: &Value, error: &jsonschema::ReferencingError) -> String {
    let mut elsewhere = Vec::new();
    if matches!(error, jsonschema::ReferencingError::Unretrievable { .. }) {
        references_elsewhere(schema, &mut elsewhere);
    }
    match elsewhere.as_slice() {
        [] | [_] => clear(error),
        several => {
            let several = several.iter().map(|reference| format!("`{reference}`")).collect::<Vec<_>>();
            format!("a reference does not resolve inside the schema, and nothing is fetched: {}", several.join(" or "))
        }
    }
}

/// The first references that do not stay in the document, each once, in its order.
fn references_elsewhere<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| references_elsewhere(item, found)),
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(reference) if REFERENCES.contains(&name.as_str()) => {
                        if found.len() < 4 && !reference.starts_with('#') && !found.contains(&reference.as_str()) {
                            found.push(reference);
                        }
                    }
                    _ => references_elsewhere(member, found),
                }
            }
        }
        _ => {}
    }
}

/// The first line of a resolver's error, which repeats the whole reference.
fn clear(error: &jsonschema::ReferencingError) -> String {
    format!("a reference does not resolve inside the schema, and nothing is fetched: {error}")
}

fn address(schema: &Value) -> usize {
    std::ptr::from_ref(schema).addr()
}

/// A subschema that a dynamic reference can mean.
struct Anchor<'a> {
    /// None for `$recursiveAnchor`.
    name: Option<&'a str>,
    schema: &'a Value,
}

/// A value of the document.
#[derive(Clone, Copy)]
struct Owned<'a> {
    value: &'a Value,
    base: usize,
    location: usize,
}

struct Builder<'a, 'r> {
    root: &'a Value,
    draft: Draft,
    registry: &'r Registry<'r>,
    /// Every value of the document by its address, which is what a reference may lead to.
    owned: HashMap<usize, Owned<'a>>,
    anchors: Vec<Anchor<'a>>,
    nodes: Vec<Node<'a>>,
    /// The base URIs, each once, and where each stands among them.
    bases: Vec<Arc<Uri<String>>>,
    base_index: HashMap<String, usize>,
    /// Edges to what dynamic references may mean.
    dynamic_edges: usize,
    index: HashMap<usize, usize>,
}

impl<'a> Builder<'a, '_> {
    /// Collects every value and dynamic anchor of the document; as deep as the text, which the parser bounds.
    fn survey(&mut self, value: &'a Value, base: usize, location: usize) {
        let base = if value.is_object() { self.base_within(value, base) } else { base };
        self.owned.insert(address(value), Owned { value, base, location });
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.survey(item, base, location + 4)),
            Value::Object(members) => {
                if let Some(name) = members.get("$dynamicAnchor").and_then(Value::as_str) {
                    self.anchors.push(Anchor { name: Some(name), schema: value });
                }
                if members.get("$recursiveAnchor") == Some(&Value::Bool(true)) {
                    self.anchors.push(Anchor { name: None, schema: value });
                }
                members.iter().for_each(|(name, member)| self.survey(member, base, location + name.len() + 1));
            }
            _ => {}
        }
    }

    /// The base URI inside `schema`, which may name its own.
    fn base_within(&mut self, schema: &Value, base: usize) -> usize {
        let resource = self.draft.detect(schema).create_resource_ref(schema);
        if std::ptr::eq(schema, self.root) || resource.id().is_none() {
            return base;
        }
        let inside = self.registry.resolver(self.bases[base].as_ref().clone()).in_subresource(resource);
        let Ok(inside) = inside.map(|resolver| resolver.base_uri()) else { return base };
        let bases = &mut self.bases;
        *self.base_index.entry(inside.as_str().to_owned()).or_insert_with(|| {
            bases.push(inside);
            bases.len() - 1
        })
    }

    fn node(&mut self, schema: &'a Value) -> usize {
        if let Some(&known) = self.index.get(&address(schema)) {
            return known;
        }
        let (base, location) = self.owned.get(&address(schema)).map_or((0, 0), |owned| (owned.base, owned.location));
        let position = self.nodes.len();
        self.nodes.push(Node { schema, edges: Vec::new(), base, location });
        self.index.insert(address(schema), position);
        position
    }

    fn connect(&mut self, node: usize) -> Result<(), SchemaProblem> {
        let schema = self.nodes[node].schema;
        let Value::Object(keywords) = schema else { return Ok(()) };
        let mut edges = Vec::new();
        for_each_subschema(keywords, &mut |edge, child| edges.push((edge, self.node(child))));
        for keyword in REFERENCES {
            if let Some(reference) = keywords.get(keyword).and_then(Value::as_str) {
                self.follow(keyword, reference, node, &mut edges)?;
            }
        }
        self.nodes[node].edges = edges;
        Ok(())
    }

    fn follow(
        &mut self,
        keyword: &str,
        reference: &str,
        node: usize,
        edges: &mut Vec<(Edge, usize)>,
    ) -> Result<(), SchemaProblem> {
        let Node { schema, base, .. } = self.nodes[node];
        let problem = |message: String| SchemaProblem::invalid(message, pointer_to(self.root, schema) + "/" + keyword);
        let resolver = self.registry.resolver(self.bases[base].as_ref().clone());
        // Looked up from inside its document, a reference tells by its scope whether it enters another one.
        let inside = resolver.lookup("#").map_or(resolver, |document| document.resolver().clone());
        let documents = inside.dynamic_scope().iter().count();
        let resolved = inside.lookup(reference).map_err(|error| problem(clear(&error)))?;
        let enters = resolved.resolver().dynamic_scope().iter().count() > documents;
        let Some(&Owned { value: target, .. }) = self.owned.get(&address(resolved.contents())) else {
            return Err(problem(format!("{reference} is outside the schema and never fetched; use a local reference")));
        };
        edges.push((Edge::Reference { enters }, self.node(target)));
        if keyword == "$ref" {
            return Ok(());
        }
        let name = (keyword == "$dynamicRef").then(|| reference.rsplit_once('#').map_or("", |(_, name)| name));
        let meant: Vec<_> =
            self.anchors.iter().filter(|anchor| anchor.name == name).map(|anchor| anchor.schema).collect();
        self.dynamic_edges += meant.len();
        if self.dynamic_edges > MAX_DYNAMIC_EDGES {
            let message = "dynamic references may lead to too many anchors; use $ref, or fewer anchors";
            return Err(SchemaProblem::unsupported(message, pointer_to(self.root, schema)));
        }
        for target in meant {
            edges.push((Edge::Reference { enters: true }, self.node(target)));
        }
        Ok(())
    }
}

/// Calls `visit` for each subschema in `keywords`, of whichever draft.
fn for_each_subschema<'a>(keywords: &'a Map<String, Value>, visit: &mut impl FnMut(Edge, &'a Value)) {
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
