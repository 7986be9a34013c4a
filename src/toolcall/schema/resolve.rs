//! From a parsed schema to its graph, with every reference resolved inside the document. In: the schema and its draft; out: a
//! [`Graph`] of what evaluation can reach from the root, or the reference that leads nowhere. Fetches nothing.
//!
//! A dynamic reference gets an edge to each anchor that it could mean, so that the edges are a superset of those that a validator
//! follows.

use std::{collections::HashMap, error::Error, sync::Arc};

use jsonschema::{Draft, Registry, Retrieve, Uri};
use serde_json::Value;

use super::SchemaProblem;
use super::graph::{Edge, Graph, Node, REFERENCES, address, for_each_subschema};
use super::locate::pointer_to;

/// Base URI of a schema without `$id`, as the validator names it.
const DEFAULT_BASE: &str = "json-schema:///";

/// Most subschemas of one schema; a compiled one takes about 600 bytes.
const MAX_SUBSCHEMAS: usize = 40_000;

/// Most pairs of a dynamic reference and an anchor that it may mean.
const MAX_DYNAMIC_EDGES: usize = 10_000;

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
    let mut builder = Builder::new(schema, draft, &registry, base);
    builder.survey(schema, 0, 0);
    builder.node(schema);
    // Connecting a node appends those that it is the first to reach.
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
    /// Nodes by the addresses of their schemas.
    index: HashMap<usize, usize>,
}

impl<'a, 'r> Builder<'a, 'r> {
    fn new(root: &'a Value, draft: Draft, registry: &'r Registry<'r>, base: Uri<String>) -> Self {
        Self {
            root,
            draft,
            registry,
            owned: HashMap::new(),
            anchors: Vec::new(),
            nodes: Vec::new(),
            base_index: HashMap::from([(base.as_str().to_owned(), 0)]),
            bases: vec![Arc::new(base)],
            dynamic_edges: 0,
            index: HashMap::new(),
        }
    }

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

    /// The node of a subschema: the one that it has, or a new one.
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

    /// Gives a node its edges.
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

    /// Adds the edges of a reference at `node`.
    fn follow(
        &mut self,
        keyword: &str,
        reference: &str,
        node: usize,
        edges: &mut Vec<(Edge, usize)>,
    ) -> Result<(), SchemaProblem> {
        let schema = self.nodes[node].schema;
        let (target, enters) = self
            .target(reference, self.nodes[node].base)
            .map_err(|message| SchemaProblem::invalid(message, pointer_to(self.root, schema) + "/" + keyword))?;
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

    /// What a reference below this base leads to, and whether it enters another document; or why it leads nowhere.
    fn target(&self, reference: &str, base: usize) -> Result<(&'a Value, bool), String> {
        let resolver = self.registry.resolver(self.bases[base].as_ref().clone());
        // Looked up from inside its document, a reference tells by its scope whether it enters another one.
        let inside = resolver.lookup("#").map_or(resolver, |document| document.resolver().clone());
        let documents = inside.dynamic_scope().iter().count();
        let resolved = inside.lookup(reference).map_err(|error| clear(&error))?;
        let enters = resolved.resolver().dynamic_scope().iter().count() > documents;
        match self.owned.get(&address(resolved.contents())) {
            Some(target) => Ok((target.value, enters)),
            None => Err(format!("{reference} is outside the schema and never fetched; use a local reference")),
        }
    }
}
