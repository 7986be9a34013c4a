//! What a trainer's dataset says is right: a string, a number, a list, an object, or an object as a string. In: raw JSON.
//! Out: raw JSON of the native fields. Whatever is odd is handed on as it is, so that the native reader says what is wrong
//! with it. Knows no dialect.

use std::borrow::Cow;

use super::fields::{Parts, Value};

/// What a label says, every field raw JSON.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Label<'b> {
    /// Acceptable answers.
    pub(super) references: Option<Cow<'b, str>>,
    /// Calls that a right trajectory makes.
    pub(super) reference_calls: Option<Cow<'b, str>>,
    /// The tools that were offered.
    pub(super) tools: Option<Cow<'b, str>>,
    /// The group's name.
    pub(super) group: Option<Cow<'b, str>>,
    /// How many rollouts the group has.
    pub(super) group_size: Option<usize>,
}

/// Levels of a label that are looked into: itself, and the object that its answers may be.
pub(super) const DEPTH: usize = 2;

/// Keys of what is right, the first that there is.
const ANSWERS: [&str; 8] =
    ["references", "golds", "ground_truth", "target", "answer", "answers", "expected_answer", "golden_answers"];

impl<'b> Label<'b> {
    /// Reads a label; none, and `null`, say nothing. An object's fields must have been taken apart, and those of the object
    /// that its answers may be.
    pub(super) fn read(label: Option<Value<'_, 'b>>) -> Self {
        match label {
            None => Self::default(),
            Some(label) if label.raw().starts_with('{') => {
                Self::of_object(label).unwrap_or_else(|| Self::answers(label.raw()))
            }
            Some(label) => Self::of_raw(label.raw()),
        }
    }

    /// Reads a label that was not looked into.
    pub(super) fn of_raw(raw: &'b str) -> Self {
        let found = match raw.as_bytes().first() {
            Some(b'n') | None => Some(Self::default()),
            Some(b'{') => Parts::read(raw, DEPTH).ok().and_then(|parts| Self::of_object(parts.value(raw))),
            Some(b'"') if begins_as_object(raw) => Self::of_string(raw),
            _ => None,
        };
        found.unwrap_or_else(|| Self::answers(raw))
    }

    fn answers(raw: &'b str) -> Self {
        Self { references: Some(Cow::Borrowed(raw)), ..Self::default() }
    }

    /// `None` where the object has none of the known keys.
    pub(super) fn of_object(object: Value<'_, 'b>) -> Option<Self> {
        let first = |names: &[&str]| object.first(names).map(Value::raw).map(Cow::Borrowed);
        let answers = object.first(&ANSWERS);
        let label = Self {
            references: answers.map(Value::raw).map(Cow::Borrowed),
            reference_calls: first(&["reference_calls"]),
            tools: first(&["tools"]),
            group: first(&["group", "group_id"]),
            group_size: object.raw_of("group_size").and_then(|size| size.parse().ok()),
        };
        match answers {
            // verl's search data nests them: {"ground_truth": {"target": [..]}}.
            Some(inner) if inner.raw().starts_with('{') => Some(label.with_inner(inner)),
            _ => (label != Self::default()).then_some(label),
        }
    }

    fn with_inner(self, inner: Value<'_, 'b>) -> Self {
        let inner = Self::of_object(inner).unwrap_or_else(|| Self::answers(inner.raw()));
        Self {
            references: inner.references,
            reference_calls: self.reference_calls.or(inner.reference_calls),
            tools: self.tools.or(inner.tools),
            group: self.group.or(inner.group),
            group_size: self.group_size.or(inner.group_size),
        }
    }

    /// An object that was written as a string.
    fn of_string(raw: &'b str) -> Option<Self> {
        let text: String = serde_json::from_str(raw).ok()?;
        let parts = Parts::read(&text, DEPTH).ok()?;
        Label::of_object(parts.object(&text).ok()?).map(Label::into_owned)
    }

    fn into_owned<'o>(self) -> Label<'o> {
        let own = |text: Option<Cow<'_, str>>| text.map(|text| Cow::Owned(text.into_owned()));
        Label {
            references: own(self.references),
            reference_calls: own(self.reference_calls),
            tools: own(self.tools),
            group: own(self.group),
            group_size: self.group_size,
        }
    }

    /// This label, completed by another one.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            references: self.references.or(other.references),
            reference_calls: self.reference_calls.or(other.reference_calls),
            tools: self.tools.or(other.tools),
            group: self.group.or(other.group),
            group_size: self.group_size.or(other.group_size),
        }
    }
}

/// Whether a raw JSON string's text begins with a brace.
fn begins_as_object(raw: &str) -> bool {
    raw.get(1..).is_some_and(|text| text.trim_start().starts_with('{'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &str) -> Label<'_> {
        let parts = Parts::read(raw, DEPTH).unwrap();
        let label = Label::read(Some(parts.value(raw)));
        assert_eq!(label, Label::of_raw(raw), "looked into before or not");
        label
    }

    fn references(raw: &str) -> Option<String> {
        read(raw).references.map(Cow::into_owned)
    }

    #[test]
    fn labels_as_str_num_list_dict_and_json_string() {
        let found = |raw: &str| references(raw).unwrap();
        assert_eq!(found("\"Paris\""), "\"Paris\"");
        assert_eq!(found("42"), "42");
        assert_eq!(found("true"), "true");
        assert_eq!(found("[\"Paris\", 7]"), "[\"Paris\", 7]");
        assert_eq!(found("{\"ground_truth\": \"Paris\"}"), "\"Paris\"");
        assert_eq!(found("{\"ground_truth\": {\"target\": [\"Paris\"]}}"), "[\"Paris\"]");
        assert_eq!(found(r#""{\"references\": [\"Paris\"]}""#), "[\"Paris\"]");
        for key in ANSWERS {
            assert_eq!(found(&format!("{{\"{key}\": \"Paris\"}}")), "\"Paris\"", "{key}");
        }
        assert_eq!(found(r#"" {\"references\": [\"Paris\"]}""#), "[\"Paris\"]");
        assert_eq!(references("null"), None);
    }

    #[test]
    fn a_label_may_bring_tools_calls_and_the_group() {
        let raw = r#"{"ground_truth": "Paris", "tools": [], "group_id": 7, "group_size": 4, "reference_calls": []}"#;
        let written = serde_json::to_string(raw).unwrap();
        for raw in [raw, &written] {
            let label = read(raw);
            assert_eq!((label.tools.as_deref(), label.group.as_deref()), (Some("[]"), Some("7")));
            assert_eq!((label.group_size, label.reference_calls.as_deref()), (Some(4), Some("[]")));
        }
        // In the object that its answers are, too; what stands outside wins.
        let label =
            read(r#"{"ground_truth": {"target": "Paris", "tools": [], "group": 7, "group_size": 4}, "group_id": 8}"#);
        assert_eq!((label.references.as_deref(), label.tools.as_deref()), (Some("\"Paris\""), Some("[]")));
        assert_eq!((label.group.as_deref(), label.group_size), (Some("8"), Some(4)));
        let label = read(r#"{"ground_truth": {"target": "Paris", "group": 7}}"#);
        assert_eq!(label.group.as_deref(), Some("7"));
    }

    #[test]
    fn a_text_that_only_looks_like_an_object_is_an_answer() {
        assert_eq!(references(r#""{x}""#).unwrap(), r#""{x}""#);
        assert_eq!(references(r#""{\"colour\": \"red\"}""#).unwrap(), r#""{\"colour\": \"red\"}""#);
        // An object is no answer; the native reader says so.
        assert_eq!(references("{\"colour\": \"red\"}").unwrap(), "{\"colour\": \"red\"}");
    }
}
