//! Finds where a value stands in a document. In: the document and one of its values; out: a JSON Pointer.

use serde_json::Value;

/// The JSON Pointer of `target`, which is part of `root`; empty for the root itself or a foreign value.
pub(super) fn pointer_to(root: &Value, target: &Value) -> String {
    let mut segments = Vec::new();
    find(root, target, &mut segments);
    segments.iter().rev().fold(String::new(), |pointer, segment| pointer + "/" + &escape_pointer(segment))
}

/// Collects the segments on the way back from `target`, so the last one comes first.
fn find(value: &Value, target: &Value, segments: &mut Vec<String>) -> bool {
    if std::ptr::eq(value, target) {
        return true;
    }
    match value {
        Value::Array(items) => items.iter().enumerate().any(|(position, item)| {
            let found = find(item, target, segments);
            if found {
                segments.push(position.to_string());
            }
            found
        }),
        Value::Object(members) => members.iter().any(|(key, member)| {
            let found = find(member, target, segments);
            if found {
                segments.push(key.clone());
            }
            found
        }),
        _ => false,
    }
}

/// A key as it stands in a JSON pointer (RFC 6901).
pub fn escape_pointer(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pointers_lead_back() {
        let root = json!({"a/b": [{"c~": 1}, {"d": 2}]});
        for pointer in ["", "/a~1b", "/a~1b/0/c~0", "/a~1b/1"] {
            assert_eq!(pointer_to(&root, root.pointer(pointer).expect("there")), pointer);
        }
        assert_eq!(pointer_to(&root, &json!(1)), "");
    }
}
