//! How texts, lists and tables are written in what outlives the process: the keys of kept findings, and the identities of
//! judges. In: values. Out: one line, whose form is part of what was kept: where it changes, all of that is asked again.

use std::fmt::Display;

/// A text as JSON has it, in quotes.
pub(super) fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `[a, b]`.
pub(super) fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    format!("[{}]", joined(items))
}

/// `{"a": 1, "b": 2}`, in the order that is given.
pub(super) fn table<'k>(rows: impl IntoIterator<Item = (&'k String, impl Display)>) -> String {
    format!("{{{}}}", joined(rows.into_iter().map(|(key, value)| format!("{}: {value}", text(key)))))
}

fn joined(items: impl IntoIterator<Item = impl Display>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_by_versions_before_is_found() {
        assert_eq!(text("a \"b\"\n\u{e9}\u{ff5c}"), "\"a \\\"b\\\"\\n\u{e9}\u{ff5c}\"");
        assert_eq!(list(["Yes", "No"].map(text)), "[\"Yes\", \"No\"]");
        assert_eq!(list(Vec::<u32>::new()), "[]");
        assert_eq!(table([(&"No".to_owned(), 2), (&"Yes".to_owned(), 1)]), "{\"No\": 2, \"Yes\": 1}");
    }
}
