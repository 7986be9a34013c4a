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

/// Keys of what is right, the first that there is. The Python package has the same, in the same order (`LABEL_KEYS`): both are
/// tested with `tests/cases/labels.json`.
const ANSWERS: &[&str] = COLUMNS.split_at(8).0;

/// The same where data sets have columns instead of a label, of which one may be called so.
pub(super) const COLUMNS: &[&str] = &[
    "references",
    "golds",
    "ground_truth",
    "target",
    "answer",
    "answers",
    "expected_answer",
    "golden_answers",
    "solution",
    "label",
];

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
        let answers = object.first(ANSWERS);
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

    /// The cases that the Python package reads, too.
    #[test]
    fn labels_are_read_as_the_cases_say() {
        type Json = serde_json::Value;
        let cases: Vec<Json> = serde_json::from_str(include_str!("../../../tests/cases/labels.json")).unwrap();
        assert!(cases.len() > 20);
        for case in cases {
            let text = case["label"].to_string();
            let label = read(&text);
            let parsed = |raw: &Cow<'_, str>| serde_json::from_str::<Json>(raw).unwrap();
            // The native reader takes one answer for a list of it.
            let listed = |raw: &Cow<'_, str>| match parsed(raw) {
                one @ (Json::String(_) | Json::Number(_) | Json::Bool(_)) => Json::from(vec![one]),
                value => value,
            };
            let fields = [
                ("references", label.references.as_ref().map(listed)),
                ("reference_calls", label.reference_calls.as_ref().map(parsed)),
                ("tools", label.tools.as_ref().map(parsed)),
                ("group", label.group.as_ref().map(parsed)),
                ("group_size", label.group_size.map(Json::from)),
            ];
            let found = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
            assert_eq!(Json::Object(found.collect()), case["read"], "{}", case["name"]);
        }
    }
}
