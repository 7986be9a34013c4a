//! `openai`: the native `tool_calls` of a message (rules N1 to N4). In: a [`Scan`] over that field's raw JSON; out: an
//! attempt per element.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::budget::Budget;
use super::call::{Blank, CallObject, Fields, ReadObject, Rules};
use super::codes::Fault;
use super::cursor::Cursor;
use super::json::{self, Checked};
use super::scan::Scan;
use super::{ErrorCode, Malformed};

/// The parser of the format.
pub(super) fn openai(scan: &mut Scan<'_, '_>) {
    let mut cursor = Cursor::new(scan.text, 0);
    cursor.skip_blanks();
    let start = cursor.at;
    if matches!(cursor.rest().trim_end(), "" | "null") {
        return;
    }
    if !cursor.eat_byte(b'[') {
        let fault = Fault::new(ErrorCode::UnexpectedText, start, "`tool_calls` is no list");
        scan.push(start..scan.text.len(), Vec::new(), Err(fault.named(None)));
        return;
    }
    cursor.skip_blanks();
    if cursor.eat_byte(b']') {
        return;
    }
    loop {
        cursor.skip_blanks();
        let start = cursor.at;
        let mut repairs = Vec::new();
        let (call, end) = match json::read(scan.text, start, ReadElement(&scan.budget)) {
            Ok((object, end)) => {
                let call = object.call(Rules::new(scan, Blank::NoArguments), start, &mut repairs);
                (call.map_err(|malformed| in_element(malformed, start)), end)
            }
            Err(fault) => {
                // The message around it is JSON: an element that no value can hold ends somewhere.
                let Ok((_, end)) = json::read(scan.text, start, PhantomData::<IgnoredAny>) else {
                    let stop = scan.text.floor_char_boundary(fault.at.max(start));
                    scan.push(start..stop, Vec::new(), Err(fault.named(None)));
                    return;
                };
                (Err(fault.named(None)), end)
            }
        };
        scan.push(start..end, repairs, call);
        cursor.at = end;
        cursor.skip_blanks();
        if !cursor.eat_byte(b',') {
            return;
        }
    }
}

/// A fault as it is told of an element, whose name stands in its `function`.
fn in_element(malformed: Malformed, start: usize) -> Malformed {
    if malformed.code == ErrorCode::MissingName {
        return Fault::new(malformed.code, start, "the call has no `function.name`").named(None);
    }
    malformed
}

/// Reads an element of the list: what its `function` is. Without one it is an empty call object, whose name is missing.
#[derive(Clone, Copy)]
struct ReadElement<'b>(&'b Budget);

impl<'de> DeserializeSeed<'de> for ReadElement<'_> {
    type Value = CallObject<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<CallObject<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ReadElement<'_> {
    type Value = CallObject<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tool call")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut function = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == "function" {
                function = Some(map.next_value_seed(ReadObject(self.0))?);
            } else {
                map.next_value::<Checked>()?;
            }
        }
        Ok(function.unwrap_or_else(|| CallObject::Fields(Fields::default())))
    }

    json::visit_scalars_and_lists!(CallObject::Other);

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(CallObject::Other)
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // a list of ranges that happens to hold one
mod tests {
    use super::super::{NoTools, Options, parse, parse_native};
    use crate::trajectory::ToolFormat::Openai;

    fn codes(json: &str) -> Vec<&'static str> {
        let parsed = parse_native(json, &Options::default(), &NoTools);
        parsed
            .attempts
            .iter()
            .map(|attempt| attempt.result.as_ref().map_or_else(|m| m.code.as_str(), |_| "ok"))
            .collect()
    }

    #[test]
    fn n1_n4_elements() {
        let text = r#" [{"id":"x","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},
            {"function":{"name":"f","arguments":{}}}, {"function":{"name":"f","arguments":" "}},
            {"function":{"name":"f"}}, {"function":null}, {}, 7, {"function":{"name":"","arguments":{}}},
            {"function":{"name":"f","arguments":"{"}}, {"function":{"name":"f","arguments":{}}}] "#;
        assert_eq!(
            codes(text),
            [
                "ok",
                "ok",
                "ok",
                "missing_arguments",
                "not_an_object",
                "missing_name",
                "not_an_object",
                "bad_name",
                "bad_arguments",
                "ok"
            ]
        );
        let parsed = parse_native(text, &Options::default(), &NoTools);
        assert_eq!(parsed.attempts[0].span, 2..78);
    }

    #[test]
    fn n4_a_value_that_none_can_hold_costs_one_element() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        for (value, code) in [("1e400", "json_number"), (r#""\ud800""#, "json_surrogate"), (&deep, "too_deep")] {
            let bad = format!(r#"{{"function":{{"name":"f","arguments":{{"a":{value}}}}}}}"#);
            let text = format!(r#"[{bad},{{"function":{{"name":"g","arguments":{{}}}}}},{bad}]"#);
            assert_eq!(codes(&text), [code, "ok", code], "{value}");
            let parsed = parse_native(&text, &Options::default(), &NoTools);
            assert_eq!(parsed.attempts[0].span, 1..1 + bad.len(), "{value}");
        }
    }

    #[test]
    fn n2_text_is_never_searched() {
        let options = Options { format: Openai, ..Options::default() };
        let text = r#"<think>a</think><tool_call>{"name":"f","arguments":{}}</tool_call>"#;
        let parsed = parse(text, &options, &NoTools);
        assert!(parsed.attempts.is_empty() && parsed.reasoning == [0..16]);
    }

    #[test]
    fn n3_nothing_is_no_calls() {
        for text in ["", "null", " null ", "[]", "[ ]"] {
            assert_eq!(codes(text), [""; 0], "{text}");
        }
        assert_eq!(codes("{}"), ["unexpected_text"]);
    }
}
