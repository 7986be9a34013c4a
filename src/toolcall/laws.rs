//! What the tests of the format families share, and the laws that hold for every format and every text.

use proptest::prelude::*;
use serde_json::Value;

use super::{Attempt, Declared, ErrorCode, NoTools, Offered, Options, Parsed, detect, parse, parse_native};
use crate::trajectory::{ParseMode, ToolFormat};

/// One tool `f` with an integer parameter `n` and a string parameter `s`.
struct OneTool;

impl Offered for OneTool {
    fn offers(&self, name: &str) -> bool {
        name == "f"
    }

    fn declared(&self, tool: &str, parameter: &str) -> Declared {
        match (tool, parameter) {
            ("f", "n") => Declared::INTEGER,
            ("f", "s") => Declared::STRING,
            _ => Declared::EMPTY,
        }
    }
}

fn options(format: ToolFormat, mode: ParseMode) -> Options {
    Options { format, mode, ..Options::default() }
}

pub(super) fn parsed(format: ToolFormat, text: &str) -> Parsed<'_> {
    parse(text, &options(format, ParseMode::Strict), &NoTools)
}

/// Name and arguments of every well-formed call, with no tools offered.
pub(super) fn calls(format: ToolFormat, text: &str) -> Vec<(String, Value)> {
    parsed(format, text).calls().map(|call| (call.name.to_string(), call.arguments.clone())).collect()
}

/// As [`calls`], with `f` offered.
pub(super) fn typed_calls(format: ToolFormat, text: &str) -> Vec<(String, Value)> {
    let parsed = parse(text, &options(format, ParseMode::Strict), &OneTool);
    parsed.calls().map(|call| (call.name.to_string(), call.arguments.clone())).collect()
}

/// The code of every attempt, `ok` for a well-formed one.
pub(super) fn codes(format: ToolFormat, text: &str) -> Vec<&'static str> {
    let attempts = parsed(format, text).attempts;
    attempts.iter().map(|attempt| attempt.result.as_ref().map_or_else(|m| m.code.as_str(), |_| "ok")).collect()
}

/// The repairs of every well-formed attempt in tolerant mode.
pub(super) fn tolerant(format: ToolFormat, text: &str) -> Vec<Vec<&'static str>> {
    let attempts = parse(text, &options(format, ParseMode::Tolerant), &NoTools).attempts;
    let repaired = attempts.iter().filter(|attempt| attempt.result.is_ok());
    repaired.map(|attempt| attempt.repairs.iter().map(|repair| repair.as_str()).collect()).collect()
}

/// A well-formed call `f` with `{"a": "x"}` in every format that has text.
const EXAMPLES: [(ToolFormat, &str); 18] = [
    (ToolFormat::Hermes, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"x\"}}\n</tool_call>"),
    (ToolFormat::Qwen3Coder, "<tool_call>\n<function=f>\n<parameter=a>\nx\n</parameter>\n</function>\n</tool_call>"),
    (ToolFormat::Glm45, "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>x</arg_value>\n</tool_call>"),
    (ToolFormat::Llama3Json, "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"a\": \"x\"}}"),
    (ToolFormat::Pythonic, "[f(a='x')]"),
    (ToolFormat::Mistral, "[TOOL_CALLS]f{\"a\": \"x\"}"),
    (
        ToolFormat::DeepseekV3,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": \"x\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ),
    (
        ToolFormat::DeepseekV31,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": \"x\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ),
    (
        ToolFormat::KimiK2,
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"a\": \"x\"}<|tool_call_end|><|tool_calls_section_end|>",
    ),
    (
        ToolFormat::Harmony,
        "<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": \"x\"}<|call|>",
    ),
    (ToolFormat::Granite, "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": \"x\"}}]"),
    (ToolFormat::Granite20bFc, "<function_call>{\"name\": \"f\", \"arguments\": {\"a\": \"x\"}}"),
    (ToolFormat::Phi4Mini, "functools[{\"name\": \"f\", \"arguments\": {\"a\": \"x\"}}]"),
    (ToolFormat::Internlm, "<|action_start|><|plugin|>{\"name\": \"f\", \"parameters\": {\"a\": \"x\"}}<|action_end|>"),
    (ToolFormat::FunctionaryV31, "<function=f>{\"a\": \"x\"}</function>"),
    (ToolFormat::FunctionaryV32, ">>>f\n{\"a\": \"x\"}"),
    (ToolFormat::React, "Action: f\nAction Input: {\"a\": \"x\"}\n"),
    (ToolFormat::SearchR1, "<search>x</search>"),
];

fn holds_the_laws(format: ToolFormat, text: &str) {
    let strict = parse(text, &options(format, ParseMode::Strict), &OneTool);
    let tolerant = parse(text, &options(format, ParseMode::Tolerant), &OneTool);
    for parsed in [&strict, &tolerant] {
        let mut from = 0;
        for attempt in &parsed.attempts {
            assert!(
                attempt.span.start >= from && attempt.span.end >= attempt.span.start,
                "{format} {text:?} {parsed:?}"
            );
            assert!(text.get(attempt.span.clone()).is_some(), "{format} {text:?} {parsed:?}");
            from = attempt.span.end;
            assert!(
                attempt.result.as_ref().is_ok_and(|call| call.arguments.is_object() && !call.name.is_empty())
                    || attempt.result.as_ref().is_err_and(|malformed| malformed.message.len() < 1000)
            );
        }
        let mut from = 0;
        for range in &*parsed.hidden() {
            assert!(range.start >= from && text.get(range.clone()).is_some(), "{format} {text:?} {parsed:?}");
            from = range.end;
        }
        for place in super::answer::AnswerFrom::ALL {
            if let Some((_, range)) = super::answer::extract(text, parsed.format, &parsed.hidden(), place) {
                assert!(text.get(range).is_some(), "{format} {text:?} {place}");
            }
        }
    }
    assert!(strict.attempts.iter().all(|attempt| attempt.repairs.is_empty()));
    if strict.ok() {
        assert_eq!(strict, tolerant, "{format} {text:?}");
    }
}

#[test]
fn every_example_is_one_call_in_its_format_and_found_by_auto() {
    for (format, text) in EXAMPLES {
        let expected = if format == ToolFormat::SearchR1 {
            ("search".to_owned(), serde_json::json!({"query": "x"}))
        } else {
            ("f".to_owned(), serde_json::json!({"a": "x"}))
        };
        assert_eq!(calls(format, text), std::slice::from_ref(&expected), "{format}");
        assert_eq!(detect(text), Some(format));
        assert_eq!(calls(ToolFormat::Auto, &format!("<think>hm</think>\n{text}")), [expected]);
    }
}

#[test]
fn t1_t3_reasoning_hides_calls_in_every_format() {
    for (format, text) in EXAMPLES.into_iter().filter(|(format, _)| *format != ToolFormat::Harmony) {
        assert_eq!(codes(format, &format!("<think>\n{text}\n</think>")), [""; 0], "{format}");
        assert_eq!(codes(format, &format!("\n{text}\n</think>\n{text}")), ["ok"], "{format}");
        let open = format!("<think>\n{text}");
        let parsed = parsed(format, &open);
        assert!(parsed.attempts.is_empty() && !parsed.ok() && parsed.reasoning_open == Some(0..open.len()), "{format}");
        // A closer that is not the first tag is content, and these two formats must start the message.
        let first = matches!(format, ToolFormat::Pythonic | ToolFormat::Granite);
        assert_eq!(codes(format, &format!("<think>a</think></think>\n{text}")).len(), usize::from(!first), "{format}");
    }
}

#[test]
fn too_many_calls_are_one_error() {
    let text = "<function=f>{}</function>".repeat(5);
    let options = Options { max_calls: 3, ..options(ToolFormat::FunctionaryV31, ParseMode::Strict) };
    let parsed = parse(&text, &options, &NoTools);
    assert!(parsed.too_many && !parsed.ok() && parsed.attempts.len() == 4 && parsed.calls().count() == 3);
    assert_eq!(parsed.attempts[3].result.as_ref().unwrap_err().code.as_str(), "too_many_calls");
}

/// A tool whose parameters are lists.
struct Lists;

impl Offered for Lists {
    fn offers(&self, _: &str) -> bool {
        true
    }

    fn declared(&self, _: &str, _: &str) -> Declared {
        Declared::ARRAY
    }
}

fn codes_in(mode: ParseMode, format: ToolFormat, text: &str) -> Vec<&'static str> {
    let parsed = parse(text, &options(format, mode), &Lists);
    let code = |attempt: &Attempt<'_>| attempt.result.as_ref().map_or_else(|m| m.code.as_str(), |_| "ok");
    parsed.attempts.iter().map(code).collect()
}

#[test]
fn values_that_need_too_much_memory_are_an_error_and_leave_the_next_call_its_room() {
    let most = format!("[{}1]", "1,".repeat(200_000));
    let more = format!("[{}1]", "1,".repeat(300_000));
    for mode in [ParseMode::Strict, ParseMode::Tolerant] {
        let read = |format: ToolFormat, text: &str| codes_in(mode, format, text);
        for (format, text) in EXAMPLES.iter().filter(|(format, _)| *format != ToolFormat::SearchR1) {
            let with = |value: &str| {
                let (before, after) = text.rsplit_once('x').unwrap();
                let quotes = ['"', '\''].into_iter().find(|quote| before.ends_with(*quote)).map_or(0, char::len_utf8);
                format!("{}{value}{}", &before[..before.len() - quotes], &after[quotes..])
            };
            assert_eq!(read(*format, &with(&more)), ["too_many_values"], "{format} {mode:?}");
            assert_eq!(read(*format, &with(&most)), ["ok"], "{format} {mode:?}");
            // As many bytes in a string are no values.
            let is_tagged = matches!(format, ToolFormat::Qwen3Coder | ToolFormat::Glm45);
            let string = if is_tagged { format!("x{more}") } else { format!("{more:?}") };
            assert_eq!(read(*format, &with(&string)), ["ok"], "{format} {mode:?}");
        }
        // Arguments in a string.
        let native = |value: &str| {
            let arguments = format!("{{\"a\":{value}}}");
            let text = format!("[{{\"function\":{{\"name\":\"f\",\"arguments\":{arguments:?}}}}}]");
            parse_native(&text, &options(ToolFormat::Openai, mode), &NoTools).attempts.remove(0).result.err()
        };
        assert_eq!(native(&more).map(|malformed| malformed.code), Some(ErrorCode::TooManyValues));
        assert_eq!(native(&most), None);
        // What does not fit, or is not kept, takes nothing from the calls behind it.
        let hermes = |value: &str| EXAMPLES[0].1.replace("\"x\"", value);
        let three = [hermes(&more), hermes(&most), hermes("[1]")].concat();
        assert_eq!(read(ToolFormat::Hermes, &three), ["too_many_values", "ok", "ok"]);
        let broken = hermes(&most).replace("}}", "}]");
        assert_eq!(read(ToolFormat::Hermes, &[broken, hermes(&most)].concat()), ["json_syntax", "ok"]);
        let thought = format!("{}</think>{}", hermes(&most), hermes(&most));
        assert_eq!(read(ToolFormat::Hermes, &thought), ["ok"]);
        let pythonic = format!("[f(a={more}), g(b={most}), h(b=[1, 2])]");
        assert_eq!(read(ToolFormat::Pythonic, &pythonic), ["too_many_values", "ok", "ok"]);
        let granite = format!("[1, {{\"name\":\"f\",\"arguments\":{{\"a\":{most}}}}}]");
        assert_eq!(read(ToolFormat::Granite, &granite), ["not_an_object", "ok"]);
        let mistral = |value: &str| format!("{{\"name\":\"f\",\"arguments\":{{\"a\":{value}}}}}");
        let list = format!("[TOOL_CALLS] [{},{},{}]", mistral("1"), mistral(&more), mistral("2"));
        assert_eq!(read(ToolFormat::Mistral, &list), ["ok", "too_many_values", "ok"]);
        let call = |value: &str| format!("{{\"function\":{}}}", mistral(value));
        let text = format!("[{},{}]", call(&more), call("1"));
        let parsed = parse_native(&text, &options(ToolFormat::Openai, mode), &NoTools);
        assert_eq!((parsed.attempts.len(), parsed.calls().count()), (2, 1));
        // Nor does what is whole and in no call.
        let open = hermes(&most).replace("</tool_call>", "\n");
        assert_eq!(read(ToolFormat::Hermes, &[open, hermes(&most)].concat()), ["missing_closer", "ok"]);
        let member = format!("[f(a={most}).x, g(a={most})]");
        assert_eq!(read(ToolFormat::Pythonic, &member), ["not_an_object", "ok"]);
        let segment = |value: &str, rest: &str| {
            let header = "<|start|>assistant<|channel|>commentary to=functions.f<|message|>";
            format!("{header}{{\"a\":{value}}}{rest}<|call|>")
        };
        let segments = [segment(&most, " and so on"), segment(&most, "")].concat();
        assert_eq!(read(ToolFormat::Harmony, &segments), ["unexpected_text", "ok"]);
        // A malformed element between good ones gives back nothing of theirs.
        let two = format!("[TOOL_CALLS] [{},1]", mistral(&most));
        let left = parse(&two, &options(ToolFormat::Mistral, mode), &Lists).room;
        assert!(!parse(&hermes(&most), &Options { room: left, ..options(ToolFormat::Hermes, mode) }, &Lists).ok());
        // Calls beyond those that are looked at take nothing either.
        let few = Options { max_calls: 1, ..options(ToolFormat::Hermes, mode) };
        let flood = [hermes("[1]"), hermes(&most), hermes(&most)].concat();
        let left = parse(&flood, &few, &Lists).room;
        let next = hermes(&most);
        assert!(parse(&next, &Options { room: left, ..few }, &Lists).ok());
        // What is kept does.
        assert_eq!(read(ToolFormat::Hermes, &hermes(&most).repeat(2)), ["ok", "too_many_values"]);
    }
    // A repair does not count twice, and says so where it does not fit.
    let single = |value: &str| EXAMPLES[0].1.replace("\"x\"", value).replace("\"a\"", "'a'");
    let tolerant = |text: &str| codes_in(ParseMode::Tolerant, ToolFormat::Hermes, text);
    assert_eq!(tolerant(&single(&most.replace(']', ",]"))), ["ok"]);
    assert_eq!(tolerant(&[single(&more), single("1")].concat()), ["too_many_values", "ok"]);
    let list = format!("[TOOL_CALLS] [{{\"name\":\"f\",\"arguments\":{{\"a\":{more}}}}},]");
    assert_eq!(codes_in(ParseMode::Tolerant, ToolFormat::Mistral, &list), ["too_many_values"]);
    let entries = "<parameter=a>1</parameter>".repeat(2);
    let many: String = (0..150_000).map(|n| entries.replacen("a>1", &format!("a{n}>1"), 1)).collect();
    let block = format!("<tool_call><function=f>{many}</function></tool_call>");
    assert_eq!(codes_in(ParseMode::Strict, ToolFormat::Qwen3Coder, &block), ["too_many_values"]);
}

#[test]
fn lists_of_what_is_no_call_are_counted_and_not_kept() {
    let few = Options { max_calls: 3, ..options(ToolFormat::Mistral, ParseMode::Tolerant) };
    for text in [format!("[TOOL_CALLS] [{}1]", "1,".repeat(1000)), format!("[TOOL_CALLS] [{}]", "1,".repeat(1000))] {
        let parsed = parse(&text, &few, &NoTools);
        assert!(parsed.too_many && parsed.attempts.len() == 4, "{}", parsed.attempts.len());
    }
}

fn any_format() -> impl Strategy<Value = ToolFormat> {
    proptest::sample::select(ToolFormat::ALL.to_vec())
}

/// Pieces of every example, cut and put together anew.
fn mutated() -> impl Strategy<Value = String> {
    let piece = (0..EXAMPLES.len(), 0..200_usize, 0..200_usize).prop_map(|(example, one, two)| {
        let text = EXAMPLES[example].1;
        let (start, end) = (text.floor_char_boundary(one.min(two)), text.floor_char_boundary(one.max(two)));
        text[start..end].to_owned()
    });
    let glue = proptest::sample::select(vec![
        "", " ", "\n", "<think>", "</think>", "'", "\"", "{", "]", ",", "\\", "é", "null", "/*", "True",
    ]);
    let piece = prop_oneof![3 => piece, 2 => glue.prop_map(str::to_owned), 1 => "\\PC{0,5}", 1 => whole()];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn whole() -> impl Strategy<Value = String> {
    (0..EXAMPLES.len()).prop_map(|example| EXAMPLES[example].1.to_owned())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_keeps_the_laws(format in any_format(), text in any::<String>()) {
        holds_the_laws(format, &text);
    }

    #[test]
    fn mutated_examples_keep_the_laws(format in any_format(), text in mutated()) {
        holds_the_laws(format, &text);
    }

    #[test]
    fn a_call_inserted_into_prose_is_found(example in 0..EXAMPLES.len(), before in "[a-zé .,\n]{0,40}", after in "[a-zé .,\n]{0,40}") {
        let (format, text) = EXAMPLES[example];
        // These must start or end the message, or leave no text beside their calls.
        let (before, after) = match format {
            ToolFormat::Pythonic => (String::new(), String::new()),
            ToolFormat::Granite => (String::new(), after),
            ToolFormat::Llama3Json => (before, String::new()),
            ToolFormat::React => (before + "\n", "\nObservation: ".to_owned() + &after),
            _ => (before, after),
        };
        let text = format!("{before}{text}{after}");
        prop_assert_eq!(calls(format, &text).len(), 1);
        prop_assert!(parsed(format, &text).ok());
    }
}
