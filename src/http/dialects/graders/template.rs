//! The `{{ .. }}` of a grader's texts. In: a template, the sample and the item. Out: the text, or the variable that there
//! is not. Only names and dots: nothing is evaluated. A short template can name a long sample often, so that all texts of
//! a run together are bounded.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};

use serde_json::Value;

use crate::http::dialects::MAX_VALUES_BYTES;
use crate::toolcall::values_bytes;

/// Bytes that variables may fill in beyond a few copies of the sample, over all templates of a grader.
const MAX_FILLED_BYTES: usize = 16 << 20;
/// Copies of the sample that fit in any case.
const SAMPLES: usize = 4;

/// What templates can name.
pub(super) struct Variables<'v> {
    /// What the model wrote.
    sample: &'v str,
    /// The dataset's row.
    item: &'v Value,
    /// The sample as JSON, once a template asked for it; `None` where it is none, or takes too much memory.
    json: OnceCell<Option<Value>>,
    /// Bytes that may still be filled in.
    left: Cell<usize>,
}

/// Why a template cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FillError {
    /// A variable that there is not.
    #[error("there is no variable {0:?}; templates know sample.output_text, sample.output_json and item.*")]
    UnknownVariable(String),
    /// The texts become too long.
    #[error("the templates come to more than {limit} bytes; name long variables less often")]
    TooLong {
        /// Bytes that may be filled in.
        limit: usize,
    },
}

/// Fills a template in.
pub(super) fn fill(template: &str, variables: &Variables<'_>) -> Result<String, FillError> {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let (name, after) = after.split_once("}}").ok_or_else(|| FillError::UnknownVariable(excerpt(after)))?;
        let value = variables.find(name.trim())?;
        variables.take(value.len())?;
        out.push_str(&value);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

impl<'v> Variables<'v> {
    /// What the templates of one run can name.
    pub(super) fn new(sample: &'v str, item: &'v Value) -> Self {
        Self { sample, item, json: OnceCell::new(), left: Cell::new(limit(sample)) }
    }

    fn find(&self, name: &str) -> Result<Cow<'_, str>, FillError> {
        let unknown = || FillError::UnknownVariable(excerpt(name));
        if name == "sample.output_text" {
            return Ok(Cow::Borrowed(self.sample));
        }
        if let Some(path) = name.strip_prefix("sample.output_json") {
            let value = self.json.get_or_init(|| {
                values_bytes(self.sample, MAX_VALUES_BYTES)?;
                serde_json::from_str(self.sample).ok()
            });
            return value.as_ref().and_then(|value| at(value, path)).map(text).ok_or_else(unknown);
        }
        let path = name.strip_prefix("item").filter(|path| !path.is_empty()).ok_or_else(unknown)?;
        at(self.item, path).map(text).ok_or_else(unknown)
    }

    /// Counts bytes that are filled in.
    fn take(&self, bytes: usize) -> Result<(), FillError> {
        let left = self.left.get().checked_sub(bytes);
        self.left.set(left.ok_or_else(|| FillError::TooLong { limit: limit(self.sample) })?);
        Ok(())
    }
}

/// Bytes that variables may fill in.
fn limit(sample: &str) -> usize {
    MAX_FILLED_BYTES.saturating_add(sample.len().saturating_mul(SAMPLES))
}

/// The value at `.a.b` or `.a[0]`.
fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    let normal = path.replace('[', ".").replace(']', "");
    normal.split('.').skip(1).try_fold(value, |value, key| match value {
        Value::Object(fields) => fields.get(key),
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        _ => None,
    })
}

fn text(value: &Value) -> Cow<'_, str> {
    value.as_str().map_or_else(|| Cow::Owned(value.to_string()), Cow::Borrowed)
}

fn excerpt(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_and_dots() {
        let item = json!({"ref": "Paris", "n": 3, "list": [{"a": "x"}]});
        let variables = Variables::new("{\"city\": \"Paris\"}", &item);
        let fill = |template: &str| fill(template, &variables);
        assert_eq!(fill("a {{ item.ref }} b {{item.n}}").unwrap(), "a Paris b 3");
        assert_eq!(fill("{{item.list[0].a}}{{ item.list.0.a }}").unwrap(), "xx");
        assert_eq!(fill("{{sample.output_json.city}}").unwrap(), "Paris");
        assert_eq!(fill("{{sample.output_text}}").unwrap(), "{\"city\": \"Paris\"}");
        assert_eq!(fill("no variable").unwrap(), "no variable");
        for unknown in ["{{ item.x }}", "{{ item }}", "{{ 1 + 1 }}", "{{ open", "{{ sample.choices }}"] {
            assert!(fill(unknown).is_err(), "{unknown}");
        }
        // What was filled in is no template.
        let item = json!({"ref": "{{ item.secret }}", "secret": "s"});
        let text = super::fill("{{ item.ref }}", &Variables::new("", &item)).unwrap();
        assert_eq!(text, "{{ item.secret }}");
    }

    #[test]
    fn texts_are_bounded_together() {
        let sample = "x".repeat(1 << 20);
        let item = json!({"long": sample, "none": ""});
        let variables = Variables::new(&sample, &item);
        let limit = MAX_FILLED_BYTES + SAMPLES * sample.len();
        let twelve = "{{sample.output_text}}{{item.long}}{{item.none}}".repeat(6);
        assert_eq!(fill(&twelve, &variables).unwrap().len(), 12 << 20);
        // Each would fit, both do not.
        assert_eq!(fill(&twelve, &variables), Err(FillError::TooLong { limit }));
        assert_eq!(fill(&"{{sample.output_text}}".repeat(45_000), &variables), Err(FillError::TooLong { limit }));
    }

    #[test]
    fn the_sample_is_read_as_json_once() {
        // Reading it for every name would be two hundred gigabytes of JSON.
        let sample = format!("[7,\"{}\"]", "x".repeat(1 << 20));
        let variables = Variables::new(&sample, &Value::Null);
        assert_eq!(fill(&"{{sample.output_json[0]}}".repeat(200_000), &variables).unwrap().len(), 200_000);
        let broken = Variables::new("{", &Value::Null);
        assert!(matches!(fill("{{sample.output_json[0]}}", &broken), Err(FillError::UnknownVariable(_))));
    }
}
