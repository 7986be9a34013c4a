//! Seeded trajectories to measure with, and the parse floor. In: a size; out: the JSON of `POST /reward` bodies, the same
//! bytes on every run, and the cost of only parsing them. Shared by the benchmarks, each of which uses a part.
//!
//! A trajectory is a system and a user message, turns of thought with tool calls, the tools' results in several forms,
//! and an answer. Its tools come from a pool of 15 and repeat from trajectory to trajectory.
#![allow(dead_code, unreachable_pub)]

pub mod floor;
mod random;
pub mod tools;
mod words;

use serde_json::{Value, json};

use random::Random;

/// How large a trajectory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// About 1.6 KB: one call of two tools.
    Small,
    /// About 8 KB: four calls of five tools.
    Medium,
    /// About 60 KB: twenty calls of ten tools.
    Large,
}

struct Shape {
    calls: usize,
    tools: usize,
    think_words: usize,
    result_bytes: usize,
    answer_words: (usize, usize),
}

impl Size {
    /// Every size.
    pub const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }

    fn shape(self) -> Shape {
        match self {
            Self::Small => Shape { calls: 1, tools: 2, think_words: 8, result_bytes: 40, answer_words: (1, 6) },
            Self::Medium => Shape { calls: 4, tools: 5, think_words: 30, result_bytes: 480, answer_words: (4, 25) },
            Self::Large => Shape { calls: 20, tools: 10, think_words: 48, result_bytes: 1820, answer_words: (25, 90) },
        }
    }
}

/// What a trajectory is an example of, with its share in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Right,
    Partial,
    Wrong,
    BadJson,
    BadSchema,
    UnknownTool,
    NoAnswer,
}

const KINDS: [(Kind, usize); 7] = [
    (Kind::Right, 42),
    (Kind::Partial, 16),
    (Kind::Wrong, 14),
    (Kind::BadJson, 9),
    (Kind::BadSchema, 10),
    (Kind::UnknownTool, 6),
    (Kind::NoAnswer, 3),
];

const UNKNOWN_TOOLS: [&str; 6] = ["weather_lookup", "search", "python", "execute_sql", "getWeather", "final_answer"];
const SYSTEM: &str = "You are a helpful agent. Think in <think></think>, call tools as <tool_call>{\"name\": ..., \
                      \"arguments\": {...}}</tool_call> and give the answer in <answer></answer>.";

/// `count` bodies of `batch` trajectories each.
pub fn bodies(size: Size, batch: usize, count: usize) -> Vec<String> {
    let mut random = Random::new(20_251 + size as u64);
    let body = |first: usize, random: &mut Random| {
        let items: Vec<Value> = (first..first + batch).map(|number| trajectory(random, size, number)).collect();
        json!({ "trajectories": items }).to_string()
    };
    (0..count).map(|index| body(index * batch, &mut random)).collect()
}

fn trajectory(random: &mut Random, size: Size, number: usize) -> Value {
    let shape = size.shape();
    let kind = random.weighted(&KINDS);
    // Small models are offered flat tools only.
    let pool = if size == Size::Small { &tools::POOL[..tools::FLAT] } else { &tools::POOL[..] };
    let offered = random.sample(pool, shape.tools);
    let (references, answer) = references_and_answer(random, kind, shape.answer_words);
    let mut messages = vec![
        json!({"role": "system", "content": SYSTEM}),
        json!({"role": "user", "content": words::prose(random, 12)}),
    ];
    let faulty = 1 + random.below(3.min(shape.calls));
    let mut done = 0;
    while done < shape.calls {
        let here = random.pick(&[1, 1, 1, 2]).min(shape.calls - done);
        let mut text = format!("<think>{}</think>", words::prose(random, shape.think_words));
        let mut results = Vec::new();
        for call in done..done + here {
            let fault = if call < faulty { kind } else { Kind::Right };
            let tool = random.pick(&offered);
            text = text + "\n<tool_call>\n" + &call_object(random, tool, fault) + "\n</tool_call>";
            let bytes = shape.result_bytes * (30 + random.below(120)) / 100;
            results.push(json!({"role": "tool", "name": tool.name, "content": words::result(random, bytes)}));
        }
        messages.push(json!({"role": "assistant", "content": text}));
        messages.append(&mut results);
        done += here;
    }
    let think = words::prose(random, shape.think_words);
    let last = if kind == Kind::NoAnswer { answer } else { format!("<answer>{answer}</answer>") };
    messages.push(json!({"role": "assistant", "content": format!("<think>{think}</think>\n{last}")}));
    let offered: Vec<Value> = offered.iter().map(|tool| tool.entry()).collect();
    let id = format!("{}-{number:05}", size.name());
    json!({"id": id, "messages": messages, "tools": offered, "references": references})
}

fn call_object(random: &mut Random, tool: tools::Tool, fault: Kind) -> String {
    let mut arguments = (tool.arguments)(random);
    if fault == Kind::BadSchema {
        tools::break_arguments(random, &mut arguments);
    }
    let name = if fault == Kind::UnknownTool { random.pick(&UNKNOWN_TOOLS) } else { tool.name };
    let text = json!({"name": name, "arguments": arguments}).to_string();
    if fault != Kind::BadJson {
        return text;
    }
    match random.below(4) {
        0 => text[..text.floor_char_boundary(text.len() * 3 / 4)].to_owned(),
        1 => text.replace('"', "'"),
        2 => format!("{},}}", &text[..text.len() - 1]),
        _ => format!("```json\n{text}\n```"),
    }
}

fn references_and_answer(random: &mut Random, kind: Kind, (low, high): (usize, usize)) -> (Vec<String>, String) {
    let count = low + random.below(high - low + 1);
    let text = words::prose(random, count);
    let mut references = vec![text.clone()];
    for _ in 0..random.below(4) {
        references.push(words::thinned(random, &text, 0.8));
    }
    let answer = match kind {
        Kind::Wrong => words::prose(random, count),
        Kind::Partial => words::thinned(random, &text, 0.7) + " " + &words::prose(random, 3),
        // Equal once case, articles and punctuation are taken away.
        _ => match random.below(4) {
            0 => text.to_lowercase(),
            1 => format!("The {text}"),
            2 => text.trim_end_matches('.').to_owned(),
            _ => text,
        },
    };
    let last = references.len() - 1;
    references.swap(0, random.below(last + 1));
    (references, answer)
}
