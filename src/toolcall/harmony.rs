//! `harmony`: segments of header and body, possibly a whole trajectory (rules H1 to H6, T5). In: a [`Scan`]; out: its
//! attempts, the analysis as reasoning, and what other roles wrote.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::{Map, Value};

use super::call::Reading;
use super::codes::Fault;
use super::cursor::Cursor;
use super::find::{find, find_iter};
use super::scan::Scan;
use super::{Call, ErrorCode, call};

const START: &str = "<|start|>";
pub(super) const MESSAGE: &str = "<|message|>";
const CHANNEL: &str = "<|channel|>";
const ENDS: [&str; 4] = ["<|end|>", "<|call|>", "<|return|>", START];
/// What ends a header: its body, or, if it is cut, what would end a segment.
const HEADER_ENDS: [&str; 5] = [MESSAGE, "<|end|>", "<|call|>", "<|return|>", START];

/// A segment's header, and where its body starts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment<'t> {
    /// Where the segment starts.
    at: usize,
    /// Where the header's text ends.
    header_end: usize,
    /// Where the body starts; `None` if the header is cut.
    body: Option<usize>,
    role: &'t str,
    channel: Option<&'t str>,
    recipient: Option<&'t str>,
    /// Whether the header holds what belongs in none.
    surplus: bool,
}

/// The parser of the format.
pub(super) fn harmony(scan: &mut Scan<'_, '_>) {
    let mut at = 0;
    while let Some(segment) = next_segment(scan.text, at) {
        let tool = segment.tool().filter(|(name, known)| *known || scan.offered.offers(name));
        at = match (tool, segment.body) {
            (Some((name, _)), Some(body)) if segment.is_assistant() => call_body(scan, segment, name, body),
            (Some((name, _)), None) if segment.is_assistant() => {
                let cut = segment.header_end >= scan.text.len();
                let code = if cut { ErrorCode::Truncated } else { ErrorCode::UnexpectedText };
                let fault = Fault::new(code, segment.header_end, "the header of a call is cut: no `<|message|>`");
                scan.push(segment.at..segment.header_end, Vec::new(), Err(fault.named(Some(name))));
                segment.header_end
            }
            (_, Some(body)) => {
                let end = segment.end(scan.text, body);
                if !segment.is_assistant() {
                    scan.parsed.others.push(body..end);
                } else if segment.channel == Some("analysis") {
                    scan.parsed.reasoning.push(body..end);
                    // Behind what is said to a tool a server cuts its stop token off.
                    if end == scan.text.len() && segment.recipient.is_none() {
                        scan.parsed.reasoning_open = Some(body..end);
                    }
                }
                end
            }
            (_, None) => segment.header_end,
        };
    }
}

/// The body of the assistant's last message in the final channel (E5). One that is addressed to a tool is a call.
pub(super) fn last_final(text: &str) -> Option<Range<usize>> {
    let mut at = 0;
    let mut last = None;
    while let Some(segment) = next_segment(text, at) {
        at = segment.body.map_or(segment.header_end, |body| segment.end(text, body));
        if let Some(body) = segment.body
            && segment.is_assistant()
            && segment.channel == Some("final")
            && segment.tool().is_none_or(|(_, certain)| !certain)
        {
            last = Some(body..at);
        }
    }
    last
}

/// Whether the assistant says something in a channel or to somebody, as its template has it: what stands between the markers of
/// a header may else be calls of another format.
pub(super) fn speaks(text: &str) -> bool {
    let mut at = 0;
    while let Some(segment) = next_segment(text, at) {
        let addressed = !segment.surplus && (segment.channel.is_some() || segment.recipient.is_some());
        match segment.body {
            Some(_) if segment.is_assistant() && addressed => return true,
            Some(body) => at = segment.end(text, body),
            None => at = segment.header_end,
        }
    }
    false
}

impl<'t> Segment<'t> {
    fn is_assistant(&self) -> bool {
        self.role == "assistant"
    }

    /// The tool that the recipient names, and whether it is one for certain: `functions.NAME` is (H2), a bare name only
    /// if it was offered (H3).
    fn tool(&self) -> Option<(&'t str, bool)> {
        let recipient = self.recipient?;
        Some(recipient.strip_prefix("functions.").map_or((recipient, false), |name| (name, true)))
    }

    /// Where the segment's body ends for one who does not know the tools: markers in a call's JSON are data.
    fn end(&self, text: &str, body: usize) -> usize {
        let json = match self.recipient {
            Some(_) if self.is_assistant() => super::json::read(text, body, super::json::CHECKED).ok(),
            _ => None,
        };
        body_end(text, json.map_or(body, |(_, end)| end))
    }
}

/// Where the body that starts at `from` ends (H1).
pub(super) fn body_end(text: &str, from: usize) -> usize {
    first_of(text, from, &ENDS).map_or(text.len(), |(at, _)| at)
}

/// The first of some special tokens, and its length.
fn first_of(text: &str, from: usize, tokens: &[&str]) -> Option<(usize, usize)> {
    let rest = text.get(from..)?;
    find_iter(rest.as_bytes(), "<|").find_map(|at| {
        let here = rest.get(at..)?;
        tokens.iter().find(|token| here.starts_with(**token)).map(|token| (from + at, token.len()))
    })
}

/// The next segment at or after `from`.
fn next_segment(text: &str, from: usize) -> Option<Segment<'_>> {
    let rest = text.get(from..)?;
    let start = find(rest.as_bytes(), START).map(|length| from + length);
    if from == 0
        && let Some(segment) = first_segment(text, start.unwrap_or(text.len()))
    {
        return Some(segment);
    }
    let at = start?;
    Some(segment(text, at, at + START.len()))
}

/// The first segment, whose `<|start|>assistant` the prompt's template may have written (H1).
fn first_segment(text: &str, before: usize) -> Option<Segment<'_>> {
    let head = text.get(..before)?;
    let blank = head.len() - head.trim_start().len();
    let implied = head.trim_start();
    let is_header = implied.starts_with(CHANNEL) || implied.starts_with("to=") || head.contains(MESSAGE);
    if !is_header {
        return None;
    }
    let mut segment = segment(text, blank, blank);
    // Of `<|start|>assistant` only the marker may be missing, or all of it.
    if !matches!(segment.role, "assistant" | "") && !segment.role.starts_with("to=") {
        segment.surplus = true;
    }
    // An empty header without a body is no segment; taking it for one would be no step forward.
    if segment.body.is_none() && segment.header_end == blank {
        return None;
    }
    segment.role = "assistant";
    Some(segment)
}

/// The segment whose header starts at `header`.
fn segment(text: &str, at: usize, header: usize) -> Segment<'_> {
    let (header_end, body) = match first_of(text, header, &HEADER_ENDS) {
        Some((end, length)) if text.get(end..).is_some_and(|rest| rest.starts_with(MESSAGE)) => {
            (end, Some(end + length))
        }
        Some((end, _)) => (end, None),
        None => (text.len(), None),
    };
    let words = text.get(header..header_end).unwrap_or_default();
    let (role_part, channel_part) = words.split_once(CHANNEL).unwrap_or((words, ""));
    let recipient = words_of(role_part).chain(words_of(channel_part)).find_map(|word| word.strip_prefix("to="));
    Segment {
        at,
        header_end,
        body,
        role: words_of(role_part).next().unwrap_or_default(),
        channel: words_of(channel_part).next(),
        recipient,
        surplus: has_surplus(role_part, channel_part),
    }
}

/// Whether the two parts of a header, which is one line, hold more than a role and a channel, one recipient and one type.
fn has_surplus(role_part: &str, channel_part: &str) -> bool {
    let (mut recipients, mut types) = (0, 0);
    for part in [role_part, channel_part] {
        for (index, word) in words_of(part).enumerate() {
            let constrained = word.strip_prefix("|constrain|>");
            if word.starts_with("to=") {
                recipients += 1;
            } else if index > 0 || constrained.is_some() {
                types += usize::from(constrained != Some(""));
            }
            if constrained.unwrap_or(word).contains(['{', '[', '(', '>']) {
                return true;
            }
        }
    }
    recipients > 1 || types > 1 || role_part.contains('\n') || channel_part.contains('\n')
}

fn words_of(part: &str) -> impl Iterator<Item = &str> {
    part.split(|character: char| character.is_whitespace() || character == '<').filter(|word| !word.is_empty())
}

/// Reads a call's body (H5); where the next segment is looked for.
fn call_body<'t>(scan: &mut Scan<'t, '_>, segment: Segment<'t>, name: &'t str, body: usize) -> usize {
    let what = "the header of a call holds more than a role, a recipient, a channel and a type";
    let read = match read_body(scan, name, body) {
        Ok(_) if segment.surplus => Err(Fault::new(ErrorCode::UnexpectedText, segment.header_end, what)),
        read => read,
    };
    let (call, end, repairs) = match read {
        Ok(Reading { call, end, repairs }) => (call, end, repairs),
        Err(fault) => (Err(fault.named(Some(name))), body_end(scan.text, body), Vec::new()),
    };
    scan.push(segment.at..end, repairs, call);
    end
}

fn read_body<'t>(scan: &Scan<'t, '_>, name: &'t str, body: usize) -> Result<Reading<'t>, Fault> {
    if name.is_empty() {
        return Err(Fault::new(ErrorCode::BadName, body, "the recipient names no function"));
    }
    let mut cursor = Cursor::new(scan.text, body);
    cursor.skip_blanks();
    let empty = cursor.is_at_end() || ENDS.iter().any(|end| cursor.rest().starts_with(end));
    let (arguments, repairs) = if empty {
        (Value::Object(Map::new()), Vec::new())
    } else {
        let found = call::read_arguments(scan, body)?;
        cursor.at = found.end;
        (found.value, found.repairs)
    };
    cursor.skip_blanks();
    // A cut token at the end is the stop token that a server broke off.
    let end = if cursor.is_at_end() || ENDS.iter().any(|end| cursor.cut(end)) {
        scan.text.len()
    } else if let Some(end) = ENDS.iter().find(|end| cursor.rest().starts_with(**end)) {
        cursor.at + if *end == START { 0 } else { end.len() }
    } else {
        return Err(Fault::new(ErrorCode::UnexpectedText, cursor.at, "text after the call's arguments"));
    };
    Ok(Reading { call: Ok(Call { name: Cow::Borrowed(name), arguments }), end, repairs })
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // a list of ranges that happens to hold one
mod tests {
    use serde_json::json;

    use super::super::laws::{calls, codes, parsed, typed_calls};
    use crate::trajectory::ToolFormat::Harmony;

    #[test]
    fn h1_a_text_that_starts_with_an_end_ends() {
        for text in ["<|end|><|message|>>]j", "<|call|><|channel|>x<|message|>", " <|end|> <|message|>", "<|end|>"] {
            let found = parsed(Harmony, text);
            assert!(found.attempts.is_empty(), "{text}: {found:?}");
            assert_eq!(super::last_final(text), None);
        }
    }

    #[test]
    fn h1_h2_recipients_in_role_and_channel_part() {
        let text = "<|channel|>analysis<|message|>to=functions.x {}<|end|>\
                    <|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\":\"<|end|>\"}<|call|>\
                    <|start|>functions.f to=assistant<|channel|>commentary<|message|>{\"r\":1}<|end|>\
                    <|start|>assistant to=functions.g<|channel|>analysis<|message|>{}<|call|>\
                    <|start|>assistant<|channel|>final<|message|>Done<|return|>";
        assert_eq!(calls(Harmony, text), [("f".into(), json!({"a": "<|end|>"})), ("g".into(), json!({}))]);
        let parsed = parsed(Harmony, text);
        assert_eq!(parsed.reasoning, [30..47]);
        assert_eq!(parsed.others.iter().map(|range| &text[range.clone()]).collect::<Vec<_>>(), ["{\"r\":1}"]);
    }

    #[test]
    fn h3_bare_recipients_must_be_offered() {
        let text = "<|channel|>commentary to=f<|message|>{\"n\":1}<|call|><|start|>assistant to=browser.search<|message|>{}<|call|>";
        assert_eq!(codes(Harmony, text), [""; 0]);
        assert_eq!(typed_calls(Harmony, text), [("f".into(), json!({"n": 1}))]);
    }

    #[test]
    fn h4_other_roles_do_not_count() {
        let text = "<|start|>user to=functions.f<|message|>{}<|end|><|start|>tool to=functions.f<|message|>{}<|end|>";
        assert_eq!(codes(Harmony, text), [""; 0]);
    }

    #[test]
    fn h5_h6_bodies() {
        for (body, code) in [
            ("", "ok"),
            (" \n<|call|>", "ok"),
            ("{}", "ok"),
            ("{}<|return|>", "ok"),
            ("{}<|call", "ok"),
            ("{} x<|call|>", "unexpected_text"),
            ("[]<|call|>", "not_an_object"),
            ("\"\"<|call|>", "not_an_object"),
            ("{\"a\": ", "truncated"),
            ("{\"a\": <|call|>", "json_syntax"),
        ] {
            let text = format!("<|start|>assistant<|channel|>commentary to=functions.f<|message|>{body}");
            assert_eq!(codes(Harmony, &text), [code], "{body}");
        }
        assert_eq!(codes(Harmony, "<|channel|>commentary to=functions.f <|constrain|>js"), ["truncated"]);
        assert_eq!(
            codes(Harmony, "<|channel|>commentary to=functions.f<|start|>assistant<|message|>x"),
            ["unexpected_text"]
        );
        assert_eq!(codes(Harmony, "<|channel|>commentary to=functions.<|message|>{}"), ["bad_name"]);
        assert_eq!(codes(Harmony, "plain text"), [""; 0]);
    }
}
