//! The final answer in a turn's text (rules E1 to E6). In: the text, and what of it is reasoning; out: the answer and
//! where it stands. Reasoning is taken out before anything is matched. Knows no metric and no format but harmony.

use std::borrow::Cow;
use std::ops::Range;
use std::str::FromStr;

use memchr::{memchr, memchr_iter, memchr2_iter};

use super::find::find;
use super::visible::Visible;
use super::{harmony, react, scan};
use crate::trajectory::ToolFormat;

named! {
    /// Where the answer is looked for.
    pub enum AnswerFrom {
        /// The last complete `<answer>..</answer>` outside `<information>` (E1).
        AnswerTag = "answer_tag",
        /// The last complete `\boxed{..}` (E2).
        Boxed = "boxed",
        /// After the last `####`, to the end of the line (E3).
        Hash4 = "hash4",
        /// After the last `Final Answer:` at a line start, to the end (E4).
        FinalAnswer = "final_answer",
        /// The assistant's last message in harmony's final channel (E5).
        HarmonyFinal = "harmony_final",
        /// As [`Self::AnswerTag`], if the whole text keeps the format of Search-R1 (E6).
        SearchR1 = "search_r1",
        /// All visible text.
        LastMessage = "last_message",
    }
}

/// A name that is no [`AnswerFrom`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown place of the answer {0:?}; one of: {names}", names = AnswerFrom::ALL.map(AnswerFrom::as_str).join(", "))]
pub struct UnknownAnswerFrom(pub String);

impl FromStr for AnswerFrom {
    type Err = UnknownAnswerFrom;

    fn from_str(name: &str) -> Result<Self, UnknownAnswerFrom> {
        Self::ALL.into_iter().find(|from| from.as_str() == name).ok_or_else(|| UnknownAnswerFrom(name.to_owned()))
    }
}

/// The answer and the bytes of `text` it takes; `None` if there is none.
///
/// `format` is the one that `text` was read in, which tells whether it has messages of its own. `hidden` are the ascending ranges
/// of `text` that hold no answer: [`Parsed::hidden`](super::Parsed::hidden). Where such a range lies inside the answer, the
/// answer is what stands around it, and the bytes are those of the whole.
pub fn extract<'t>(
    text: &'t str,
    format: Option<ToolFormat>,
    hidden: &[Range<usize>],
    from: AnswerFrom,
) -> Option<(Cow<'t, str>, Range<usize>)> {
    if from == AnswerFrom::HarmonyFinal {
        let kept = scan::drop_end_tokens(text, ToolFormat::Harmony);
        let range = harmony::last_final(kept)?;
        return Some((Cow::Borrowed(text.get(range.clone())?), range));
    }
    let text = scan::drop_end_tokens(text, ToolFormat::Auto);
    let visible = Visible::new(text, hidden);
    let shown = visible.text.as_ref();
    let message_end = |at: usize| match format {
        Some(ToolFormat::Harmony) if harmony::speaks(text) => harmony::body_end(shown, at),
        _ => shown.len(),
    };
    let range = match from {
        AnswerFrom::AnswerTag => answer_tag(shown),
        AnswerFrom::SearchR1 if search_r1_format(text) => answer_tag(shown),
        AnswerFrom::Boxed => boxed(shown),
        AnswerFrom::Hash4 => hash4(shown, message_end),
        AnswerFrom::FinalAnswer => final_answer(shown, message_end),
        AnswerFrom::LastMessage => Some(0..shown.len()),
        AnswerFrom::SearchR1 | AnswerFrom::HarmonyFinal => None,
    }?;
    visible.slice(trim(shown, range))
}

/// Whether a text keeps the format of Search-R1 (E6): think, any number of search, information and think, and answer,
/// with only whitespace between the blocks and none of these tags inside one.
pub fn search_r1_format(text: &str) -> bool {
    let mut rest = scan::drop_end_tokens(text, ToolFormat::SearchR1).trim();
    let mut expected: &[&str] = &["think"];
    while let Some((name, after)) = block(rest) {
        if !expected.contains(&name) {
            return false;
        }
        rest = after.trim_start();
        expected = match name {
            "think" => &["search", "answer"],
            "search" => &["information"],
            "information" => &["think"],
            _ => return rest.is_empty(),
        };
    }
    false
}

/// The block that a text starts with: its name, and what follows it.
fn block(text: &str) -> Option<(&'static str, &str)> {
    let (name, Side::Opens, length) = tag(text)? else { return None };
    let inside = text.get(length..)?;
    let (at, (closing, side, length)) =
        memchr_iter(b'<', inside.as_bytes()).find_map(|at| Some((at, tag(inside.get(at..)?)?)))?;
    (closing == name && side == Side::Closes).then(|| Some((name, inside.get(at + length..)?)))?
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Opens,
    Closes,
}

/// The tag of Search-R1 that a text starts with: its name, which one it is and its length.
fn tag(text: &str) -> Option<(&'static str, Side, usize)> {
    let inside = text.strip_prefix('<')?;
    let (inside, side) = inside.strip_prefix('/').map_or((inside, Side::Opens), |inside| (inside, Side::Closes));
    let name = ["think", "search", "information", "answer"]
        .into_iter()
        .find(|name| inside.strip_prefix(name).is_some_and(|after| after.starts_with('>')))?;
    Some((name, side, text.len() - inside.len() + name.len() + 1))
}

/// The range without the blanks at its ends.
fn trim(text: &str, range: Range<usize>) -> Range<usize> {
    let Some(slice) = text.get(range.clone()) else { return range };
    let start = range.start + slice.len() - slice.trim_start().len();
    start..(start + slice.trim().len())
}

/// The last `<answer>` that is closed, information left out (E1).
fn answer_tag(text: &str) -> Option<Range<usize>> {
    const INFORMATION_END: &str = "</information>";
    let mut open = None;
    let mut last = None;
    let mut at = 0;
    while let Some(step) = text.as_bytes().get(at..).and_then(|ahead| memchr(b'<', ahead)) {
        at += step;
        let rest = text.get(at..)?;
        if rest.starts_with("<answer>") {
            open = Some(at + "<answer>".len());
        } else if rest.starts_with("</answer>") {
            // Later closers find no opener: the first closer after an opener ends it.
            last = open.take().map(|open| open..at).or(last);
        } else if rest.starts_with("<information>") {
            match find(rest.as_bytes(), INFORMATION_END) {
                Some(length) => at += length,
                None => break,
            }
        }
        at += 1;
    }
    last
}

/// The last `\boxed{` whose brace is closed (E2).
fn boxed(text: &str) -> Option<Range<usize>> {
    const BOXED: &str = r"\boxed{";
    let bytes = text.as_bytes();
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut last: Option<Range<usize>> = None;
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(step) = bytes.get(at..).and_then(|ahead| memchr::memchr3(b'\\', b'{', b'}', ahead)) {
        at += step;
        let ahead = bytes.get(at..).unwrap_or_default();
        match ahead {
            [b'\\', ..] if ahead.starts_with(BOXED.as_bytes()) => {
                at += BOXED.len();
                open.push((at, depth));
                depth += 1;
                continue;
            }
            [b'\\', b'{' | b'}', ..] => at += 1,
            // `\\` is one escape, unless its second half starts a box.
            [b'\\', rest @ ..] if rest.starts_with(b"\\") && !rest.starts_with(BOXED.as_bytes()) => at += 1,
            [b'{', ..] => depth += 1,
            [b'}', ..] => {
                depth = depth.saturating_sub(1);
                if let Some((start, _)) = open.pop_if(|(_, outside)| *outside >= depth)
                    && last.as_ref().is_none_or(|last| start > last.start)
                {
                    last = Some(start..at);
                }
            }
            _ => {}
        }
        at += 1;
    }
    last
}

/// After the last run of exactly four `#`, to the end of the line or of the message (E3).
fn hash4(text: &str, message_end: impl Fn(usize) -> usize) -> Option<Range<usize>> {
    let mut last = None;
    let mut run = 0..0;
    for at in memchr_iter(b'#', text.as_bytes()) {
        run = if at == run.end { run.start..at + 1 } else { at..at + 1 };
        let ends = text.as_bytes().get(at + 1) != Some(&b'#');
        if ends && run.len() == 4 {
            last = Some(at + 1);
        }
    }
    let start = last?;
    let said = text.as_bytes().get(start..message_end(start))?;
    Some(start..start + memchr2_iter(b'\n', b'\r', said).next().unwrap_or(said.len()))
}

/// After the last `Final Answer:` at a line start, to the end of the message (E4).
fn final_answer(text: &str, message_end: impl Fn(usize) -> usize) -> Option<Range<usize>> {
    const LABEL: &str = "Final Answer:";
    let label = memchr::memmem::rfind_iter(text.as_bytes(), LABEL).find(|at| react::starts_line(text, *at))?;
    let start = label + LABEL.len();
    Some(start..message_end(start))
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // a list of ranges that happens to hold one
mod tests {
    use super::AnswerFrom::{AnswerTag, Boxed, FinalAnswer, HarmonyFinal, Hash4, LastMessage, SearchR1};
    use super::*;

    fn answer(text: &str, from: AnswerFrom) -> Option<String> {
        answer_in(None, text, from)
    }

    fn answer_in(format: Option<ToolFormat>, text: &str, from: AnswerFrom) -> Option<String> {
        let (answer, range) = extract(text, format, &[], from)?;
        assert_eq!(text[range], *answer);
        Some(answer.into_owned())
    }

    #[test]
    fn e1_answer_tag() {
        for (text, expected) in [
            ("<answer> a </answer> <answer>b\n</answer><|im_end|>", Some("b")),
            ("<answer>a</answer> <answer>b", Some("a")),
            ("in <answer> tags: <answer>a</answer>", Some("a")),
            ("<answer>a</answer></answer>", Some("a")),
            ("<answer>a</answer><information><answer>b</answer></information>", Some("a")),
            ("<answer>a</answer><information><answer>b</answer>", Some("a")),
            ("a", None),
            ("</answer><answer>", None),
            ("<answer></answer>", Some("")),
        ] {
            assert_eq!(answer(text, AnswerTag).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn e2_boxed() {
        for (text, expected) in [
            (r"\boxed{1} \boxed{ \frac{1}{2} }.", Some(r"\frac{1}{2}")),
            (r"\boxed{a} \boxed{b", Some("a")),
            (r"\boxed{a\}b\{c}", Some(r"a\}b\{c")),
            (r"\boxed{a \boxed{b} c}", Some("b")),
            (r"\boxed{a \boxed{b}", Some("b")),
            (r"} { \boxed{a}", Some("a")),
            (r"\\boxed{a}", Some("a")),
            (r"\boxed{a\\}", Some(r"a\\")),
            (r"\boxed{a", None),
            ("boxed{a}", None),
        ] {
            assert_eq!(answer(text, Boxed).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn e3_hash4() {
        for (text, expected) in [
            ("x #### 4\n#### 42 \nmore", Some("42")),
            ("##### 5 ### 3", None),
            ("####7", Some("7")),
            ("#### 1\n##### 2", Some("1")),
            ("#### 1\r\nx", Some("1")),
        ] {
            assert_eq!(answer(text, Hash4).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn e4_final_answer() {
        let text = "Final Answer: a\n Final Answer: b\nc\nnot Final Answer: d\n";
        assert_eq!(answer(text, FinalAnswer).as_deref(), Some("b\nc\nnot Final Answer: d"));
        assert_eq!(answer("so Final Answer: a", FinalAnswer), None);
    }

    #[test]
    fn e3_e4_an_answer_of_harmony_ends_with_its_message() {
        let final_message = |body: &str| format!("<|start|>assistant<|channel|>final<|message|>{body}<|return|>");
        let harmony = Some(ToolFormat::Harmony);
        assert_eq!(answer_in(harmony, &final_message("So\n#### Paris"), Hash4).as_deref(), Some("Paris"));
        assert_eq!(
            answer_in(harmony, &final_message("Final Answer: Paris,\nFrance"), FinalAnswer).as_deref(),
            Some("Paris,\nFrance")
        );
        let more = format!("<|channel|>final<|message|>#### 4<|end|>{}", final_message("Final Answer: 5"));
        assert_eq!(answer_in(harmony, &more, Hash4).as_deref(), Some("4"));
        let about = "The <|message|> token ends a header.\n#### What <|end|> means";
        for format in [harmony, Some(ToolFormat::Hermes), None] {
            assert_eq!(answer_in(format, about, Hash4).as_deref(), Some("What <|end|> means"), "{format:?}");
        }
    }

    #[test]
    fn e5_harmony_final() {
        let text = "<|channel|>final<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b<|return|>";
        assert_eq!(answer(text, HarmonyFinal).as_deref(), Some("b"));
        assert_eq!(answer("<|start|>user<|channel|>final<|message|>b<|end|>", HarmonyFinal), None);
        let call = "<|start|>assistant<|channel|>final to=functions.f<|message|>{\"a\": \"b\"}<|call|>";
        assert_eq!(answer(call, HarmonyFinal), None);
        assert_eq!(answer(&[text, call].concat(), HarmonyFinal).as_deref(), Some("b"));
        assert_eq!(answer("<|channel|>final to=user<|message|>a", HarmonyFinal).as_deref(), Some("a"));
    }

    #[test]
    fn e6_search_r1_format() {
        let turn = "<search>q</search>\n<information>i</information> <think>t</think>";
        let good = format!("<think>t</think>{turn}{turn}<answer>a</answer><|im_end|>");
        assert!(search_r1_format(&good));
        assert_eq!(answer(&good, SearchR1).as_deref(), Some("a"));
        for bad in [
            "<answer>a</answer>",
            "<think>t</think>",
            "<think>t</think> x <answer>a</answer>",
            "<think>t<search></think><answer>a</answer>",
            "<think>t</think><search>q</search><answer>a</answer>",
            "<think>t</think><answer>a</answer> x",
            "<think>t</think><answer>a",
            "",
        ] {
            assert!(!search_r1_format(bad), "{bad}");
            assert_eq!(answer(bad, SearchR1), None);
        }
    }

    #[test]
    fn reasoning_is_removed_before_matching() {
        let text = "<think><answer>x</answer></think> <ans<think>y</think>wer>a<think>z</think>b</answer>";
        let hidden = super::super::laws::parsed(ToolFormat::Hermes, text).reasoning;
        assert_eq!(hidden.len(), 3);
        let (found, range) = extract(text, None, &hidden, AnswerTag).unwrap();
        assert_eq!((found.as_ref(), &text[range]), ("ab", "a<think>z</think>b"));
        let (found, range) = extract(text, None, &hidden, LastMessage).unwrap();
        assert_eq!((found.as_ref(), range), ("<answer>ab</answer>", 34..text.len()));
        assert_eq!(extract("<think>a", None, &[0..8], LastMessage), Some((Cow::Borrowed(""), 0..0)));
        let (found, range) = extract("<think>a</think> hi <|im_end|>", None, &[0..16], LastMessage).unwrap();
        assert!(matches!(found, Cow::Borrowed("hi")) && range == (17..19));
    }

    #[test]
    fn names_go_there_and_back() {
        for from in AnswerFrom::ALL {
            assert_eq!(from.as_str().parse(), Ok(from));
        }
        assert!("x".parse::<AnswerFrom>().is_err());
    }
}
