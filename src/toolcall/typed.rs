//! Values that an XML format writes as plain text, read by what their parameter declares (rules X2, X3). In: a text and
//! the declared types; out: a JSON value. Knows no format and no schema.

use serde_json::Value;

use super::scan::Scan;
use super::{Declared, Repair, json, lenient};

/// The value that `text` means for a parameter of these types; the first kind that matches, else the text itself. In
/// tolerant mode `repairs` takes what had to be put right.
pub(super) fn read(scan: &Scan<'_, '_>, text: &str, declared: Declared, repairs: &mut Vec<Repair>) -> Value {
    if declared.is_empty() {
        return text.into();
    }
    if let Some(value) = typed(scan, text, declared) {
        return value;
    }
    // Where the text itself is allowed there is nothing to repair.
    let repairable = scan.tolerant() && !declared.contains(Declared::STRING);
    repairable.then(|| repaired(scan, text, declared, repairs)).flatten().unwrap_or_else(|| text.into())
}

/// What tolerant mode reads: lists and objects as policies write them, and Python's `None`.
fn repaired(scan: &Scan<'_, '_>, text: &str, declared: Declared, repairs: &mut Vec<Repair>) -> Option<Value> {
    if declared.contains(Declared::NULL) && text == "None" {
        lenient::note(repairs, Repair::PythonLiteral);
        return Some(Value::Null);
    }
    let found = is_nested(text, declared).then(|| lenient::read_whole(text, &scan.budget)).flatten()?;
    found.repairs.into_iter().for_each(|repair| lenient::note(repairs, repair));
    Some(found.value)
}

/// Whether `text` opens like a list or an object that is declared.
fn is_nested(text: &str, declared: Declared) -> bool {
    match text.trim_start().as_bytes().first() {
        Some(b'{') => declared.contains(Declared::OBJECT),
        Some(b'[') => declared.contains(Declared::ARRAY),
        _ => false,
    }
}

fn typed(scan: &Scan<'_, '_>, text: &str, declared: Declared) -> Option<Value> {
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
    if wanted && let Ok(number @ Value::Number(_)) = json::read_whole(text, &scan.budget) {
        return Some(number);
    }
    if is_nested(text, declared) { json::read_whole(text, &scan.budget).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{NoTools, Options};
    use super::*;
    use crate::trajectory::ParseMode;

    fn read_in(mode: ParseMode, text: &str, declared: Declared) -> (Value, Vec<Repair>) {
        let options = Options { mode, ..Options::default() };
        let mut repairs = Vec::new();
        (read(&Scan::new(text, &options, &NoTools), text, declared, &mut repairs), repairs)
    }

    fn strict(text: &str, declared: Declared) -> Value {
        read_in(ParseMode::Strict, text, declared).0
    }

    fn tolerant(text: &str, declared: Declared) -> (Value, Vec<Repair>) {
        read_in(ParseMode::Tolerant, text, declared)
    }

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
            assert_eq!(strict(text, declared), expected, "{text}");
        }
    }

    #[test]
    fn x3_undeclared_stays_a_string() {
        assert_eq!(strict("5", Declared::EMPTY), json!("5"));
        assert_eq!(tolerant("{'a': 1}", Declared::EMPTY), (json!("{'a': 1}"), vec![]));
    }

    #[test]
    fn tolerant_repairs_lists_and_objects() {
        for (text, declared, expected, repairs) in [
            ("{'k': True}", Declared::OBJECT, json!({"k": true}), vec![Repair::SingleQuotes, Repair::PythonLiteral]),
            (" [1, None,]", Declared::ARRAY, json!([1, null]), vec![Repair::PythonLiteral, Repair::TrailingComma]),
            ("None", Declared::NULL | Declared::INTEGER, json!(null), vec![Repair::PythonLiteral]),
            ("{\"k\": 1}", Declared::OBJECT, json!({"k": 1}), vec![]),
            ("{'k': True}", Declared::OBJECT | Declared::STRING, json!("{'k': True}"), vec![]),
            ("{'k': True}", Declared::ARRAY, json!("{'k': True}"), vec![]),
            ("{'k': oops}", Declared::OBJECT, json!("{'k': oops}"), vec![]),
        ] {
            assert_eq!(tolerant(text, declared), (expected, repairs), "{text}");
        }
    }
}
