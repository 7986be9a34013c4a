//! What the formats that write parameters as tags share (rules X1 to X5): the tags around a call, what breaks in them, and
//! arguments that are gathered one by one. Knows neither format's own tags.

use serde_json::{Map, Value};

use super::budget::too_many;
use super::codes::Fault;
use super::cursor::Cursor;
use super::scan::{Markers, Scan};
use super::tagged::HERMES;
use super::{ErrorCode, Repair, blocks, lenient};

/// Around a call.
pub(super) const MARKERS: Markers = Markers { others: blocks::none, ..HERMES };

/// What stands around the block that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    /// The tags of a call.
    Tags,
    /// Nothing before it, and perhaps nothing behind.
    None,
}

/// What a block without its closer is: repaired at the end of the text in tolerant mode, malformed otherwise. Without an opener it
/// is malformed in any case, and said to be so for that.
pub(super) fn unclosed(
    scan: &Scan<'_, '_>,
    cursor: &mut Cursor<'_>,
    frame: Frame,
    repairs: &mut Vec<Repair>,
) -> Result<(), Fault> {
    let at = cursor.at;
    if cursor.cut(MARKERS.closer) {
        if scan.tolerant() || frame == Frame::None {
            cursor.at = cursor.text.len();
            lenient::note(repairs, Repair::MissingCloser);
            return Ok(());
        }
        return Err(Fault::new(ErrorCode::MissingCloser, at, "the text ends without `</tool_call>`"));
    }
    if cursor.rest().starts_with(MARKERS.opener) {
        return Err(Fault::new(ErrorCode::MissingCloser, at, "no `</tool_call>` before the next call"));
    }
    Err(Fault::new(ErrorCode::UnexpectedText, at, "text between the tags of a call"))
}

/// Adds an argument, unless its value or itself needs too much memory.
pub(super) fn insert(
    scan: &Scan<'_, '_>,
    arguments: &mut Map<String, Value>,
    (at, key): (usize, &str),
    value: Value,
) -> Result<(), Fault> {
    let fits = scan.budget.entry(arguments.len());
    if scan.budget.take_exceeded() || fits.is_none() {
        return Err(too_many(at));
    }
    arguments.insert(key.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::laws::{calls, codes, tolerant, typed_calls};
    use crate::trajectory::ToolFormat::{Glm45, Qwen3Coder};

    /// What strict parsing takes for reasoning makes no call in tolerant mode either (T2).
    #[test]
    fn t2_a_repair_does_not_reach_over_the_end_of_reasoning() {
        let qwen = "<tool_call><function=f><parameter=a>x</think>y</function>";
        let glm = "<tool_call>f<arg_key>a</arg_key><arg_value>x</think>y</arg_value>";
        for (format, text) in [(Qwen3Coder, qwen), (Glm45, glm)] {
            assert!(codes(format, text).is_empty() && tolerant(format, text).is_empty(), "{text}");
            // Nor where something else is malformed.
            let malformed = text.replace("</think>", "</think><tool_call>bad");
            assert_eq!(codes(format, &malformed).len(), 1, "{malformed}");
            assert!(tolerant(format, &malformed).iter().all(Vec::is_empty), "{malformed}");
            let whole = format!("{text}</tool_call>");
            assert_eq!(calls(format, &whole), [("f".into(), json!({"a": "x</think>y"}))], "in a call it is data (T4)");
        }
    }

    #[test]
    fn x2_x4_declared_types() {
        let text = "<tool_call><function=f><parameter=n>1</parameter><parameter=n>2</parameter><parameter=s>3</parameter></tool_call>";
        assert_eq!(typed_calls(Qwen3Coder, text), [("f".into(), json!({"n": 2, "s": "3"}))]);
        let text = "<tool_call>f\n<arg_key>n</arg_key>\n<arg_value> 7 </arg_value></tool_call>";
        assert_eq!(typed_calls(Glm45, text), [("f".into(), json!({"n": 7}))]);
    }
}
