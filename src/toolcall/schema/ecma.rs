//! What ECMA-262 means by `\d`, `\w`, `\s` and `.`, spelled out in patterns with lookaround or back references: the validator
//! translates the others, and the engine of these means all of Unicode by them. In: a schema and its graph; out: the schema
//! to be compiled. Compiles nothing.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;

use super::graph::Graph;
use super::pattern::{self, Engine};

/// What the escapes of classes stand for, as it stands in a class.
const CLASSES: [(char, &str); 6] = [
    ('d', "0-9"),
    ('D', "\0-/:-\u{10ffff}"),
    ('w', "0-9A-Z_a-z"),
    ('W', "\0-/:-@\\[-\\^`{-\u{10ffff}"),
    ('s', "\t-\r \u{a0}\u{1680}\u{2000}-\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\u{feff}"),
    (
        'S',
        "\0-\u{8}\u{e}-\u{1f}!-\u{9f}\u{a1}-\u{167f}\u{1681}-\u{1fff}\u{200b}-\u{2027}\u{202a}-\u{202e}\u{2030}-\u{205e}\
         \u{2060}-\u{2fff}\u{3001}-\u{fefe}\u{ff00}-\u{10ffff}",
    ),
];

/// What `.` stands for: all but the ends of lines.
const DOT: &str = "[^\n\r\u{2028}\u{2029}]";

/// A schema with its patterns spelled out.
pub(super) struct Spelled<'s> {
    pub(super) schema: Cow<'s, Value>,
    /// The patterns as they were, by what they were made to be: what people are told.
    pub(super) originals: HashMap<String, String>,
}

/// Spells the patterns of a schema out, where one needs it. Names of `patternProperties` stay: pointers hold them.
pub(super) fn spell<'s>(schema: &'s Value, graph: &Graph<'s>) -> Spelled<'s> {
    let mut originals = HashMap::new();
    let mut nodes = HashMap::new();
    for node in &graph.nodes {
        let Some(text) = node.schema.get("pattern").and_then(Value::as_str) else { continue };
        let translated = pattern::cost(text).is_ok_and(|cost| cost.engine == Engine::Linear);
        if let (false, Some(spelled)) = (translated, spelled(text)) {
            originals.insert(spelled.clone(), text.to_owned());
            nodes.insert(std::ptr::from_ref(node.schema), spelled);
        }
    }
    let schema = if nodes.is_empty() { Cow::Borrowed(schema) } else { Cow::Owned(copy(schema, &nodes)) };
    Spelled { schema, originals }
}

/// As deep as the text of the schema, which the parser bounds.
fn copy(value: &Value, nodes: &HashMap<*const Value, String>) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| copy(item, nodes)).collect(),
        Value::Object(members) => {
            let pattern = nodes.get(&std::ptr::from_ref(value));
            let member = |(key, member): (&String, &Value)| match pattern.filter(|_| key == "pattern") {
                Some(pattern) => (key.clone(), pattern.as_str().into()),
                None => (key.clone(), copy(member, nodes)),
            };
            members.iter().map(member).collect()
        }
        value => value.clone(),
    }
}

/// A pattern with its classes spelled out; nothing where it has none, or where that would change what it means: under flags,
/// and where a hyphen stands beside the escape of a class, which is no end of a range.
fn spelled(pattern: &str) -> Option<String> {
    let flags = |rest: &str| rest.starts_with(|char: char| char == '-' || char.is_ascii_lowercase());
    if pattern.match_indices("(?").any(|(at, group)| flags(pattern.get(at + group.len()..).unwrap_or_default())) {
        return None;
    }
    let mut text = String::new();
    let mut copied = 0;
    // Within a class: whether nothing was read of it yet, so that a closing bracket is a member.
    let mut class: Option<bool> = None;
    let mut chars = pattern.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        let (end, instead) = match (char, class) {
            ('\\', _) => {
                let Some((next, escape)) = chars.next() else { break };
                let members = CLASSES.iter().find(|(name, _)| *name == escape).map(|(_, members)| *members);
                let end = next + escape.len_utf8();
                if class.is_some() {
                    class = Some(false);
                    let (before, after) = (pattern.get(..at)?, pattern.get(end..)?);
                    let ranged = before.ends_with('-') && !before.ends_with("[-") && !before.ends_with("[^-");
                    if members.is_some() && (ranged || after.starts_with('-') && !after.starts_with("-]")) {
                        return None;
                    }
                    (end, members.map(str::to_owned))
                } else {
                    (end, members.map(|members| format!("[{members}]")))
                }
            }
            ('[', None) => {
                _ = chars.next_if(|(_, next)| *next == '^');
                class = Some(true);
                continue;
            }
            (']', Some(false)) => {
                class = None;
                continue;
            }
            (_, Some(_)) => {
                class = Some(false);
                continue;
            }
            ('.', None) => (at + 1, Some(DOT.to_owned())),
            _ => continue,
        };
        if let Some(instead) = instead {
            text.push_str(pattern.get(copied..at)?);
            text.push_str(&instead);
            copied = end;
        }
    }
    text.push_str(pattern.get(copied..)?);
    (copied > 0).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v3_classes_are_spelled_out_wherever_they_stand() {
        for (pattern, wanted) in [
            (r"^(?!x)\d+$", "^(?!x)[0-9]+$"),
            (r"[\d_]\\d\.", r"[0-9_]\\d\."),
            (r"[\w.-]", "[0-9A-Z_a-z.-]"),
            (r"[-\w]", "[-0-9A-Z_a-z]"),
            (r"[\w-]", "[0-9A-Z_a-z-]"),
            (r"[a-z\d]", "[a-z0-9]"),
            (r"[]\d][^]\d]", "[]0-9][^]0-9]"),
            ("a.b[.]", &format!("a{DOT}b[.]")),
        ] {
            assert_eq!(spelled(pattern).as_deref(), Some(wanted), "{pattern}");
        }
        for pattern in [
            r"a\\",
            r"\",
            "[",
            r"[\",
            r"\p{L}[\]a]",
            r"\x41\-",
            // A range that ends in a class is none.
            r"[\w-.]",
            r"[.-\w]",
            r"[\s-a-z]",
            r"[\d--/]",
            // Folding cases would make more of the letters that are spelled.
            r"(?i)^(?!x)\W$",
            r"(?-s:.)",
        ] {
            assert_eq!(spelled(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn v3_a_class_and_its_negation_are_everything() {
        for (name, other) in [('d', 'D'), ('w', 'W'), ('s', 'S')] {
            let class = |name| regex::Regex::new(&spelled(&format!(r"^\{name}$")).unwrap()).unwrap();
            let (class, negated) = (class(name), class(other));
            for char in (0..0x1_1000).filter_map(char::from_u32).chain(['\u{10ffff}', '\u{e000}']) {
                let text = char.to_string();
                assert_ne!(class.is_match(&text), negated.is_match(&text), "\\{name} and {char:?}");
                let ecma = match name {
                    'd' => char.is_ascii_digit(),
                    'w' => char.is_ascii_alphanumeric() || char == '_',
                    _ => is_blank(char),
                };
                assert_eq!(class.is_match(&text), ecma, "\\{name} and {char:?}");
            }
        }
    }

    /// ECMA-262's `WhiteSpace` and `LineTerminator`.
    fn is_blank(char: char) -> bool {
        (char.is_whitespace() || char == '\u{feff}') && char != '\u{85}'
    }
}
