//! The tools that a policy was offered. In: the JSON of a `tools` value; out: tools by name, each with the schema of
//! its arguments. A malformed list is data with a problem, never an error. Knows no call and no text format.
//!
//! An element is `{"type": "function", "function": {"name", "parameters"}}`, the flat form
//! `{"type": "function", "name", "parameters"}`, or a bare `{"name", "parameters" | "input_schema" | "inputSchema"}` (Anthropic, MCP). Elements of
//! another `type` without a name are built-in tools of an API (a web search, say): nothing can call them by name, so
//! they are skipped. Of duplicate names the last one wins, like duplicate keys in JSON.

use std::{collections::HashMap, fmt, sync::Arc};

use serde_json::{Value, value::RawValue};
use thiserror::Error;

use super::{
    offered::{Declared, Offered},
    schema::{Check, Schema, SchemaProblem, bounded, bounded_pointer},
};

/// Longest text of a tool list, in bytes.
pub const MAX_LIST_BYTES: usize = 4 << 20;

/// Most tools in a list.
pub const MAX_TOOLS: usize = 4096;

/// States of the patterns of all schemas in a list: a state is few bytes of text, and takes fifty compiled.
const MAX_PATTERN_STATES: u64 = 1_000_000;

/// What is wrong with a tool list itself; what is wrong with a schema in it shows when the tool is used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("tools{pointer}: {message}")]
pub struct ToolsProblem {
    /// JSON Pointer into the `tools` value, bounded.
    pub pointer: String,
    /// What is wrong, and the fix, bounded: every item of a request has its request's.
    pub message: String,
}

impl ToolsProblem {
    fn new(pointer: impl AsRef<str>, message: impl fmt::Display) -> Self {
        Self { pointer: bounded_pointer(pointer.as_ref()), message: bounded(&message) }
    }
}

/// The tools of one list, by name.
#[derive(Debug, Default)]
pub struct ToolSet {
    /// Sorted by name.
    tools: Box<[Tool]>,
    problem: Option<ToolsProblem>,
    text_bytes: usize,
}

/// One tool.
#[derive(Debug)]
pub struct Tool {
    name: Box<str>,
    pointer: String,
    schema: Option<Arc<Schema>>,
}

impl Tool {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// JSON Pointer of its parameters' schema, from the `tools` value.
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// The schema of its arguments; none if it sets no constraint (rule V1).
    pub fn schema(&self) -> Option<&Arc<Schema>> {
        self.schema.as_ref()
    }

    /// Checks decoded arguments against the schema.
    pub fn check(&self, arguments: &Value) -> Check {
        self.schema.as_ref().map_or(Check::Valid, |schema| schema.check(arguments))
    }

    /// As [`Self::check`], with the work that is `left` for all calls of a trajectory.
    pub fn check_within(&self, arguments: &Value, left: &mut f64) -> Check {
        self.schema.as_ref().map_or(Check::Valid, |schema| schema.check_within(arguments, left))
    }

    /// What makes the schema unusable for any arguments; compiles it if need be.
    pub fn problem(&self) -> Option<&SchemaProblem> {
        self.schema.as_ref().and_then(|schema| schema.problem())
    }
}

impl ToolSet {
    /// No tools.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Reads the text of a `tools` value; `schema` gives the schema of a text.
    ///
    /// The first malformed element becomes the [`problem`](Self::problem); the well-formed ones are kept. `null` is
    /// an empty list.
    pub fn read(text: &str, mut schema: impl FnMut(&str) -> Arc<Schema>) -> Self {
        let mut set = Self { text_bytes: text.len(), ..Self::default() };
        let elements = match elements(text) {
            Ok(elements) => elements,
            Err(problem) => return Self { problem: Some(problem), ..set },
        };
        let mut tools = Vec::with_capacity(elements.len());
        // By text: whether a cache has kept the first must not matter.
        let (mut states, mut counted) = (0, HashMap::<Box<str>, Arc<Schema>>::new());
        let mut schema = |text: &str| {
            let schema = schema(text);
            let more = schema.pattern_states();
            if more == 0 {
                return schema;
            }
            if let Some(known) = counted.get(text) {
                return Arc::clone(known);
            }
            if states + more > MAX_PATTERN_STATES {
                let message = "with it the patterns of the tools expand to more than 1000000 states; simplify them";
                return Arc::new(schema.unsupported(message));
            }
            states += more;
            counted.insert(text.into(), Arc::clone(&schema));
            schema
        };
        for (position, element) in elements.into_iter().enumerate() {
            match tool(position, element, &mut schema) {
                Ok(tool) => tools.extend(tool),
                Err(problem) => {
                    set.problem.get_or_insert(problem);
                }
            }
        }
        // Stable, and from the last one on: the first of equal names is then the last of the list.
        tools.reverse();
        tools.sort_by(|one: &Tool, other| one.name.cmp(&other.name));
        tools.dedup_by(|later, kept| later.name == kept.name);
        set.tools = tools.into();
        set
    }

    /// The tool of exactly this name.
    pub fn get(&self, name: &str) -> Option<&Tool> {
        let position = self.tools.binary_search_by(|tool| (*tool.name).cmp(name)).ok()?;
        self.tools.get(position)
    }

    /// The tools, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Tool> {
        self.tools.iter()
    }

    /// How many tools there are.
    pub fn len(&self) -> usize {
        self.tools.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }

    /// What is wrong with the list itself.
    pub fn problem(&self) -> Option<&ToolsProblem> {
        self.problem.as_ref()
    }

    /// Bytes that the set keeps alive, roughly; a schema that others hold as well counts by its share.
    pub fn weight_bytes(&self) -> usize {
        let share = |schema: &Arc<Schema>| schema.weight_bytes() / Arc::strong_count(schema).max(1);
        let tool_bytes = |tool: &Tool| 128 + tool.schema.as_ref().map_or(0, share);
        self.tools.iter().map(tool_bytes).fold(self.text_bytes, usize::saturating_add)
    }
}

impl Offered for ToolSet {
    fn offers(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn declared(&self, tool: &str, parameter: &str) -> Declared {
        let schema = self.get(tool).and_then(Tool::schema);
        schema.map_or(Declared::EMPTY, |schema| schema.declared(parameter))
    }
}

fn elements(text: &str) -> Result<Vec<&RawValue>, ToolsProblem> {
    if text.len() > MAX_LIST_BYTES {
        let message = format!("the list has {} bytes; at most {MAX_LIST_BYTES} are read", text.len());
        return Err(ToolsProblem::new("", message));
    }
    let elements: Option<Vec<&RawValue>> = serde_json::from_str(text).map_err(|error| {
        ToolsProblem::new("", format_args!("give a JSON array; this is not a list of tools: {error}"))
    })?;
    let elements = elements.unwrap_or_default();
    if elements.len() > MAX_TOOLS {
        let message = format!("the list has {} tools; at most {MAX_TOOLS} are read", elements.len());
        return Err(ToolsProblem::new("", message));
    }
    Ok(elements)
}

type Members<'a> = HashMap<String, &'a RawValue>;

/// Reads one element; none if it is a built-in tool.
fn tool(
    position: usize,
    element: &RawValue,
    schema: &mut impl FnMut(&str) -> Arc<Schema>,
) -> Result<Option<Tool>, ToolsProblem> {
    let mut pointer = format!("/{position}");
    let mut members = members(element).ok_or_else(|| ToolsProblem::new(&pointer, "a tool is an object"))?;
    let built_in = members.get("type").is_some_and(|kind| kind.get() != "\"function\"");
    if let Some(function) = members.get("function").copied() {
        pointer += "/function";
        let inner = self::members(function);
        members = inner.ok_or_else(|| ToolsProblem::new(&pointer, "function is an object with a name"))?;
    } else if built_in && !members.contains_key("name") {
        return Ok(None);
    }
    let name = members.get("name").ok_or_else(|| ToolsProblem::new(&pointer, "the tool has no name"))?;
    let name: Option<String> = serde_json::from_str(name.get()).ok();
    let name = name.filter(|name| !name.is_empty());
    let name =
        name.ok_or_else(|| ToolsProblem::new(format!("{pointer}/name"), "the name is not a string, or it is empty"))?;
    let keys = ["parameters", "input_schema", "inputSchema"];
    let given = keys.iter().find_map(|key| Some((key, members.get(*key).filter(|text| text.get() != "null")?)));
    let key = given.map_or("parameters", |(key, _)| key);
    let schema = given.map(|(_, text)| schema(text.get()));
    Ok(Some(Tool { name: name.into(), pointer: format!("{pointer}/{key}"), schema }))
}

/// The members of an object; the last one of a key counts.
fn members(object: &RawValue) -> Option<Members<'_>> {
    serde_json::from_str(object.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolcall::schema::{Formats, ProblemCode};
    use serde_json::json;

    fn read(list: &Value) -> ToolSet {
        ToolSet::read(&list.to_string(), |text| Arc::new(Schema::new(text, Formats::Annotate)))
    }

    fn pointer_of_problem(list: &Value) -> Option<String> {
        read(list).problem().map(|problem| problem.pointer.clone())
    }

    #[test]
    fn g6_all_three_forms_are_read() {
        let schema = json!({"type": "object", "required": ["q"]});
        let set = read(&json!([
            {"type": "function", "function": {"name": "a", "parameters": schema}},
            {"type": "function", "name": "b", "parameters": schema},
            {"name": "c", "input_schema": schema},
            {"name": "d", "parameters": schema},
            {"name": "e", "inputSchema": schema},
        ]));
        assert_eq!(set.problem(), None);
        let pointers =
            ["/0/function/parameters", "/1/parameters", "/2/input_schema", "/3/parameters", "/4/inputSchema"];
        for (name, pointer) in ["a", "b", "c", "d", "e"].into_iter().zip(pointers) {
            let tool = set.get(name).expect(name);
            assert_eq!((tool.name(), tool.pointer()), (name, pointer));
            assert_eq!(tool.check(&json!({"q": 1})), Check::Valid);
            assert!(matches!(tool.check(&json!({})), Check::Invalid(_)));
        }
        assert!(set.offers("a") && !set.offers("A") && !set.offers("f"));
    }

    #[test]
    fn v1_no_parameters_is_no_constraint() {
        let set = read(&json!([{"name": "a"}, {"name": "b", "parameters": null}, {"name": "c", "parameters": true},
            {"name": "d", "parameters": false}, {"name": "e", "parameters": {}}]));
        for name in ["a", "b", "c", "e"] {
            assert_eq!(set.get(name).expect(name).check(&json!({"x": [1]})), Check::Valid);
        }
        assert!(matches!(set.get("d").expect("d").check(&json!({})), Check::Invalid(_)));
    }

    #[test]
    fn g6_the_last_of_duplicate_names_wins() {
        let set = read(&json!([{"name": "a", "parameters": false}, {"name": "b"}, {"name": "a", "parameters": true}]));
        assert_eq!(set.len(), 2);
        assert_eq!(set.get("a").expect("a").pointer(), "/2/parameters");
        let text = r#"[{"name": "x", "name": "y", "parameters": false, "parameters": true}]"#;
        let set = ToolSet::read(text, |text| Arc::new(Schema::new(text, Formats::Annotate)));
        assert_eq!(set.get("y").expect("y").check(&json!({})), Check::Valid);
    }

    #[test]
    fn malformed_lists_say_where() {
        assert_eq!(pointer_of_problem(&json!([])), None);
        assert_eq!(pointer_of_problem(&json!(null)), None);
        assert_eq!(pointer_of_problem(&json!({})).as_deref(), Some(""));
        assert_eq!(pointer_of_problem(&json!("tools")).as_deref(), Some(""));
        assert_eq!(pointer_of_problem(&json!([{"name": "a"}, 1])).as_deref(), Some("/1"));
        assert_eq!(pointer_of_problem(&json!([{}])).as_deref(), Some("/0"));
        assert_eq!(pointer_of_problem(&json!([{"type": "function"}])).as_deref(), Some("/0"));
        assert_eq!(pointer_of_problem(&json!([{"type": "function", "function": 1}])).as_deref(), Some("/0/function"));
        assert_eq!(pointer_of_problem(&json!([{"function": {}}])).as_deref(), Some("/0/function"));
        let nameless = json!([{"name": "a"}, {"function": {"name": ""}}]);
        assert_eq!(pointer_of_problem(&nameless).as_deref(), Some("/1/function/name"));
        assert_eq!(pointer_of_problem(&json!([{"name": 1}])).as_deref(), Some("/0/name"));
        assert!(read(&json!([{}, {"name": "kept"}])).offers("kept"));
        assert_eq!(pointer_of_problem(&json!([{"type": "web_search"}])), None);
        for text in ["", "[", "[{\"name\": \"a\"},]", "[] []", "[{\"name\": \"\\ud800\"}]"] {
            let set = ToolSet::read(text, |text| Arc::new(Schema::new(text, Formats::Annotate)));
            assert!(set.problem().is_some(), "{text}");
        }
    }

    #[test]
    fn a_list_of_another_type_is_not_quoted_whole() {
        let text = json!("z".repeat(1 << 20)).to_string();
        let set = ToolSet::read(&text, |text| Arc::new(Schema::new(text, Formats::Annotate)));
        assert!(set.problem().is_some_and(|problem| problem.message.len() < 400), "{:?}", set.problem());
    }

    #[test]
    fn v3_the_patterns_of_a_list_are_bounded_together() {
        let schema = |number: usize| json!({"properties": {"q": {"pattern": format!("^(?:[a-z]{number}){{10000}}$")}}});
        let tool = |number: usize| json!({"name": number.to_string(), "parameters": schema(number)});
        let states = Schema::new(&schema(100).to_string(), Formats::Annotate).pattern_states();
        let fit = usize::try_from(MAX_PATTERN_STATES / states).expect("few");
        assert!((10..100).contains(&fit), "{fit}");
        let mut list: Vec<Value> = (100..103 + fit).map(tool).collect();
        list.push(json!({"name": "again", "parameters": schema(100)}));
        list.push(json!({"name": "plain", "parameters": {"properties": {"q": {"type": "string"}}}}));
        let set = read(&json!(list));
        let refused: Vec<&str> = set.iter().filter(|tool| tool.problem().is_some()).map(Tool::name).collect();
        assert_eq!(refused, (100 + fit..103 + fit).map(|number| number.to_string()).collect::<Vec<_>>());
        let problem = set.get(refused[0]).and_then(Tool::problem).expect("a problem");
        assert_eq!(problem.code, ProblemCode::Unsupported);
        assert!(problem.message.contains("1000000 states"), "{problem}");
    }

    #[test]
    fn a_schema_that_is_none_is_the_tools_problem() {
        let set = read(&json!([{"name": "a", "parameters": "object"}, {"name": "b", "parameters": [1]}]));
        assert_eq!(set.problem(), None);
        for name in ["a", "b"] {
            let problem = set.get(name).expect(name).problem().expect("a problem");
            assert_eq!(problem.code, ProblemCode::Invalid);
        }
    }

    #[test]
    fn many_tools_are_found() {
        let tools: Vec<_> = (0..1000).map(|number| json!({"name": format!("tool_{number}")})).collect();
        let set = read(&json!(tools));
        assert_eq!(set.len(), 1000);
        assert!((0..1000).all(|number| set.offers(&format!("tool_{number}"))));
        let tools: Vec<_> = (0..=MAX_TOOLS).map(|number| json!({"name": number.to_string()})).collect();
        assert!(read(&json!(tools)).problem().is_some());
        assert!(ToolSet::empty().is_empty());
    }
}
