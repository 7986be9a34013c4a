//! Parsing takes time linear in the text, whatever the text is: texts of one opener after the other, which would be read
//! again from every opener. In: such texts in two lengths; out: whether the time grew as they did. It is the thread's own time,
//! not that of a clock on the wall, and measured against itself: nobody knows how fast the machine is, and what else it does.

use std::time::Duration;

use gradus::toolcall::answer::{AnswerFrom, extract};
use gradus::toolcall::{NoTools, Options, parse};
use gradus::trajectory::{Before, ParseMode, ToolFormat, split_response};
use rustix::time::{ClockId, clock_gettime};

const SHORT: usize = 16 * 1024;
const FACTOR: usize = 4;
/// Growth beyond this, where linear is [`FACTOR`] and quadratic its square.
const TOO_FAST: f64 = 10.0;
/// Below this nothing can be measured, and nothing is wrong.
const QUICK: Duration = Duration::from_millis(8);

/// See [`text`].
const UNITS: &[&str] = &[
    "<tool_call>",
    "<tool_call>{\"name\":",
    "<tool_call>{\"name\":\"",
    "<tool_call>[\"",
    "<tool_call>{/*",
    "<tool_call>{//",
    "<tool_call><function=f><parameter=a>",
    "<tool_call><function=f><parameter=a></parameter>",
    "<tool_call><function=",
    "<tool_call>f<arg_key>k</arg_key><arg_value>",
    "<tool_call>f<arg_key>",
    "<think>",
    "</think>",
    "<think></think>",
    "[TOOL_CALLS]",
    "[TOOL_CALLS]a",
    "[TOOL_CALLS][{\"name\":\"",
    "[TOOL_CALLS]a{\"",
    "[TOOL_CALLS]a[CALL_ID]",
    "<|python_tag|>",
    "<|python_tag|>{\"a\":\"",
    "{\"name\":",
    "{\"a\": 1 1 \0\\\"",
    "{\"a\": 1 1 \0'\"",
    "{\"a\": $\n\0\\\"\"\"\n",
    "{\"a\": $\n\0\\'\\\n",
    "<|im_end|><|im_start|>user\n<tool_response>",
    "<tool_call>} <tool_response><|im_end|><|im_start|>",
    "[",
    "{",
    "[f(",
    "[f(a='",
    "functools[",
    "functools[\"",
    "functools[{aaaaaaaaa",
    "[TOOL_CALLS][{\"a\":1},",
    "[TOOL_CALLS][\0{\"name\":\"f, ",
    "[TOOL_CALLS][\0{\"name\":\"f\",\"arguments\":[",
    "functools[1 \0\"'{,",
    "functools[1 \0,\"a 'b",
    "functools[\0[{]}",
    "{\"name\":$\0; {\"name\":\"f\",\"arguments\":{\"a\":",
    "{\"name\":$\0; {\"a\":1}",
    "{\"name\":$\0; {\"a\":{",
    "[f(\0,g(a=",
    "[f($\0,'a \"b",
    "[f($\0([{)",
    "<tool_call>[1,[1,{\"a\":",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>a",
    "<｜tool▁call▁begin｜>a<｜tool▁sep｜>b\n```json\n{\"",
    "<|tool_calls_section_begin|><|tool_call_begin|>",
    "<|tool_call_begin|>f:0<|tool_call_argument_begin|>{\"",
    "<|start|>",
    "<|start|>assistant to=functions.f<|message|>",
    "<|start|>assistant to=functions.f<|message|>{\"a\":\"",
    "<|channel|>",
    "<|message|>",
    "<function=",
    "<function=f>",
    ">>>",
    ">>>f\n",
    ">>>f\n{\"",
    "Action:",
    "</think>Action:",
    "</think>Action:\0\n",
    "<s>\0<tool_response>",
    "<s>\0[TOOL_RESULTS]",
    "Action:\n",
    "\nAction: f",
    "Action: f\nAction Input: {\"",
    "<search>",
    "<search>a<answer>",
    "<information>",
    "<answer>",
    "<answer></answer>",
    r"\boxed{",
    r"\boxed{}",
    "####",
    "#",
    "Final Answer:",
    "\n Final Answer:",
    "</s>",
    "<|im_end|> ",
    "<",
    "\\",
    "<|",
    "think>",
    "<|action_start|>",
    "<|action_start|><|plugin|>{\"a\":\"",
    "<function_call>{\"a\":[\"",
    "[INST]",
    "\n[INST] ",
    "\n[TOOL_RESULTS]",
    "\n[TOOL_RESULTS]\" [/TOOL_RESULTS]",
    "x <tool_response>",
    "<tool_call>\"<tool_response></tool_response>",
    "<tool_call>\" <|user|>",
    "} <|user|>",
    "<think>\n<|user|>\n",
    "<parameter=a>\n[INST]",
    "<arg_value>",
    "<arg_value>arg_value>",
    "<information><information>\n<|user|>",
    "<|im_start|>",
    "<|im_start|>user",
    "<｜tool▁outputs▁begin｜>",
    "\nObservation:",
    "x Observation:\n",
    "<function=f></function>",
    "<function=f></function></tool_call>",
    "<function=f><parameter=a>",
    "<tool_call>[",
    "x <|tool_call|>",
    "<|channel|>\0<tool_call><function=f></function>",
    "<|channel|>\0<｜tool▁calls▁begin｜>",
    "<|channel|>\0<function=f>{}",
    "<|channel|>\0<tool_call>[{",
    "<|channel|>\0x <|tool_call|><search>",
    "Action: f<think></think>",
    "<|start|>user<|message|>",
    "<function=f><parameter=a>x</parameter>y",
];

/// The text of a unit, about as long as asked. A NUL stands between what the first half repeats and the second one.
fn text(unit: &str, bytes: usize) -> String {
    match unit.split_once('\0') {
        Some((first, second)) => [text(first, bytes / 2), text(second, bytes / 2)].concat(),
        None => unit.repeat(bytes / unit.len()),
    }
}

fn time(work: &dyn Fn(&str), text: &str) -> Duration {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
    let start = now();
    work(text);
    now().saturating_sub(start)
}

/// Whether the time grows faster than the text: every one of several measurements has to say so, the later ones with the least
/// time of a few runs, since others use the machine, too.
fn grows_too_fast(unit: &str, work: &dyn Fn(&str)) -> bool {
    grows_too_fast_from(SHORT, unit, work)
}

/// The same with texts of another length: what is searched quickly shows in long ones only.
fn grows_too_fast_from(bytes: usize, unit: &str, work: &dyn Fn(&str)) -> bool {
    let (short, long) = (text(unit, bytes), text(unit, bytes * FACTOR));
    let least = |text: &str, runs: usize| (0..runs).map(|_| time(work, text)).min().unwrap_or_default();
    [1, 3, 3, 3, 3].into_iter().all(|runs| {
        let took = least(&long, runs);
        took > QUICK && took.as_secs_f64() > TOO_FAST * least(&short, runs).as_secs_f64()
    })
}

#[test]
fn parsing_time_is_linear_for_hostile_text() {
    for unit in UNITS {
        for format in ToolFormat::ALL {
            let options = Options { format, mode: ParseMode::Tolerant, ..Options::default() };
            let read = |text: &str| drop(parse(text, &options, &NoTools));
            assert!(!grows_too_fast(unit, &read), "{format} {unit:?}");
            // Calls of these formats count in a section only.
            if matches!(format, ToolFormat::DeepseekV3 | ToolFormat::DeepseekV31 | ToolFormat::KimiK2) {
                let opened = |text: &str| read(&format!("<｜tool▁calls▁begin｜><|tool_calls_section_begin|>{text}"));
                assert!(!grows_too_fast(unit, &opened), "{format} {unit:?} in a section");
            }
        }
    }
}

/// Each marker asks for its line, and the line is the whole text.
#[test]
fn a_long_line_is_not_searched_from_every_marker_in_it() {
    for format in [ToolFormat::FunctionaryV32, ToolFormat::Auto] {
        let options = Options { format, ..Options::default() };
        let read = |text: &str| drop(parse(&format!(">>>f\n{text}"), &options, &NoTools));
        assert!(!grows_too_fast_from(8 * SHORT, ">>>", &read), "{format}");
    }
}

#[test]
fn splitting_time_is_linear_for_hostile_text() {
    for unit in UNITS {
        for format in ToolFormat::ALL {
            let split = |text: &str| drop(split_response(text, format, Before { thinking: true, ..Before::default() }));
            assert!(!grows_too_fast(unit, &split), "{format} {unit:?}");
        }
    }
}

#[test]
fn answers_are_found_in_linear_time() {
    for unit in UNITS {
        for (from, format) in
            AnswerFrom::ALL.into_iter().flat_map(|from| [(from, ToolFormat::Hermes), (from, ToolFormat::Harmony)])
        {
            let find = |text: &str| {
                let parsed = parse(text, &Options { format, ..Options::default() }, &NoTools);
                extract(text, parsed.format, &parsed.hidden(), from);
            };
            assert!(!grows_too_fast(unit, &find), "{from} {format} {unit:?}");
        }
    }
}

/// What the tests above look for is found where it is.
#[test]
fn quadratic_time_is_noticed() {
    let quadratic = |text: &str| {
        let bytes = text.as_bytes();
        let hits = (0..bytes.len()).step_by(4).filter(|at| !bytes[*at..].contains(&b'!'));
        assert!(hits.count() > 0);
    };
    assert!(grows_too_fast("<", &quadratic));
    let linear = |text: &str| assert!((0..40).all(|_| text.bytes().filter(|byte| *byte == b'<').count() > 0));
    assert!(!grows_too_fast("<", &linear));
}
