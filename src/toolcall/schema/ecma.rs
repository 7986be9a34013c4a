//! What ECMA-262 means by `\d`, `\w`, `\s` and `.`, spelled out in patterns with lookaround or back references: the validator
//! translates the others, and the engine of these means all of Unicode by them. In: a schema and its graph; out: the schema
//! to be compiled. Compiles nothing.

use std::borrow::Cow;
use std::collections::HashSet;

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

/// The schema with its patterns spelled out, where one needs it. Names of `patternProperties` stay: pointers hold them.
pub(super) fn spell<'s>(schema: &'s Value, graph: &Graph<'s>) -> Cow<'s, Value> {
    let spells = |node: &Value| {
        let text = node.get("pattern")?.as_str()?;
        let translated = pattern::cost(text).is_ok_and(|cost| cost.engine == Engine::Linear);
        (!translated && matches!(spelled(text), Cow::Owned(_))).then_some(std::ptr::from_ref(node))
    };
    let nodes: HashSet<_> = graph.nodes.iter().filter_map(|node| spells(node.schema)).collect();
    if nodes.is_empty() { Cow::Borrowed(schema) } else { Cow::Owned(copy(schema, &nodes)) }
}

/// As deep as the text of the schema, which the parser bounds.
fn copy(value: &Value, nodes: &HashSet<*const Value>) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| copy(item, nodes)).collect(),
        Value::Object(members) => {
            let spells = nodes.contains(&std::ptr::from_ref(value));
            let member = |(key, member): (&String, &Value)| match member {
                Value::String(text) if spells && key == "pattern" => (key.clone(), spelled(text).into()),
                member => (key.clone(), copy(member, nodes)),
            };
            members.iter().map(member).collect()
        }
        value => value.clone(),
    }
}

/// A pattern with its classes spelled out.
fn spelled(pattern: &str) -> Cow<'_, str> {
    let mut text = String::new();
    let mut copied = 0;
    let mut class: Option<Class> = None;
    let mut chars = pattern.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        let (end, instead) = match (char, &mut class) {
            ('\\', _) => {
                let Some((next, escape)) = chars.next() else { break };
                let members = CLASSES.iter().find(|(name, _)| *name == escape).map(|(_, members)| *members);
                let end = next + escape.len_utf8();
                match &mut class {
                    Some(class) => {
                        class.after_escape = members.is_some();
                        class.empty = false;
                        (end, members.map(Cow::Borrowed))
                    }
                    None => (end, members.map(|members| format!("[{members}]").into())),
                }
            }
            ('[', None) => {
                _ = chars.next_if(|(_, next)| *next == '^');
                class = Some(Class { empty: true, after_escape: false });
                continue;
            }
            (']', Some(Class { empty: false, .. })) => {
                class = None;
                continue;
            }
            // A class is no end of a range: the hyphen beside it is one.
            ('-', Some(inside)) => {
                let before =
                    chars.clone().nth(1).is_some_and(|(_, escape)| CLASSES.iter().any(|(name, _)| *name == escape))
                        && chars.peek().is_some_and(|(_, next)| *next == '\\');
                let beside = inside.after_escape || before;
                (inside.empty, inside.after_escape) = (false, false);
                (at + 1, beside.then_some(Cow::Borrowed("\\-")))
            }
            (_, Some(inside)) => {
                (inside.empty, inside.after_escape) = (false, false);
                continue;
            }
            ('.', None) => (at + 1, Some(Cow::Borrowed(DOT))),
            _ => continue,
        };
        if let Some(instead) = instead {
            text.push_str(pattern.get(copied..at).unwrap_or_default());
            text.push_str(&instead);
            copied = end;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(pattern);
    }
    text.push_str(pattern.get(copied..).unwrap_or_default());
    Cow::Owned(text)
}

/// A class that is being read.
struct Class {
    /// Nothing was read of it yet, so that a closing bracket is a member.
    empty: bool,
    /// The escape of a class was read last.
    after_escape: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v3_classes_are_spelled_out_wherever_they_stand() {
        for (pattern, wanted) in [
            (r"^(?!x)\d+$", "^(?!x)[0-9]+$"),
            (r"[\d_]\\d\.", r"[0-9_]\\d\."),
            (r"[\w-.]", r"[0-9A-Z_a-z\-.]"),
            (r"[.-\w]", r"[.\-0-9A-Z_a-z]"),
            (r"[a-z\d]", "[a-z0-9]"),
            (r"[]\d][^]\d]", "[]0-9][^]0-9]"),
            ("a.b[.]", &format!("a{DOT}b[.]")),
        ] {
            assert_eq!(spelled(pattern), wanted, "{pattern}");
        }
        for pattern in [r"a\\", r"\", "[", r"[\", r"\p{L}[\]a]", r"\x41\-"] {
            assert_eq!(spelled(pattern), pattern);
        }
    }

    #[test]
    fn v3_a_class_and_its_negation_are_everything() {
        for (name, other) in [('d', 'D'), ('w', 'W'), ('s', 'S')] {
            let class = |name| regex::Regex::new(&spelled(&format!(r"^\{name}$"))).unwrap();
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
