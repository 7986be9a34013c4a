//! Values that an XML format writes as plain text, read by what their parameter declares (rules X2, X3). In: a text and
//! the declared types; out: a JSON value. Knows no format and no schema.

use serde_json::Value;

use super::{Declared, json};

/// The value that `text` means for a parameter of these types; the first kind that matches, else the text itself.
pub(super) fn value(text: &str, declared: Declared) -> Value {
    let not_text = if declared.is_empty() { None } else { typed(text, declared) };
    not_text.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn typed(text: &str, declared: Declared) -> Option<Value> {
    if declared.contains(Declared::NULL) && text.eq_ignore_ascii_case("null") {
        return Some(Value::Null);
    }
    if declared.contains(Declared::BOOLEAN) {
        if text.eq_ignore_ascii_case("true") {
            return Some(Value::Bool(true));
        }
        if text.eq_ignore_ascii_case("false") {
            return Some(Value::Bool(false));
        }
    }
    let bytes = text.as_bytes();
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    // A literal has no blanks around it; inside they break the number anyway.
    let numeric = matches!(digits, [b'0'..=b'9', .., b'0'..=b'9'] | [b'0'..=b'9']);
    let integral = numeric && digits.iter().all(u8::is_ascii_digit);
    let wanted = (integral && declared.contains(Declared::INTEGER)) || (numeric && declared.contains(Declared::NUMBER));
    if wanted && let Ok(number @ Value::Number(_)) = json::read_whole(text) {
        return Some(number);
    }
    let nested = match text.trim_start().as_bytes().first() {
        Some(b'{') => declared.contains(Declared::OBJECT),
        Some(b'[') => declared.contains(Declared::ARRAY),
        _ => false,
    };
    if nested { json::read_whole(text).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn x2_the_first_match_wins() {
        let any = Declared::NULL
            | Declared::BOOLEAN
            | Declared::INTEGER
            | Declared::NUMBER
            | Declared::OBJECT
            | Declared::ARRAY
            | Declared::STRING;
        for (text, declared, expected) in [
            ("NULL", any, json!(null)),
            ("null", Declared::STRING, json!("null")),
            ("True", any, json!(true)),
            ("FALSE", Declared::BOOLEAN, json!(false)),
            ("true", Declared::INTEGER, json!("true")),
            ("5", Declared::INTEGER, json!(5)),
            ("-5", Declared::INTEGER | Declared::STRING, json!(-5)),
            ("5.0", Declared::INTEGER, json!("5.0")),
            ("5.5", Declared::NUMBER, json!(5.5)),
            ("5", Declared::NUMBER, json!(5)),
            ("05", Declared::NUMBER, json!("05")),
            (" 5", Declared::INTEGER, json!(" 5")),
            ("1e999", Declared::NUMBER, json!("1e999")),
            ("[1, 2]", Declared::ARRAY, json!([1, 2])),
            ("{\"a\": 1}", Declared::OBJECT, json!({"a": 1})),
            ("{'a': 1}", Declared::OBJECT, json!("{'a': 1}")),
            ("5", Declared::OBJECT, json!("5")),
            ("", any, json!("")),
        ] {
            assert_eq!(value(text, declared), expected, "{text}");
        }
    }

    #[test]
    fn x3_undeclared_stays_a_string() {
        assert_eq!(value("5", Declared::EMPTY), json!("5"));
    }
}
