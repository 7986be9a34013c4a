//! `auto`: which format a text is written in. In: a text; out: the format of its first distinctive marker outside
//! reasoning. Knows the markers, not the formats' syntax.

use std::cell::OnceCell;
use std::ops::Range;

use memchr::{memchr_iter, memchr3_iter};

use super::broken::{opens_call, opens_twice};
use super::budget::{Budget, Room};
use super::call::ReadObject;
use super::cursor::Cursor;
use super::find::{find, find_iter};
use super::scan;
use super::tagged::HERMES;
use super::{
    Attempt, ErrorCode, NoTools, Options, Parsed, functionary, harmony, json, lists, parse, pythonic, qwen3_coder,
    react, sections,
};
use crate::trajectory::{ParseMode, ToolFormat};

/// The format of a text, or `None` if it holds no marker.
pub fn detect(text: &str) -> Option<ToolFormat> {
    Search::new(scan::drop_end_tokens(text, ToolFormat::Auto), Tag::NoneMet).format()
}

/// The format of a whole rollout, or `None` if it holds no marker. An observation ends a turn there, and what stands behind it may
/// be an action again.
pub fn detect_rollout(text: &str) -> Option<ToolFormat> {
    let mut search = Search::new(scan::drop_end_tokens(text, ToolFormat::Auto), Tag::NoneMet);
    let first = search.first_marker()?.format;
    if first == ToolFormat::React { Some(first) } else { search.format() }
}

/// The format of what is said behind reasoning that was passed: a closer in it is content.
pub(super) fn detect_said(text: &str) -> Option<ToolFormat> {
    Search::new(scan::drop_end_tokens(text, ToolFormat::Auto), Tag::Met).format()
}

/// A search for the marker that decides.
struct Search<'t> {
    text: &'t str,
    /// Where it starts, and whether a reasoning tag stands before that.
    from: usize,
    tag: Tag,
    /// The formats whose markers do not decide.
    passed: Vec<ToolFormat>,
    /// What tells the formats of one marker apart, found out at the first one since `from`: a text may be full of them.
    has_function: OnceCell<bool>,
    closes_list: OnceCell<bool>,
    is_deepseek_v3: OnceCell<bool>,
}

impl<'t> Search<'t> {
    fn new(text: &'t str, tag: Tag) -> Self {
        let (has_function, closes_list, is_deepseek_v3) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Self { text, from: 0, tag, passed: Vec::new(), has_function, closes_list, is_deepseek_v3 }
    }

    /// The format of the first marker; where that promises nothing, of the first other one that does: a word of another format
    /// would hide every call. What stands in Mistral's brackets is looked at last.
    fn format(mut self) -> Option<ToolFormat> {
        let first = self.first_marker()?;
        if !is_quiet(self.text, first) {
            return Some(first.format);
        }
        let (from, tag) = (self.from, self.tag);
        let behind = self.other(first.format, Brackets::Passed);
        self.resume(from, tag);
        behind.or_else(|| self.other(first.format, Brackets::Searched)).or(Some(first.format))
    }

    /// The format of the first marker of another one than `first` with an attempt that is more than a word.
    fn other(&mut self, first: ToolFormat, brackets: Brackets) -> Option<ToolFormat> {
        self.passed.clear();
        let mut latest = first;
        loop {
            if latest == ToolFormat::Mistral && brackets == Brackets::Passed {
                let from = find(self.text.as_bytes(), "[/THINK]").unwrap_or_default();
                self.resume(from.max(self.from), self.tag);
            }
            self.passed.push(latest);
            latest = self.first_marker()?.format;
            if holds(self.text, latest).attempts.iter().any(|attempt| goes_on(latest, attempt)) {
                return Some(latest);
            }
        }
    }

    /// Leaves out what stands before `from`, as what tells formats apart: reasoning may be about other ones.
    fn resume(&mut self, from: usize, tag: Tag) {
        (self.from, self.tag) = (from, tag);
        (self.closes_list, self.is_deepseek_v3) = (OnceCell::new(), OnceCell::new());
    }

    /// The first marker outside reasoning. Once the template opened some, nothing in it is looked at again.
    fn first_marker(&mut self) -> Option<Marker> {
        let first = self.marker()?;
        if first.tag == Tag::Met {
            return Some(first);
        }
        // A later `</think>` may make all before it reasoning, unless it stands in a call: the parser can tell.
        let closes = find(self.text.as_bytes().get(first.at..)?, "</think>").is_some();
        if !closes {
            return Some(first);
        }
        match holds(self.text, first.format).reasoning.first() {
            Some(reasoning) if reasoning.start == 0 && reasoning.end > first.at => {
                self.resume(reasoning.end, Tag::Met);
                self.marker()
            }
            _ => Some(first),
        }
    }

    /// The first marker at or after `from`, where a message may start, that is of none of the formats in `passed`.
    fn marker(&self) -> Option<Marker> {
        let (text, mut tag, mut piece) = (self.text, self.tag, self.from);
        let mut leading = true;
        loop {
            let rest = text.get(piece..)?;
            let start = text.len() - rest.trim_start().len();
            let think = next_tag(text, piece);
            let end = think.map_or(text.len(), |(at, _)| at);
            if leading && start < end {
                leading = false;
                if let Some(format) = bare(text, start).filter(|format| !self.passed.contains(format)) {
                    return Some(Marker { format, at: start, tag });
                }
            }
            if let Some((format, at)) = self.marker_in(piece, end) {
                return Some(Marker { format, at, tag });
            }
            let (at, kind) = think?;
            piece = match kind {
                Kind::Closes => {
                    // After the first tag of all the message starts; a stray closer is its start.
                    leading = tag == Tag::NoneMet;
                    at + "</think>".len()
                }
                Kind::Opens => {
                    let closer = find(text.as_bytes().get(at..)?, "</think>")?;
                    at + closer + "</think>".len()
                }
            };
            tag = Tag::Met;
        }
    }

    /// The first marker that starts in `from..end` and is of none of the formats in `passed`.
    fn marker_in(&self, from: usize, end: usize) -> Option<(ToolFormat, usize)> {
        let text = self.text;
        let is_new = |(format, _): &(ToolFormat, usize)| !self.passed.contains(format);
        let piece = text.get(from..end)?.as_bytes();
        let angle =
            memchr_iter(b'<', piece).find_map(|at| Some((self.angle_marker(from + at)?, from + at)).filter(is_new));
        // The other markers matter only if they come first.
        let piece = piece.get(..angle.map_or(piece.len(), |(_, at)| at - from))?;
        memchr3_iter(b'[', b':', b'>', piece)
            .find_map(|anchor| other_marker(text, piece, from, anchor).filter(is_new))
            .or(angle)
    }

    /// The format of a marker that starts with `<` at `at`.
    fn angle_marker(&self, at: usize) -> Option<ToolFormat> {
        const PLAIN: [(&str, ToolFormat); 11] = [
            ("<|python_tag|>", ToolFormat::Llama3Json),
            ("<|tool_calls_section_begin|>", ToolFormat::KimiK2),
            ("<|start|>", ToolFormat::Harmony),
            ("<|channel|>", ToolFormat::Harmony),
            ("<|message|>", ToolFormat::Harmony),
            ("<|tool_call|>", ToolFormat::Granite),
            ("<function_call>", ToolFormat::Granite20bFc),
            ("<|action_start|>", ToolFormat::Internlm),
            ("<function=", ToolFormat::FunctionaryV31),
            ("<search>", ToolFormat::SearchR1),
            ("<｜tool▁calls▁begin｜>", ToolFormat::DeepseekV31),
        ];
        let text = self.text;
        // Most `<` open no marker: one look at the next byte saves the table. 0xEF begins the bar of DeepSeek's tokens.
        if !matches!(text.as_bytes().get(at + 1), Some(b'|' | b't' | b'f' | b's' | 0xEF)) {
            return None;
        }
        let rest = text.get(at..)?;
        if let Some(inside) = rest.strip_prefix(HERMES.opener) {
            return Some(of_tool_call(text, inside));
        }
        let (_, format) = PLAIN.iter().find(|(marker, _)| rest.starts_with(marker))?;
        match format {
            // The first tag of such a block is often forgotten; one that is cut off as well may be any text.
            ToolFormat::FunctionaryV31
                if qwen3_coder::is_function(text, at) && *self.has_function.get_or_init(|| holds_function(text)) =>
            {
                Some(ToolFormat::Qwen3Coder)
            }
            ToolFormat::Granite
                if lists::is_phi4_mini(text, at) || *self.closes_list.get_or_init(|| lists::closes_list(text, at)) =>
            {
                Some(ToolFormat::Phi4Mini)
            }
            ToolFormat::DeepseekV31 if *self.is_deepseek_v3.get_or_init(|| sections::is_deepseek_v3(text, at)) => {
                Some(ToolFormat::DeepseekV3)
            }
            format => Some(*format),
        }
    }
}

/// The format of a text with a `<tool_call>`, by what stands inside.
fn of_tool_call(text: &str, inside: &str) -> ToolFormat {
    // Blanks of any kind: with one that JSON does not know these are broken calls of the usual form.
    let inside = inside.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{FEFF}');
    if inside.starts_with("<function=") {
        return ToolFormat::Qwen3Coder;
    }
    // A list is no name: granite's, if it stands where granite writes it and is all there is.
    let is_list = inside.starts_with('[');
    if is_list && !inside.contains(HERMES.opener) && holds(text, ToolFormat::Granite).calls().next().is_some() {
        return ToolFormat::Granite;
    }
    if is_list || inside.starts_with('{') { ToolFormat::Hermes } else { ToolFormat::Glm45 }
}

/// Whether an attempt is more than the word of somebody who only writes about it: `<search>` is an element of HTML, and an action
/// may be any. The other markers are nobody's words, and what breaks behind one is no less an attempt where another one precedes it.
fn goes_on(format: ToolFormat, attempt: &Attempt<'_>) -> bool {
    use ErrorCode::{MissingArguments, MissingCloser, Truncated};
    !matches!(format, ToolFormat::SearchR1 | ToolFormat::React)
        || attempt.result.as_ref().err().is_none_or(|e| !matches!(e.code, MissingArguments | MissingCloser | Truncated))
}

/// Whether nothing in a text is what this marker promises. Few can be, and only where something stands before them: most texts are
/// not read for it.
fn is_quiet(text: &str, marker: Marker) -> bool {
    let before = text.as_bytes().get(..marker.at).unwrap_or_default();
    let may_be = match marker.format {
        // Braces too many may be those of a template.
        ToolFormat::Llama3Json => return opens_twice(Cursor::new(text, marker.at)),
        ToolFormat::Harmony => !harmony::speaks(text),
        ToolFormat::Granite => !lists::starts_message(text, marker.at),
        ToolFormat::React => find(before, "Observation:").is_some(),
        ToolFormat::SearchR1 => ["<information>", "<answer>"].iter().any(|opener| find(before, opener).is_some()),
        ToolFormat::FunctionaryV32 | ToolFormat::Mistral => true,
        // With each marker of the others an attempt begins.
        _ => false,
    };
    may_be && holds(text, marker.format).attempts.is_empty()
}

/// Whether an attempt of `qwen3_coder` has its end.
fn holds_function(text: &str) -> bool {
    let whole = |span: Range<usize>| text.get(span).is_some_and(|block| block.contains("</function>"));
    holds(text, ToolFormat::Qwen3Coder).attempts.into_iter().any(|attempt| whole(attempt.span))
}

/// What a text holds when read in a format.
fn holds(text: &str, format: ToolFormat) -> Parsed<'_> {
    parse(text, &Options { format, mode: ParseMode::Strict, ..Options::default() }, &NoTools)
}

/// Whether a reasoning tag was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    NoneMet,
    Met,
}

/// Whether calls are looked for in `[THINK]..[/THINK]`, which is reasoning only where the text is Mistral's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Brackets {
    Passed,
    Searched,
}

/// A marker outside reasoning.
#[derive(Debug, Clone, Copy)]
struct Marker {
    format: ToolFormat,
    at: usize,
    tag: Tag,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Opens,
    Closes,
}

fn next_tag(text: &str, from: usize) -> Option<(usize, Kind)> {
    let rest = text.get(from..)?;
    find_iter(rest.as_bytes(), "think>").find_map(|tail| {
        let before = rest.get(..tail)?;
        if before.ends_with("</") {
            return Some((from + tail - 2, Kind::Closes));
        }
        before.ends_with('<').then(|| (from + tail - 1, Kind::Opens))
    })
}

/// The format of a message that starts at `at` without a marker.
fn bare(text: &str, at: usize) -> Option<ToolFormat> {
    let rest = text.get(at..)?;
    if rest.starts_with("[THINK]") {
        return Some(ToolFormat::Mistral);
    }
    if pythonic::is_message(text, at) {
        return Some(ToolFormat::Pythonic);
    }
    if !rest.starts_with('{') {
        return None;
    }
    let is_call = match json::read(text, at, ReadObject(&Budget::new(Room::default(), 0))) {
        Ok((object, _)) => object.is_named_with_arguments(),
        Err(_) => opens_call(Cursor::new(text, at)),
    };
    is_call.then_some(ToolFormat::Llama3Json)
}

/// The marker without a `<` that has its first rare byte at `anchor` of a piece of the text, which starts at `from`. No such
/// byte stands before it in any marker, so that the first one found is the first one there is.
fn other_marker(text: &str, piece: &[u8], from: usize, anchor: usize) -> Option<(ToolFormat, usize)> {
    let starts = |marker: &str, ahead: usize| {
        let start = anchor.checked_sub(ahead)?;
        piece.get(start..)?.starts_with(marker.as_bytes()).then_some(from + start)
    };
    match piece.get(anchor)? {
        b'[' => starts("[TOOL_CALLS]", 0)
            .map(|at| (ToolFormat::Mistral, at))
            .or_else(|| Some((ToolFormat::Phi4Mini, starts("functools[", 9)?))),
        b':' => starts("Action:", 6).filter(|at| react::starts_line(text, *at)).map(|at| (ToolFormat::React, at)),
        _ => starts(">>>", 0)
            .filter(|at| functionary::is_recipient(text, *at))
            .map(|at| (ToolFormat::FunctionaryV32, at)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{calls, codes};
    use super::*;

    #[test]
    fn auto_finds_every_format_by_its_marker() {
        use ToolFormat as F;
        let cases = [
            ("a <tool_call>\n{}", Some(F::Hermes)),
            ("<tool_call>\n<function=f>", Some(F::Qwen3Coder)),
            ("<tool_call>f\n", Some(F::Glm45)),
            ("ok <function=f>\n<parameter=a>\nx</parameter>", Some(F::FunctionaryV31)),
            ("ok <function=f>\n<parameter=a>\nx</parameter></function></tool_call>", Some(F::Qwen3Coder)),
            ("<function=f>\n</function>\n</tool_call>", Some(F::Qwen3Coder)),
            ("<tool_call>[{\"name\":\"f\",\"arguments\":{}}]</tool_call>", Some(F::Granite)),
            ("hi <tool_call>[{\"name\":\"f\",\"arguments\":{}}]</tool_call>", Some(F::Hermes)),
            ("<tool_call> [{\"name\":", Some(F::Hermes)),
            ("hi [TOOL_CALLS]f{}", Some(F::Mistral)),
            ("hi <|python_tag|>{", Some(F::Llama3Json)),
            ("{\"name\": \"f\", \"parameters\": {}} x", Some(F::Llama3Json)),
            ("{\"name\": \"f\"}", None),
            ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{}", Some(F::DeepseekV3)),
            ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}", Some(F::DeepseekV31)),
            ("<|tool_calls_section_begin|>", Some(F::KimiK2)),
            ("<|channel|>analysis<|message|>x <tool_call>{}", Some(F::Harmony)),
            ("<|start|>assistant", Some(F::Harmony)),
            ("<|tool_call|>[{}]", Some(F::Granite)),
            ("<function_call>{}", Some(F::Granite20bFc)),
            ("functools[{}]", Some(F::Phi4Mini)),
            ("<|action_start|><|plugin|>{}", Some(F::Internlm)),
            ("<function=f>{}", Some(F::FunctionaryV31)),
            (">>>f\n{}", Some(F::FunctionaryV32)),
            (">>> print(1)", None),
            ("<search>q</search>", Some(F::SearchR1)),
            ("Thought: x\n Action: f\nAction Input: {}", Some(F::React)),
            ("My Action: f", None),
            ("[f(a=1)]", Some(F::Pythonic)),
            ("<|python_start|>[f(a=1)]<|python_end|><|eot|>", Some(F::Pythonic)),
            ("<|python_start|>[f(a=1)]<|python_end|>", Some(F::Pythonic)),
            ("[f(a=1)] is Python", None),
            ("plain", None),
            ("", None),
        ];
        for (text, format) in cases {
            assert_eq!(detect(text), format, "{text}");
        }
    }

    #[test]
    fn auto_looks_outside_reasoning_only() {
        assert_eq!(detect("<think><search>a</search></think>[TOOL_CALLS]f{}"), Some(ToolFormat::Mistral));
        assert_eq!(detect("<search>a</search> hm</think>[TOOL_CALLS]f{}"), Some(ToolFormat::Mistral));
        assert_eq!(detect("<think>[TOOL_CALLS]f{}"), None);
        let data = r#"<tool_call>{"name":"f","arguments":{"a":"</think>[TOOL_CALLS]"}}</tool_call>"#;
        assert_eq!(detect(data), Some(ToolFormat::Hermes));
        assert_eq!(detect("hm</think>\n[f(a=1)]"), Some(ToolFormat::Pythonic));
        let mistral = "\n[THINK]Let me see.\nAction: think\n[/THINK][TOOL_CALLS]f{\"a\":1}";
        assert_eq!(detect(mistral), Some(ToolFormat::Mistral));
        assert_eq!(calls(ToolFormat::Auto, mistral), [("f".into(), serde_json::json!({"a": 1}))]);
        let list = "<tool_call>[{\"name\":\"f\",\"arguments\":{}}]</tool_call>";
        assert_eq!(codes(ToolFormat::Auto, list), ["ok"]);
        assert_eq!(codes(ToolFormat::Auto, &format!("hi {list}")), ["not_an_object"]);
        assert_eq!(detect("The [THINK] tag. <search>a</search>"), Some(ToolFormat::SearchR1));
    }
}
