//! One call object between markers: `hermes`, `granite_20b_fc` and `internlm`; and closing a block, for every family
//! whose blocks hold JSON. In: a [`Scan`]; out: its attempts.

use std::borrow::Cow;
use std::ops::Range;

use super::call::{self, Read, Reading};
use super::codes::Fault;
use super::find::find;
use super::reasoning::{Mark, Stops, Tags, Walk};
use super::scan::{Markers, Scan};
use super::{Call, ErrorCode, Repair, blocks, cursor};

/// `<tool_call>{"name": .., "arguments": ..}</tool_call>`.
pub(super) const HERMES: Markers = Markers { opener: "<tool_call>", closer: "</tool_call>", others: blocks::objects };

/// `<function_call>{"name": .., "arguments": ..}`, without a closer.
pub(super) const GRANITE_20B_FC: Markers = Markers { opener: "<function_call>", closer: "", others: blocks::objects };

/// The parser of formats with an object directly behind a marker.
pub(super) fn objects(scan: &mut Scan<'_, '_>, markers: Markers) {
    let mut walk = Walk::new([markers.opener], Tags::Think, Stops::Openers);
    while let Some(Mark::Opener { at, end, .. }) = walk.next(scan) {
        walk.resume(object_block(scan, at..end, markers, Closing::Required));
    }
}

/// `<|action_start|><|plugin|>{"name": .., "parameters": ..}<|action_end|>`.
pub(super) fn internlm(scan: &mut Scan<'_, '_>) {
    const PLUGIN: &str = "<|plugin|>";
    let markers = Markers { opener: "<|action_start|>", closer: "<|action_end|>", others: blocks::objects };
    let mut walk = Walk::new([markers.opener], Tags::Think, Stops::Openers);
    while let Some(Mark::Opener { at, end, .. }) = walk.next(scan) {
        let plugin = cursor::skip_blanks(scan.text, end);
        let rest = scan.rest(plugin);
        if rest.starts_with(PLUGIN) {
            walk.resume(object_block(scan, at..plugin + PLUGIN.len(), markers, Closing::StopToken));
            continue;
        }
        let cut = PLUGIN.starts_with(rest);
        let code = if cut { ErrorCode::Truncated } else { ErrorCode::UnexpectedText };
        let fault = Fault::new(code, plugin, "no `<|plugin|>` after `<|action_start|>`");
        scan.fail(at, end, markers, plugin, fault.named(None));
    }
}

/// Whether a block needs its closer where the text ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    /// Yes.
    Required,
    /// No: the closer is a token that stops generation, so that servers cut it off (C1).
    StopToken,
}

/// Reads a call object and its closer after the opening marker at `opener`; where the walk goes on.
fn object_block(scan: &mut Scan<'_, '_>, opener: Range<usize>, markers: Markers, closing: Closing) -> usize {
    let read = call::read(scan, opener.end).map_err(|fault| (fault, None));
    let read = read.map(|reading| closed(scan, markers, closing, reading));
    record(scan, opener, markers, read)
}

/// Records what was read after the opening marker at `opener`; where the walk goes on.
pub(super) fn record<'t>(scan: &mut Scan<'t, '_>, opener: Range<usize>, markers: Markers, read: Read<'t>) -> usize {
    let (stop, malformed) = match read {
        Ok(Reading { call: Ok(call), end, repairs }) => {
            scan.push(opener.start..end, repairs, Ok(call));
            return end;
        }
        Ok(Reading { call: Err(malformed), end, .. }) => (end, malformed),
        Err((fault, name)) => (fault.at, fault.named(name)),
    };
    scan.fail(opener.start, opener.end, markers, stop, malformed);
    opener.end
}

/// Records a whole call that lacks the opener around it: malformed, but for tolerant parsing.
pub(super) fn unopened<'t>(
    scan: &mut Scan<'t, '_>,
    span: Range<usize>,
    (call, mut repairs): (Call<'t>, Vec<Repair>),
    what: impl Into<Cow<'static, str>>,
) {
    if scan.tolerant() {
        repairs.insert(0, Repair::MissingOpener);
        scan.push(span, repairs, Ok(call));
        return;
    }
    let fault = Fault::new(ErrorCode::UnexpectedText, span.start, what);
    scan.push(span, Vec::new(), Err(fault.named(Some(&call.name))));
}

/// A reading with the closer behind it, or without a call where that is not as it should be.
pub(super) fn closed<'t>(scan: &Scan<'t, '_>, markers: Markers, closing: Closing, reading: Reading<'t>) -> Reading<'t> {
    let Reading { call: Ok(call), end, mut repairs } = reading else { return reading };
    match close(scan, end, markers, closing, &mut repairs) {
        Ok(end) => Reading { call: Ok(call), end, repairs },
        Err(fault) => Reading { call: Err(fault.named(Some(&call.name))), end, repairs },
    }
}

/// Where the closer after `end` ends.
fn close(
    scan: &Scan<'_, '_>,
    end: usize,
    markers: Markers,
    closing: Closing,
    repairs: &mut Vec<Repair>,
) -> Result<usize, Fault> {
    let Markers { opener, closer, .. } = markers;
    if closer.is_empty() {
        return Ok(end);
    }
    let at = cursor::skip_blanks(scan.text, end);
    let rest = scan.rest(at);
    if rest.starts_with(closer) {
        return Ok(at + closer.len());
    }
    if closer.starts_with(rest) {
        if closing == Closing::StopToken {
            return Ok(scan.text.len());
        }
        if scan.tolerant() {
            super::lenient::note(repairs, Repair::MissingCloser);
            return Ok(scan.text.len());
        }
        return Err(Fault::new(ErrorCode::MissingCloser, end, format!("the text ends without `{closer}`")));
    }
    // Looking no further than the next opener keeps the whole parse linear.
    let next = find(rest.as_bytes(), opener).unwrap_or(rest.len());
    let own = rest.as_bytes().get(..next).unwrap_or_default();
    if find(own, closer).is_some() {
        return Err(Fault::new(ErrorCode::UnexpectedText, at, format!("text between the call and `{closer}`")));
    }
    Err(Fault::new(ErrorCode::MissingCloser, end, format!("no `{closer}` after the call")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::laws::{calls, codes, parsed, tolerant};
    use crate::trajectory::ToolFormat::{Granite20bFc, Hermes, Internlm};

    #[test]
    fn g2_calls_in_text_order_repeats_kept() {
        let one = r#"<tool_call>{"name":"f","arguments":{"a":1}}</tool_call>"#;
        let text = format!("x {one} y\n{one}");
        assert_eq!(calls(Hermes, &text), [("f".into(), json!({"a": 1})), ("f".into(), json!({"a": 1}))]);
        let spans: Vec<_> = parsed(Hermes, &text).attempts.iter().map(|attempt| attempt.span.clone()).collect();
        assert_eq!(spans, [2..2 + one.len(), 5 + one.len()..5 + 2 * one.len()]);
    }

    #[test]
    fn g4_a_broken_block_keeps_its_neighbours() {
        let good = r#"<tool_call>{"name":"f","arguments":{}}</tool_call>"#;
        let text = format!("{good}<tool_call>{{oops</tool_call>{good}<tool_call>{good}");
        assert_eq!(codes(Hermes, &text), ["ok", "json_syntax", "ok", "json_syntax", "ok"]);
    }

    #[test]
    fn c1_a_missing_closer_is_malformed() {
        let text = r#"<tool_call>{"name":"f","arguments":{}}"#;
        assert_eq!(codes(Hermes, text), ["missing_closer"]);
        assert_eq!(codes(Hermes, &format!("{text}\n{text}</tool_call>")), ["missing_closer", "ok"]);
        assert_eq!(codes(Hermes, &format!("{text} {{}}</tool_call>")), ["unexpected_text"]);
        assert_eq!(tolerant(Hermes, text), [vec!["missing_closer"]]);
        let text = r#"<|action_start|> <|plugin|>{"name":"f","parameters":{}}"#;
        assert_eq!(codes(Internlm, text), ["ok"]);
        assert_eq!(codes(Internlm, &format!("{text}<|action_end|> done")), ["ok"]);
        assert_eq!(codes(Internlm, &format!("{text} done")), ["missing_closer"]);
    }

    #[test]
    fn c4_marker_inside_string_is_data() {
        let text = r#"<tool_call>{"name":"f","arguments":{"a":"</tool_call><tool_call><think>"}}</tool_call>"#;
        assert_eq!(calls(Hermes, text), [("f".into(), json!({"a": "</tool_call><tool_call><think>"}))]);
    }

    #[test]
    fn j5_j6_call_objects() {
        for (object, code) in [
            (r#"{"name":"f","parameters":{}}"#, "ok"),
            (r#"{"arguments":{},"id":1,"name":"f"}"#, "ok"),
            (r#"{"name":"f","arguments":"{\"a\":1}"}"#, "ok"),
            (r#"{"arguments":{}}"#, "missing_name"),
            (r#"{"name":"","arguments":{}}"#, "bad_name"),
            (r#"{"name":[1],"arguments":{}}"#, "bad_name"),
            (r#"{"name":"f"}"#, "missing_arguments"),
            (r#"{"name":"f","arguments":{},"parameters":{}}"#, "ambiguous_arguments"),
            (r#"{"name":"f","arguments":null}"#, "bad_arguments"),
            (r#"{"name":"f","arguments":[]}"#, "bad_arguments"),
            (r#"{"name":"f","arguments":" "}"#, "bad_arguments"),
            (r#"{"name":"f","arguments":"\"{}\""}"#, "bad_arguments"),
            (r#"{"name":"f","arguments":{},"x":1e999}"#, "json_number"),
            (r#"{"name":"f","arguments":{},"x":"\ud800"}"#, "json_surrogate"),
            ("[]", "not_an_object"),
            ("7", "not_an_object"),
            (r#"{"name":"f","arguments":{"a":"#, "json_syntax"),
        ] {
            assert_eq!(codes(Hermes, &format!("<tool_call>\n{object}\n</tool_call>")), [code], "{object}");
        }
        assert_eq!(codes(Hermes, r#"<tool_call>{"name":"f","arguments":{"a":"#), ["truncated"]);
        assert_eq!(codes(Hermes, "<tool_call>"), ["truncated"]);
        let deep = format!(r#"<tool_call>{{"name":"f","arguments":{}"#, "[".repeat(200));
        assert_eq!(codes(Hermes, &deep), ["too_deep"]);
    }

    #[test]
    fn g5_names_in_json_are_not_trimmed() {
        assert_eq!(calls(Hermes, r#"<tool_call>{"name":" f","arguments":{}}</tool_call>"#), [(" f".into(), json!({}))]);
    }

    #[test]
    fn r2_granite_20b_fc() {
        let one = r#"<function_call> {"name":"f","arguments":{}}"#;
        assert_eq!(codes(Granite20bFc, &format!("{one}{one} text")), ["ok", "ok"]);
        assert_eq!(codes(Granite20bFc, "<function_call>none"), ["json_syntax"]);
    }

    #[test]
    fn i1_internlm_needs_the_plugin_marker() {
        assert_eq!(codes(Internlm, "<|action_start|><|interpreter|>x<|action_end|>"), ["unexpected_text"]);
        assert_eq!(codes(Internlm, "<|action_start|>"), ["truncated"]);
    }

    #[test]
    fn tolerant_repairs_are_listed() {
        let text = "<tool_call>{'name': 'f', 'args': {'a': True,},}</tool_call>";
        assert_eq!(codes(Hermes, text), ["json_syntax"]);
        assert_eq!(tolerant(Hermes, text), [vec!["single_quotes", "python_literal", "trailing_comma", "alias_key"]]);
    }
}
