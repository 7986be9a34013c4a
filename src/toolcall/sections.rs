//! Calls in a section: `deepseek_v3`, `deepseek_v31` and `kimi_k2` (rules C2, D1, D2, K1). In: a [`Scan`]; out: its
//! attempts.

use std::cell::OnceCell;
use std::ops::Range;

use super::call::{Read, Reading};
use super::codes::Fault;
use super::cursor::Cursor;
use super::reasoning::{Mark, Stops, Tags, Walk};
use super::scan::{Markers, Scan};
use super::tagged::{Closing, closed, record, unopened};
use super::{ErrorCode, blocks, call};

/// The markers of a format, and how a call starts.
pub(super) struct Syntax {
    open: &'static str,
    close: &'static str,
    call: Markers,
    separator: &'static str,
    head: Head,
}

/// What stands between the marker that opens a call and its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// `type<sep>name`, a newline and a code fence.
    TypeNameFence,
    /// `name<sep>`.
    Name,
    /// `[functions.]name:index<sep>`.
    Id,
}

const DEEPSEEK_SEPARATOR: &str = "<｜tool▁sep｜>";
const KIMI_SEPARATOR: &str = "<|tool_call_argument_begin|>";
const FENCE: &str = "```";

/// Per call `type<sep>name`, a newline and a fenced JSON block (D1).
pub(super) const DEEPSEEK_V3: Syntax = Syntax {
    open: "<｜tool▁calls▁begin｜>",
    close: "<｜tool▁calls▁end｜>",
    call: Markers {
        opener: "<｜tool▁call▁begin｜>",
        closer: "<｜tool▁call▁end｜>",
        others: |scan, text| blocks::separated(scan, text, DEEPSEEK_SEPARATOR),
    },
    separator: DEEPSEEK_SEPARATOR,
    head: Head::TypeNameFence,
};

/// Per call `name<sep>{..}` (D2).
pub(super) const DEEPSEEK_V31: Syntax = Syntax { head: Head::Name, ..DEEPSEEK_V3 };

/// Per call `[functions.]name:index<sep>{..}` (K1).
pub(super) const KIMI_K2: Syntax = Syntax {
    open: "<|tool_calls_section_begin|>",
    close: "<|tool_calls_section_end|>",
    call: Markers {
        opener: "<|tool_call_begin|>",
        closer: "<|tool_call_end|>",
        others: |scan, text| blocks::separated(scan, text, KIMI_SEPARATOR),
    },
    separator: KIMI_SEPARATOR,
    head: Head::Id,
};

/// Whether the first call after a section opened at `at` that tells is written as in V3, not V3.1.
pub(super) fn is_deepseek_v3(text: &str, at: usize) -> bool {
    let mut bodies = text.get(at..).unwrap_or_default().split(DEEPSEEK_SEPARATOR).skip(1).map(str::trim_start);
    let fenced = |body: &str| body.split_once('\n').is_some_and(|(_, next)| next.trim_start().starts_with(FENCE));
    bodies.find(|body| body.starts_with('{') || fenced(body)).is_some_and(|body| !body.starts_with('{'))
}

/// A section under way.
#[derive(Debug, Clone, Copy)]
struct Section {
    at: usize,
    /// Where the next call or the closer must stand, but for blanks; unknown after a malformed call.
    expect: Option<usize>,
    empty: bool,
}

/// The parser of a format with sections.
pub(super) fn sections(scan: &mut Scan<'_, '_>, syntax: &Syntax) {
    let mut walk = Walk::new([syntax.open, syntax.call.opener, syntax.close], Tags::Think, Stops::Openers);
    let mut section: Option<Section> = None;
    // Whether there is a section besides the one that is open: one was met, or stands ahead.
    let mut met = false;
    let mut ahead = OnceCell::new();
    loop {
        let mark = walk.next(scan);
        if walk.take_restart() {
            (section, met, ahead) = (None, false, OnceCell::new());
        }
        let Some(Mark::Opener { which, at, end }) = mark else { break };
        section = match (which, section) {
            (0, open) => {
                if let Some(open) = open {
                    leave(scan, open, at, syntax, Leaving::Unclosed);
                }
                met = true;
                Some(Section { at, expect: Some(end), empty: true })
            }
            (1, Some(open)) => {
                stray_text(scan, open, at, syntax);
                let calls = scan.parsed.attempts.len();
                let next = section_call(scan, at..end, syntax);
                walk.resume(next);
                let well_formed = scan.parsed.attempts.get(calls).is_some_and(|attempt| attempt.result.is_ok());
                Some(Section { expect: well_formed.then_some(next), empty: false, ..open })
            }
            (2, Some(open)) => {
                leave(scan, open, at, syntax, Leaving::Closed(end));
                None
            }
            // Where there is a section, servers run the calls around it, too.
            (1, None) if met || *ahead.get_or_init(|| scan.rest(at).contains(syntax.open)) => {
                walk.resume(call_outside(scan, at..end, syntax));
                None
            }
            // Any other call or closer outside a section is content.
            (_, open) => open,
        };
    }
    if let Some(open) = section {
        leave(scan, open, scan.text.len(), syntax, Leaving::End);
    }
}

/// How a section ends.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    /// With its closer, which ends here.
    Closed(usize),
    /// With the text.
    End,
    /// By another section's opener.
    Unclosed,
}

/// Records a section whose end stands at `at`, and judges what stands between its last call and there.
fn leave(scan: &mut Scan<'_, '_>, section: Section, at: usize, syntax: &Syntax, leaving: Leaving) {
    scan.wrap(section.at..if let Leaving::Closed(end) = leaving { end } else { at });
    let stray = section.expect.filter(|expect| !scan.is_blank(*expect..at));
    let (code, what) = match (leaving, section.empty, stray) {
        (Leaving::Closed(_), true, None) => (ErrorCode::UnexpectedText, "a section without a call"),
        (Leaving::End, true, None) => (ErrorCode::Truncated, "the text ends before the section's first call"),
        (Leaving::Closed(_) | Leaving::End, false, None) => return,
        // The malformed call before says it all.
        (Leaving::Unclosed, false, None) if section.expect.is_none() => return,
        (Leaving::Closed(_), _, Some(_)) => (ErrorCode::UnexpectedText, "text between the calls of a section"),
        (Leaving::End | Leaving::Unclosed, ..) => (ErrorCode::MissingCloser, "the section is not closed"),
    };
    let start = if section.empty { section.at } else { stray.unwrap_or(at) };
    let end = match leaving {
        Leaving::Closed(end) if section.empty => end,
        // What closes nothing is the next opener.
        Leaving::Unclosed if start == at => at + syntax.open.len(),
        _ => at,
    };
    let place = stray.unwrap_or(start);
    scan.push(start..end, Vec::new(), Err(Fault::new(code, place, format!("{what} (`{}`)", syntax.close)).named(None)));
}

/// Records text that stands before the call at `at`.
fn stray_text(scan: &mut Scan<'_, '_>, section: Section, at: usize, syntax: &Syntax) {
    if let Some(expect) = section.expect
        && !scan.is_blank(expect..at)
    {
        let what = format!("text before `{}`", syntax.call.opener);
        scan.push(expect..at, Vec::new(), Err(Fault::new(ErrorCode::UnexpectedText, expect, what).named(None)));
    }
}

/// Reads and records a call; where the walk goes on.
fn section_call(scan: &mut Scan<'_, '_>, opener: Range<usize>, syntax: &Syntax) -> usize {
    let read = read_call(scan, opener.end, syntax);
    record(scan, opener, syntax.call, read)
}

/// Reads a call outside a section, and records it if it is whole; where the walk goes on.
fn call_outside(scan: &mut Scan<'_, '_>, opener: Range<usize>, syntax: &Syntax) -> usize {
    let room = scan.budget.room();
    if let Ok(Reading { call: Ok(call), end, repairs }) = read_call(scan, opener.end, syntax) {
        let what = format!("a call outside of a section (`{}`)", syntax.open);
        unopened(scan, opener.start..end, (call, repairs), what);
        return end;
    }
    scan.budget.rewind(room);
    opener.end
}

/// Reads a call behind its opener.
fn read_call<'t>(scan: &Scan<'t, '_>, at: usize, syntax: &Syntax) -> Read<'t> {
    let mut cursor = Cursor::new(scan.text, at);
    let name = head(&mut cursor, syntax).map_err(|fault| (fault, None))?;
    let mut reading = call::read_named(scan, name, cursor.at)?;
    if syntax.head == Head::TypeNameFence {
        reading.end = fence_end(scan.text, reading.end).map_err(|fault| (fault, Some(name)))?;
    }
    Ok(closed(scan, syntax.call, Closing::Required, reading))
}

/// The tool's name; afterwards the cursor stands where the arguments start.
fn head<'t>(cursor: &mut Cursor<'t>, syntax: &Syntax) -> Result<&'t str, Fault> {
    let start = cursor.at;
    let before = cursor.until2(b'<', b'{').unwrap_or_else(|| cursor.rest());
    if !cursor.eat(syntax.separator) {
        let cut = before.len() == cursor.text.len() - start || cursor.cut(syntax.separator);
        let code = if cut { ErrorCode::Truncated } else { ErrorCode::UnexpectedText };
        return Err(Fault::new(code, cursor.at, format!("no `{}` in the call", syntax.separator)));
    }
    let name = match syntax.head {
        Head::Name => before.trim(),
        Head::Id => id_name(before.trim(), start)?,
        Head::TypeNameFence => fenced_name(cursor)?,
    };
    if name.is_empty() {
        return Err(Fault::new(ErrorCode::BadName, start, "the tool's name is empty"));
    }
    Ok(name)
}

/// The name in `[functions.]name:index` (K1).
fn id_name(id: &str, at: usize) -> Result<&str, Fault> {
    match id.rsplit_once(':') {
        Some((name, index)) if !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(name.strip_prefix("functions.").unwrap_or(name))
        }
        _ => Err(Fault::new(ErrorCode::MissingIndex, at, "no `:index` at the end of the call's id")),
    }
}

/// The name on the line after the separator, and the start of the fence on the next (D1).
fn fenced_name<'t>(cursor: &mut Cursor<'t>) -> Result<&'t str, Fault> {
    let name = cursor.until3(b'\n', b'<', b'{').unwrap_or_default();
    if !cursor.eat_byte(b'\n') {
        let cut = name.is_empty() && !cursor.rest().contains(['\n', '<', '{']);
        let code = if cut { ErrorCode::Truncated } else { ErrorCode::UnexpectedText };
        return Err(Fault::new(code, cursor.at, "no newline after the tool's name"));
    }
    cursor.skip_blanks();
    if !cursor.eat("```json") {
        let code = if cursor.cut("```json") { ErrorCode::Truncated } else { ErrorCode::UnexpectedText };
        return Err(Fault::new(code, cursor.at, "no ```json after the tool's name"));
    }
    Ok(name.trim())
}

/// Where the fence that closes the arguments ends.
fn fence_end(text: &str, at: usize) -> Result<usize, Fault> {
    let mut cursor = Cursor::new(text, at);
    cursor.skip_blanks();
    if cursor.eat(FENCE) {
        return Ok(cursor.at);
    }
    let code = if cursor.cut(FENCE) { ErrorCode::Truncated } else { ErrorCode::UnexpectedText };
    Err(Fault::new(code, cursor.at, "no ``` after the arguments"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::laws::{calls, codes, parsed, tolerant};
    use crate::trajectory::ToolFormat::{DeepseekV3, DeepseekV31, KimiK2};

    const OPEN: &str = "<｜tool▁calls▁begin｜>";
    const CLOSE: &str = "<｜tool▁calls▁end｜>";

    fn v3(name: &str, json: &str) -> String {
        format!("<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{json}\n```<｜tool▁call▁end｜>")
    }

    fn v31(name: &str, json: &str) -> String {
        format!("<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{json}<｜tool▁call▁end｜>")
    }

    fn kimi(id: &str, json: &str) -> String {
        format!("<|tool_call_begin|>{id}<|tool_call_argument_begin|>{json}<|tool_call_end|>")
    }

    #[test]
    fn d1_deepseek_v3() {
        let text = format!("a{OPEN}{}\n{}{CLOSE}<｜end▁of▁sentence｜>", v3("f", "{\"a\":\n1}"), v3("g", "{}"));
        assert_eq!(calls(DeepseekV3, &text), [("f".into(), json!({"a": 1})), ("g".into(), json!({}))]);
        assert_eq!(codes(DeepseekV3, &format!("{OPEN}{}", v31("f", "{}"))), ["unexpected_text"]);
        let unfenced = v3("f", "{}").replace("\n```<", "<");
        assert_eq!(codes(DeepseekV3, &format!("{OPEN}{unfenced}{}", v3("g", "{}"))), ["unexpected_text", "ok"]);
    }

    #[test]
    fn d2_deepseek_v31() {
        let text = format!("{OPEN}{} {}{CLOSE} after", v31(" f ", "{\"a\":\n\"<｜tool▁call▁end｜>\"}"), v31("g", "{}"));
        assert_eq!(
            calls(DeepseekV31, &text),
            [("f".into(), json!({"a": "<｜tool▁call▁end｜>"})), ("g".into(), json!({}))]
        );
        let text = format!("{OPEN}{}, {}{CLOSE}", v31("f", "{}"), v31("g", "{}"));
        assert_eq!(codes(DeepseekV31, &text), ["ok", "unexpected_text", "ok"]);
    }

    #[test]
    fn c2_sections() {
        let call = v31("f", "{}");
        assert_eq!(codes(DeepseekV31, &format!("{OPEN}{call}\n")), ["ok"]);
        assert_eq!(codes(DeepseekV31, &call), [""; 0]);
        assert_eq!(codes(DeepseekV31, &format!("{OPEN}{call} hello")), ["ok", "missing_closer"]);
        assert_eq!(codes(DeepseekV31, &format!("{OPEN}{call}{OPEN}{call}")), ["ok", "missing_closer", "ok"]);
        let cut = call.replace("{}", "{\"a\":");
        assert_eq!(codes(DeepseekV31, &format!("{OPEN}{cut}{OPEN}{call}{CLOSE}")), ["json_syntax", "ok"]);
        let unclosed = format!("{OPEN}{call}{OPEN}{call}");
        let spans: Vec<_> = parsed(DeepseekV31, &unclosed).attempts.into_iter().map(|attempt| attempt.span).collect();
        assert!(spans.iter().all(|span| !span.is_empty()) && spans.is_sorted_by(|a, b| a.end <= b.start), "{spans:?}");
        assert_eq!(codes(DeepseekV31, &format!("{OPEN}{CLOSE}")), ["unexpected_text"]);
        assert_eq!(codes(DeepseekV31, OPEN), ["truncated"]);
        let unclosed = call.replace("<｜tool▁call▁end｜>", "");
        assert_eq!(codes(DeepseekV31, &format!("{OPEN}{unclosed}{call}{CLOSE}")), ["missing_closer", "ok"]);
        assert_eq!(codes(DeepseekV31, &format!("{OPEN}{unclosed}")), ["missing_closer"]);
        assert_eq!(tolerant(DeepseekV31, &format!("{OPEN}{unclosed}")), [vec!["missing_closer"]]);
        assert_eq!(codes(DeepseekV31, &format!("{OPEN}<think>{call}</think>{call}{CLOSE}")), ["ok"]);
        assert_eq!(codes(DeepseekV31, &format!("{OPEN}{call}</think>{call}{CLOSE}")), [""; 0]);
    }

    #[test]
    fn k1_kimi_k2() {
        let (open, close) = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>");
        let text = format!(
            "{open}{}{}{}{close}",
            kimi("functions.a.b-c:0", "{\"a\":1}"),
            kimi("g:12", "{}"),
            kimi("functions.functions.h:1", "{}")
        );
        assert_eq!(
            calls(KimiK2, &text),
            [("a.b-c".into(), json!({"a": 1})), ("g".into(), json!({})), ("functions.h".into(), json!({}))]
        );
        for (id, code) in
            [("f", "missing_index"), ("f:", "missing_index"), ("f:x", "missing_index"), (":0", "bad_name")]
        {
            assert_eq!(codes(KimiK2, &format!("{open}{}{close}", kimi(id, "{}"))), [code], "{id}");
        }
        assert_eq!(codes(KimiK2, &format!("{open}{}", kimi("f:0", "[]"))), ["not_an_object"]);
    }
}
