//! Parsing a turn: every format with one call and with eight, strict. In: turns as models write them; out: time per turn.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gradus::toolcall::{NoTools, Options, parse, parse_native};
use gradus::trajectory::{ParseMode, ToolFormat};

const THINK: &str = "<think>\nThe user wants the weather and the news; the search tool is the place to start, I think. \
                     Let me look for both at once and compare what comes back.\n</think>\n\n";
const ARGUMENTS: &str = r#"{"query": "river that flows through Prague", "top_k": 5, "filters": ["geo", "history"]}"#;

fn turn(format: ToolFormat, calls: usize) -> String {
    let object = |key: &str| format!("{{\"name\": \"search\", \"{key}\": {ARGUMENTS}}}");
    let repeated = |call: &str| call.repeat(calls);
    let joined = |call: &str, between: &str| vec![call; calls].join(between);
    let body = match format {
        ToolFormat::Auto | ToolFormat::Hermes => {
            repeated(&format!("<tool_call>\n{}\n</tool_call>\n", object("arguments")))
        }
        ToolFormat::Qwen3Coder => repeated(
            "<tool_call>\n<function=search>\n<parameter=query>\nriver that flows through Prague\n</parameter>\n\
             <parameter=top_k>\n5\n</parameter>\n</function>\n</tool_call>\n",
        ),
        ToolFormat::Glm45 => repeated(
            "<tool_call>search\n<arg_key>query</arg_key>\n<arg_value>river that flows through Prague</arg_value>\n\
             <arg_key>top_k</arg_key>\n<arg_value>5</arg_value>\n</tool_call>\n",
        ),
        ToolFormat::Llama3Json => format!("<|python_tag|>{}", joined(&object("parameters"), "; ")),
        ToolFormat::Pythonic => {
            format!(
                "[{}]",
                joined("search(query='river that flows through Prague', top_k=5, filters=['geo', 'history'])", ", ")
            )
        }
        ToolFormat::Mistral => format!("[TOOL_CALLS][{}]", joined(&object("arguments"), ", ")),
        ToolFormat::DeepseekV3 => section(&repeated(&format!(
            "<｜tool▁call▁begin｜>function<｜tool▁sep｜>search\n```json\n{ARGUMENTS}\n```<｜tool▁call▁end｜>"
        ))),
        ToolFormat::DeepseekV31 => {
            section(&repeated(&format!("<｜tool▁call▁begin｜>search<｜tool▁sep｜>{ARGUMENTS}<｜tool▁call▁end｜>")))
        }
        ToolFormat::KimiK2 => format!(
            "<|tool_calls_section_begin|>{}<|tool_calls_section_end|>",
            repeated(&format!(
                "<|tool_call_begin|>functions.search:0<|tool_call_argument_begin|>{ARGUMENTS}<|tool_call_end|>"
            ))
        ),
        ToolFormat::Harmony => joined(
            &format!("<|start|>assistant<|channel|>commentary to=functions.search<|message|>{ARGUMENTS}<|call|>"),
            "",
        ),
        ToolFormat::Granite => format!("<|tool_call|>[{}]", joined(&object("arguments"), ", ")),
        ToolFormat::Granite20bFc => repeated(&format!("<function_call>{}\n", object("arguments"))),
        ToolFormat::Phi4Mini => format!("functools[{}]", joined(&object("arguments"), ", ")),
        ToolFormat::Internlm => {
            repeated(&format!("<|action_start|><|plugin|>{}<|action_end|>\n", object("parameters")))
        }
        ToolFormat::FunctionaryV31 => repeated(&format!("<function=search>{ARGUMENTS}</function>\n")),
        ToolFormat::FunctionaryV32 => repeated(&format!(">>>search\n{ARGUMENTS}\n")),
        // One call a turn is all that this format has.
        ToolFormat::React => format!("Action: search\nAction Input: {ARGUMENTS}\n"),
        ToolFormat::SearchR1 => repeated("<search>river that flows through Prague</search>\n"),
        ToolFormat::Openai => {
            let arguments = ARGUMENTS.replace('"', "\\\"");
            let call = format!(
                r#"{{"id": "call_1", "type": "function", "function": {{"name": "search", "arguments": "{arguments}"}}}}"#
            );
            return format!("[{}]", joined(&call, ", "));
        }
    };
    format!("{THINK}{body}")
}

fn section(calls: &str) -> String {
    format!("<｜tool▁calls▁begin｜>{calls}<｜tool▁calls▁end｜>")
}

fn parsing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for format in ToolFormat::ALL {
        for calls in [1, 8] {
            let text = turn(format, calls);
            let options = Options { format, mode: ParseMode::Strict, ..Options::default() };
            let read = || match format {
                ToolFormat::Openai => parse_native(black_box(&text), &options, &NoTools),
                _ => parse(black_box(&text), &options, &NoTools),
            };
            let expected = if format == ToolFormat::React { 1 } else { calls };
            assert_eq!(read().calls().count(), expected, "{format}: the turn is what it should be");
            assert!(read().ok(), "{format}: the turn is well-formed");
            group.throughput(Throughput::Bytes(text.len() as u64));
            group.bench_function(format!("{format}/{calls}"), |bencher| bencher.iter(read));
        }
    }
    group.finish();
}

criterion_group!(benches, parsing);
criterion_main!(benches);
