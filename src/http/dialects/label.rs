//! What a trainer's dataset says is right: a string, a number, a list, an object, or an object as a string. In: raw JSON.
//! Out: raw JSON of the native fields. Whatever is odd is handed on as it is, so that the native reader says what is wrong
//! with it. Knows no dialect.

use std::borrow::Cow;

use super::fields::{Parts, Value};
use crate::http::wire::{Whole, excerpt};

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
    /// What is wrong with it, where the native reader cannot see that.
    pub(super) fault: Option<String>,
}

const GROUP_SIZE: &str = "group_size";

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
    fn of_object(object: Value<'_, 'b>) -> Option<Self> {
        let answers = object.first(ANSWERS);
        let beside = Self::beside(object);
        match answers {
            // verl's search data nests them: {"ground_truth": {"target": [..]}}.
            Some(inner) if inner.raw().starts_with('{') => {
                Some(beside.or(Self::of_object(inner).unwrap_or_else(|| Self::answers(inner.raw()))))
            }
            Some(answers) => Some(beside.or(Self::answers(answers.raw()))),
            None => (beside != Self::default()).then_some(beside),
        }
    }

    /// Reads an object whose fields are those of a label: the answers may be a label themselves.
    pub(super) fn of_fields(object: Value<'_, 'b>) -> Self {
        let answers = object.first(ANSWERS).map(|answers| Self::of_raw(answers.raw()));
        Self::beside(object).or(answers.unwrap_or_default())
    }

    /// What stands beside the answers.
    fn beside(object: Value<'_, 'b>) -> Self {
        let first = |name: &str| object.raw_of(name).map(Cow::Borrowed);
        let group = Self::of_group(object, &["group", "group_id"]);
        Self { reference_calls: first("reference_calls"), tools: first("tools"), ..group }
    }

    /// The group, which has one of these names, and its size.
    pub(super) fn of_group(object: Value<'_, 'b>, names: &[&str]) -> Self {
        let size = object.raw_of(GROUP_SIZE).map(|raw| size_of(GROUP_SIZE, raw)).transpose();
        let (group_size, fault) = size.map_or_else(|wrong| (None, Some(wrong)), |size| (size, None));
        Self { group: object.first(names).map(Value::raw).map(Cow::Borrowed), group_size, fault, ..Self::default() }
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
            fault: self.fault,
        }
    }

    /// This label, completed by another one.
    pub(super) fn or(self, other: Self) -> Self {
        let group_size = self.group_size.or(other.group_size);
        Self {
            references: self.references.or(other.references),
            reference_calls: self.reference_calls.or(other.reference_calls),
            tools: self.tools.or(other.tools),
            group: self.group.or(other.group),
            group_size,
            // A size that is none is at fault only where there is no other.
            fault: self.fault.or(other.fault).filter(|_| group_size.is_none()),
        }
    }
}

/// Whether a raw JSON string's text may begin with a brace: what white space and a brace may be written with are these escapes.
fn begins_as_object(raw: &str) -> bool {
    let text = raw.get(1..).unwrap_or_default().trim_start();
    ["{", "\\n", "\\r", "\\t", "\\u"].iter().any(|start| text.starts_with(start))
}

/// How many rollouts a group has: a whole number, or text of one. `name` is what the field is called.
pub(super) fn size_of(name: &str, raw: &str) -> Result<usize, String> {
    let text = serde_json::from_str::<String>(raw);
    let number = serde_json::from_str::<Whole>(text.as_deref().unwrap_or(raw));
    let size = number.ok().and_then(|Whole(number)| usize::try_from(number).ok()).filter(|size| *size > 0);
    size.ok_or_else(|| format!("give `{name}` as a whole number of 1 or more, or leave it out: it is {}", excerpt(raw)))
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

    #[test]
    fn a_label_may_be_written_with_escapes() {
        for raw in [r#""\u007b\"answer\": 1}""#, r#"" \t\u000a{\"\u0061nswer\": 1}""#] {
            assert_eq!(read(raw).references.as_deref(), Some("1"), "{raw}");
        }
        assert_eq!(read(r#""\\frac{1}{2}""#).references.as_deref(), Some(r#""\\frac{1}{2}""#));
    }

    #[test]
    fn a_size_that_is_none_is_said() {
        for size in ["2.5", "-1", "0", "\"0\"", "\"two\"", "[]", "true", "\"\""] {
            let raw = format!("{{\"answer\": {{\"target\": 1, \"group_size\": {size}}}}}");
            assert!(read(&raw).fault.unwrap().ends_with(&format!(": it is {size}")), "{size}");
        }
    }

    #[test]
    fn a_size_that_is_none_is_no_fault_where_there_is_another() {
        for raw in [
            r#"{"answer": {"target": 1, "group_size": 4}, "group_size": "two"}"#,
            r#"{"answer": {"target": 1, "group_size": "two"}, "group_size": 4}"#,
        ] {
            assert_eq!((read(raw).group_size, read(raw).fault), (Some(4), None), "{raw}");
        }
        let long = format!("{{\"answer\": 1, \"group_size\": \"{}\"}}", "x".repeat(10_000));
        assert!(read(&long).fault.unwrap().len() < 600);
    }

    #[test]
    fn of_a_field_that_is_there_twice_the_last_counts() {
        assert_eq!(read(r#"{"answer": 1, "group": "a", "answer": 2}"#).references.as_deref(), Some("2"));
        assert_eq!(read(r#"{"answer": 1, "answer": null, "group": 1}"#).references, None);
    }
}
