//! What the shipped rubrics pay a policy under optimisation for: each mixture of right and wrong behaviour is scored, and none
//! that is cheaper to come by earns more than the honest one beside it.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{NoJudge, engine, hermes as call, response};

/// Two sums of the same parts in another order.
const ROUNDING: f64 = 1e-9;

fn rewards(rubric: &str, trajectories: &[Value]) -> Vec<f64> {
    rewards_of(&json!(rubric), trajectories)
}

fn rewards_of(rubric: &Value, trajectories: &[Value]) -> Vec<f64> {
    let engine = engine();
    let of = |chunk: &[Value]| -> Vec<f64> {
        let body = json!({"rubric": rubric, "trajectories": chunk}).to_string();
        response(&engine, &body, &NoJudge)["rewards"]
            .as_array()
            .unwrap()
            .iter()
            .map(|reward| reward.as_f64().unwrap())
            .collect()
    };
    trajectories.chunks(512).flat_map(of).collect()
}

const BROKEN: &str = "<tool_call>{\"name\": \"f\", \"arguments\": {</tool_call>";

/// `f` takes a whole number, and perhaps another one; `g` and `h` take anything.
fn tools() -> Value {
    let number = json!({"type": "integer"});
    let parameters = json!({"type": "object", "properties": {"a": number, "b": number}, "required": ["a"]});
    json!([{"name": "f", "parameters": parameters}, {"name": "g"}, {"name": "h"}])
}

fn turn(text: &str, fields: Value) -> Value {
    let mut trajectory = json!({
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": text}],
        "tools": tools(),
    });
    trajectory.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    trajectory
}

mod tool_use {
    use super::*;

    const MOST_WANTED: usize = 10;

    /// What a turn is made of.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    enum Kind {
        /// One of the reference calls, as it should be.
        Right,
        /// One of them with a wrong argument.
        Near,
        /// One of them with an argument of the wrong type.
        Invalid,
        /// A call that does not parse.
        Broken,
        /// The first call once more.
        Repeat,
        /// A good call that nobody wanted.
        Surplus,
        /// A call of no tool.
        Unknown,
    }

    use Kind::{Broken, Invalid, Near, Repeat, Right, Surplus, Unknown};

    /// How often each kind stands in a turn that should be so many right calls; wanted calls that are in none of the first three
    /// kinds are missing.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    struct Mix {
        wanted: usize,
        counts: [usize; 7],
    }

    impl Mix {
        fn of(wanted: usize, counts: &[(Kind, usize)]) -> Self {
            counts.iter().fold(Self { wanted, counts: [0; 7] }, |mix, (kind, count)| mix.with(*kind, *count))
        }

        fn count(self, kind: Kind) -> usize {
            self.counts[kind as usize]
        }

        fn with(mut self, kind: Kind, more: usize) -> Self {
            self.counts[kind as usize] += more;
            self
        }

        fn without(mut self, kind: Kind) -> Option<Self> {
            self.counts[kind as usize] = self.count(kind).checked_sub(1)?;
            self.is_possible().then_some(self)
        }

        fn attempted(self) -> usize {
            self.count(Right) + self.count(Near) + self.count(Invalid)
        }

        /// A repeat needs something to repeat.
        fn is_possible(self) -> bool {
            self.attempted() <= self.wanted && (self.count(Repeat) == 0 || self.count(Right) + self.count(Near) > 0)
        }

        fn calls(self) -> Vec<String> {
            let mut calls: Vec<String> = (0..self.attempted())
                .map(|at| match at {
                    _ if at < self.count(Right) => call("f", &json!({"a": at, "b": 0})),
                    _ if at < self.count(Right) + self.count(Near) => call("f", &json!({"a": at, "b": 9})),
                    _ => call("f", &json!({"a": at, "b": "0"})),
                })
                .collect();
            for (kind, text) in [
                (Repeat, calls.first().cloned().unwrap_or_default()),
                (Broken, BROKEN.to_owned()),
                (Unknown, call("nobody", &json!({}))),
            ] {
                calls.extend(vec![text; self.count(kind)]);
            }
            calls.extend((0..self.count(Surplus)).map(|at| call("g", &json!({"at": at}))));
            calls
        }

        fn trajectory(self) -> Value {
            turn(&self.calls().concat(), wanting(self.wanted))
        }
    }

    fn wanting(calls: usize) -> Value {
        let references: Vec<_> = (0..calls).map(|at| json!({"name": "f", "arguments": {"a": at, "b": 0}})).collect();
        json!({"reference_calls": references})
    }

    fn mixes() -> Vec<Mix> {
        let mut mixes = Vec::new();
        for wanted in 1..=MOST_WANTED {
            let mut rights = vec![0, 1, wanted - 1, wanted];
            rights.sort_unstable();
            rights.dedup();
            for right in rights {
                for others in 0..(2 * 2 * 3 * 3 * 2 * 2) {
                    let (near, invalid, broken) = (others % 2, others / 2 % 2, others / 4 % 3);
                    let (repeat, surplus, unknown) = ([0, 1, 4][others / 12 % 3], others / 36 % 2, others / 72);
                    mixes.push(Mix { wanted, counts: [right, near, invalid, broken, repeat, surplus, unknown] });
                }
            }
        }
        mixes.retain(|mix| mix.is_possible());
        mixes
    }

    /// What may become of a mixture, and how much more than before it may earn: nothing, or less than nothing.
    fn changes(mix: Mix) -> Vec<(Mix, &'static str, bool)> {
        let mut changes = Vec::new();
        let matches = mix.attempted() > 0;
        for kind in [Broken, Surplus, Unknown, Repeat] {
            changes.push((mix.with(kind, 1), "a call that nobody wanted is added", matches));
        }
        let whole = mix.count(Broken) == 0;
        for kind in [Right, Near, Invalid, Repeat, Surplus, Unknown] {
            let Some(without) = mix.without(kind) else { continue };
            changes.push((
                without.with(Broken, 1),
                "a call is broken",
                whole || matches!(kind, Right | Near | Invalid),
            ));
            if matches!(kind, Right | Near) {
                changes.push((without, "a call is left out", true));
                changes.push((without.with(Invalid, 1), "a call no longer fits its schema", true));
            }
        }
        if let Some(without) = mix.without(Right) {
            changes.push((without.with(Near, 1), "a call is no longer right", true));
        }
        changes.retain(|(mix, ..)| mix.is_possible());
        changes
    }

    #[test]
    fn no_change_for_the_worse_pays() {
        let mixes = mixes();
        let mut known: HashMap<Mix, f64> = HashMap::new();
        let mut all: Vec<Mix> = mixes.iter().flat_map(|mix| changes(*mix)).map(|(mix, ..)| mix).collect();
        all.extend(&mixes);
        all.extend((1..=MOST_WANTED).map(|wanted| Mix::of(wanted, &[])));
        all.sort_unstable_by_key(|mix| (mix.wanted, mix.counts));
        all.dedup();
        let trajectories: Vec<_> = all.iter().map(|mix| mix.trajectory()).collect();
        known.extend(all.iter().copied().zip(rewards("tool_use", &trajectories)));
        for mix in mixes {
            let reward = known[&mix];
            let is_right = mix == Mix::of(mix.wanted, &[(Right, mix.wanted)]);
            assert_eq!(reward == 1.0, is_right, "{mix:?} earns {reward}");
            for (other, what, must_cost) in changes(mix) {
                let least = if must_cost { ROUNDING } else { -ROUNDING };
                let (cost, less) = (reward - known[&other], known[&other]);
                assert!(
                    cost > least,
                    "{what}, and {mix:?}, which earns {reward}, becomes {other:?}, which earns {less}"
                );
            }
            let none = known[&Mix::of(mix.wanted, &[])];
            assert!(mix.count(Right) == 0 || reward > none, "{mix:?} earns {reward}, and to make no call {none}");
            let honest = mix == Mix::of(mix.wanted, &[(Near, 1)]) || mix == Mix::of(mix.wanted, &[(Invalid, 1)]);
            assert!(!honest || reward > none, "{mix:?} earns {reward}, and not to try {none}");
        }
    }

    #[test]
    fn order_does_not_matter() {
        let one_of_each = [(Near, 1), (Invalid, 1), (Broken, 1), (Repeat, 1), (Surplus, 1), (Unknown, 1)];
        for wanted in 3..=MOST_WANTED {
            let mix = Mix::of(wanted, &one_of_each).with(Right, wanted - 2);
            let mut calls = mix.calls();
            calls.reverse();
            let both = rewards("tool_use", &[mix.trajectory(), turn(&calls.concat(), wanting(wanted))]);
            assert!((both[0] - both[1]).abs() < ROUNDING, "{both:?}");
        }
    }

    /// A policy that wavers between calls earns no more by making all of them than by making any one.
    #[test]
    fn trying_out_pays_no_more_than_deciding() {
        let of_other_tools = [call("f", &json!({"a": 0, "b": 0})), call("g", &json!({})), call("h", &json!({}))];
        let of_one_tool = [0, 1, 2].map(|b| call("f", &json!({"a": 0, "b": b})));
        for (choices, margin) in [(of_other_tools, -ROUNDING), (of_one_tool, ROUNDING)] {
            for (wanted, few) in (1..=MOST_WANTED).flat_map(|wanted| [(wanted, 2), (wanted, 3)]) {
                let choices = &choices[..few];
                let certain: String = (1..wanted).map(|at| call("f", &json!({"a": at, "b": 0}))).collect();
                let with = |calls: &str| turn(&(certain.clone() + calls), wanting(wanted));
                let tried = rewards("tool_use", &[with(&choices.concat())])[0];
                let decided = rewards("tool_use", &choices.iter().map(|choice| with(choice)).collect::<Vec<_>>());
                let mean = decided.iter().sum::<f64>() / few as f64;
                assert!(
                    mean - tried > margin,
                    "{wanted} calls, {few} choices: {tried} for all, {mean} for one of them"
                );
            }
        }
    }

    #[test]
    fn arguments_that_nobody_wanted_cost() {
        for b in [0, 9] {
            let padded = (0..4).map(|more| {
                let mut arguments = json!({"a": 0, "b": b});
                arguments.as_object_mut().unwrap().extend((0..more).map(|at| (format!("more{at}"), json!(at))));
                turn(&call("f", &arguments), wanting(1))
            });
            let paid = rewards("tool_use", &padded.collect::<Vec<_>>());
            assert!(paid.windows(2).all(|pair| pair[0] > pair[1] + ROUNDING), "{paid:?}");
        }
    }

    #[test]
    fn a_call_that_is_wanted_twice_is_made_twice() {
        let wanted = json!({"reference_calls": vec![json!({"name": "g", "arguments": {}}); 2]});
        let made = |times| turn(&call("g", &json!({})).repeat(times), wanted.clone());
        let paid = rewards("tool_use", &[made(1), made(2), made(3)]);
        assert!(paid[1] == 1.0 && paid[0] < 1.0 && paid[2] < 1.0, "{paid:?}");
    }

    /// Wrong calls that are written in one block, which breaks, cost what they cost in a block each, and more.
    #[test]
    fn several_calls_in_one_broken_block_pay_no_more() {
        let right = call("f", &json!({"a": 0, "b": 0}));
        let wrong: Vec<_> = (1..4).map(|b| call("f", &json!({"a": 0, "b": b}))).collect();
        let inside: Vec<_> =
            wrong.iter().map(|call| call.replace("<tool_call>", "").replace("</tool_call>", "")).collect();
        let blocks = [inside.join("\n"), format!("[{}]", inside.join(", ")), inside.join("\n").replacen('}', "", 1)];
        let apart = rewards("tool_use", &[turn(&(right.clone() + &wrong.concat()), wanting(1))])[0];
        for block in blocks {
            for end in ["</tool_call>", ""] {
                let together = format!("{right}<tool_call>{block}{end}");
                let paid = rewards("tool_use", &[turn(&together, wanting(1))])[0];
                assert!(paid <= apart + ROUNDING, "{together}: {paid}, and {apart} in a block each");
            }
        }
    }

    /// What names another format hides no call that breaks (G3).
    #[test]
    fn a_marker_of_another_format_hides_no_broken_call() {
        for broken in [BROKEN.to_owned(), call("f", &json!({"a": 0, "b": 0})).replace("</tool_call>", "")] {
            let least = rewards("tool_use", &[turn(&broken, wanting(1))])[0];
            for before in
                ["<|channel|> ", "<|start|>", ">>>all\n", "Observation:\nAction: ", "<answer><search>x</answer>"]
            {
                let paid = rewards("tool_use", &[turn(&(before.to_owned() + &broken), wanting(1))])[0];
                assert!(paid <= least + ROUNDING, "{before}{broken}: {paid}, and {least} without it");
            }
        }
    }

    /// What is taken back (T2), or addressed to nobody (H3), earns what no call earns.
    #[test]
    fn a_hidden_call_is_worth_none() {
        let hidden = |call: &str| {
            let in_a_message = |header: &str| format!("<|channel|>{header}<|message|>{call}<|end|>");
            [
                format!("{call}</think>"),
                in_a_message("final"),
                in_a_message("commentary"),
                in_a_message("commentary to=nobody"),
            ]
        };
        let none = rewards("tool_use", &[turn("", wanting(1))])[0];
        let right = call("f", &json!({"a": 0, "b": 0}));
        for text in [BROKEN, &right].map(hidden).concat() {
            assert!((rewards("tool_use", &[turn(&text, wanting(1))])[0] - none).abs() < ROUNDING, "{text}");
        }
        assert!(none > rewards("tool_use", &[turn(BROKEN, wanting(1))])[0]);
    }

    /// Where the prompt shows the template, no marker that the policy writes takes calls out of its turn, but for the template's own.
    #[test]
    fn foreign_markers_hide_no_calls() {
        type Write<'a> = &'a dyn Fn(&Value) -> String;
        const LLAMA: &str = "<|start_header_id|>assistant<|end_header_id|>\n\n";
        let functionary = |arguments: &Value| format!(">>>f\n{arguments}\n");
        let mistral = |arguments: &Value| format!("[TOOL_CALLS]f{arguments}");
        let hermes = |arguments: &Value| call("f", arguments);
        let forms: [(&str, &str, Write<'_>); 4] = [
            ("hermes", "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n", &hermes),
            ("mistral", "<s>[INST]q[/INST]", &mistral),
            ("mistral", "<s>[INST]A question that is as long as no marker is, about [a] and (b)[/INST] ", &mistral),
            ("functionary_v32", &format!("{LLAMA}>>>"), &functionary),
        ];
        for (format, prompt, write) in forms {
            let right = write(&json!({"a": 0, "b": 0}));
            let right = right.strip_prefix(">>>").unwrap_or(&right);
            let wrong: String = (1..5).map(|a| write(&json!({"a": a}))).collect();
            let scored = |between: &str| {
                let response = format!("{right}{between}{wrong}");
                let mut trajectory =
                    json!({"prompt": prompt, "response": response, "tools": tools(), "tool_format": format});
                trajectory.as_object_mut().unwrap().extend(wanting(1).as_object().unwrap().clone());
                rewards("tool_use", &[trajectory])[0]
            };
            let open = scored("");
            assert!(open < 1.0, "{prompt}");
            for marker in ["<|user|>", "<tool_response>", "<｜User｜>", "[|tool|]", "<start_of_turn>user\n"] {
                let hidden = scored(marker);
                // It may break the call before it.
                assert!(hidden < open + ROUNDING, "{prompt} {marker}: {hidden}, not {open}");
            }
        }
    }
}

/// Penalties, in a rubric that asks for nothing else of the calls.
mod penalties {
    use super::*;

    /// What each of these turns loses by repeating calls.
    fn lost(turns: &[Vec<String>]) -> Vec<f64> {
        let trajectory = |turns: &Vec<String>| {
            let said = |text: &String| {
                [json!({"role": "assistant", "content": text}), json!({"role": "tool", "content": "1"})]
            };
            json!({"messages": turns.iter().flat_map(said).collect::<Vec<_>>(), "tools": tools()})
        };
        let rubric = json!({
            "name": "repeats",
            "reward": {"min": -100.0, "max": 0.0},
            "stages": [{"kind": "expr", "expr": "1", "weight": 1.0}],
            "penalties": [{"kind": "repeat_calls", "weight": 1.0}],
        });
        rewards_of(&rubric, &turns.iter().map(trajectory).collect::<Vec<_>>()).iter().map(|reward| -reward).collect()
    }

    fn mistakes(call: &str) -> [String; 6] {
        [
            call.replacen('{', "", 1),
            call.replace("}}", "}"),
            call.replacen(':', ",", 1),
            call.replacen('"', "'", 3),
            call.replace("</tool_call>", ""),
            call[..call.len() / 2].to_owned(),
        ]
    }

    #[test]
    fn to_break_a_repeat_does_not_hide_it() {
        let one = call("f", &json!({"a": 1, "b": [2, {"c": "x y"}]}));
        for broken in mistakes(&one) {
            for times in 1..4 {
                let whole = vec![one.clone(); times + 1];
                let most = [vec![one.clone()], vec![broken.clone(); times]].concat();
                let none = vec![broken.clone(); times + 1];
                let turns = [whole.clone(), vec![whole.concat()], most.clone(), vec![most.concat()], none];
                assert_eq!(lost(&turns), [times as f64; 5], "{broken}");
            }
            // A call that puts right what does not parse is none.
            assert_eq!(lost(&[vec![broken.clone(), one.clone()], vec![broken]]), [0.0; 2]);
        }
    }

    #[test]
    fn another_call_that_does_not_parse_is_no_repeat() {
        let broken = |a: usize| call("f", &json!({"a": a})).replace("}}", "}");
        assert_eq!(
            lost(&[(0..5).map(broken).collect(), vec![broken(1), call("f", &json!({"a": 2})), broken(3)]]),
            [0.0; 2]
        );
    }
}

/// Calls are a means here, and the answer is what is paid for.
mod answers {
    use super::*;

    const REFERENCE: &str = "Grace Hopper";
    /// From the best to the worst.
    const LAST: [&str; 5] = [
        "<answer>Grace Hopper</answer>",
        "<answer>Grace Brewster Hopper</answer>",
        "<answer>Alan Turing</answer>",
        "<answer></answer>",
        "Grace Hopper, I think.",
    ];

    fn paid(rubric: &str, texts: &[String]) -> Vec<f64> {
        let of = |text: &String| turn(text, json!({"references": [REFERENCE]}));
        rewards(rubric, &texts.iter().map(of).collect::<Vec<_>>())
    }

    const WITH_TOOLS: [&str; 2] = ["short_form_qa", "short_form_qa_curriculum"];

    /// Up to three calls of each sort, in any order.
    fn calls() -> Vec<Vec<String>> {
        let kinds =
            [call("f", &json!({"a": 1})), call("f", &json!({"a": "1"})), call("nobody", &json!({})), BROKEN.to_owned()];
        let mut lists = vec![Vec::new()];
        let mut longest: Vec<Vec<String>> = lists.clone();
        for _ in 0..3 {
            longest = longest
                .iter()
                .flat_map(|list| kinds.iter().map(|kind| [&list[..], std::slice::from_ref(kind)].concat()))
                .collect();
            lists.extend(longest.clone());
        }
        lists
    }

    #[test]
    fn a_better_answer_never_earns_less() {
        for rubric in WITH_TOOLS.into_iter().chain(["binary_em"]) {
            for calls in calls() {
                let paid = paid(rubric, &LAST.map(|last| calls.concat() + last));
                assert!(paid.windows(2).all(|pair| pair[0] >= pair[1]), "{rubric}, {calls:?}: {paid:?}");
            }
            let alone = paid(rubric, &LAST.map(str::to_owned));
            assert!(alone[0] == 1.0 && alone[1] < 0.5, "{rubric}: {alone:?}");
        }
    }

    /// The shares of the form fall with each call that is wrong, and a broken one is worth less than silence, whatever follows.
    #[test]
    fn wrong_calls_do_not_pay() {
        for rubric in WITH_TOOLS {
            for last in LAST {
                for calls in calls() {
                    let more = |wrong: &str| calls.concat() + wrong + last;
                    let wrong = [call("f", &json!({})), call("nobody", &json!({})), BROKEN.to_owned()];
                    let paid = paid(
                        rubric,
                        &[more(""), more(&wrong[0]), more(&wrong[1]), more(&wrong[2]), last.to_owned(), String::new()],
                    );
                    let is_whole = !calls.iter().any(|call| call == BROKEN);
                    // Behind a broken call others raise the share of those that parse, and open nothing.
                    let costs = if is_whole { &paid[1..4] } else { &paid[3..4] };
                    assert!(costs.iter().all(|less| *less <= paid[0] + ROUNDING), "{rubric}, {calls:?}: {paid:?}");
                    assert!(paid[0] <= paid[4] + ROUNDING, "{rubric}, {calls:?}: {paid:?}");
                    assert!(paid[3] < paid[5], "{rubric}, {calls:?}: a broken call beside silence: {paid:?}");
                }
            }
        }
    }

    /// To name several candidates earns no more than to decide for one of them.
    #[test]
    fn listing_candidates_pays_less_than_deciding() {
        let candidates = ["Grace Hopper", "Alan Turing", "Ada Lovelace", "Konrad Zuse"];
        let answer = |text: &str| format!("<think>So.</think><answer>{text}</answer>");
        for rubric in ["short_form_qa", "short_form_qa_curriculum", "search_r1", "binary_em"] {
            for few in 2..=candidates.len() {
                let single = paid(rubric, &candidates[..few].iter().map(|one| answer(one)).collect::<Vec<_>>());
                let mean = single.iter().sum::<f64>() / few as f64;
                for between in [" ", ", ", " or "] {
                    let listed = paid(rubric, &[answer(&candidates[..few].join(between))])[0];
                    assert!(listed < mean, "{rubric}: {few} candidates {listed}, one of them {mean}");
                }
            }
        }
    }

    /// Only the last block counts, and reasoning is none.
    #[test]
    fn other_answers_beside_the_last_are_worth_nothing() {
        for rubric in ["short_form_qa", "short_form_qa_curriculum", "search_r1", "binary_em"] {
            let wrong = "<answer>Alan Turing</answer>";
            let texts = [
                format!("<think>So.</think>{wrong}"),
                format!("<think>{}</think>{wrong}", LAST[0]),
                format!("{}</think>{wrong}", LAST[0]),
                format!("{}{wrong}", LAST[0]),
            ];
            let paid = paid(rubric, &texts);
            assert!(paid.iter().all(|other| *other <= paid[0] + ROUNDING), "{rubric}: {paid:?}");
        }
    }

    #[test]
    fn search_r1_pays_for_closed_searches_and_the_order_of_blocks() {
        let round = "<think>Look.</think><search>A-0</search><information>Hopper</information>";
        let frames = [
            format!("{round}<think>So.</think>"),
            "<think>So.</think>".to_owned(),
            format!("{round} and "),
            "<search>A-0</search>".to_owned(),
        ];
        for last in &LAST[..3] {
            let texts: Vec<_> = frames.iter().map(|frame| format!("{frame}{last}")).collect();
            let paid = paid("search_r1", &texts);
            assert!(paid[0] == paid[1] && paid[2] < paid[0] && paid[3] < paid[0], "{last}: {paid:?}");
            let open = super::answers::paid(
                "search_r1",
                &texts.iter().map(|text| text.clone() + "<search>B-0").collect::<Vec<_>>(),
            );
            assert!(open.iter().zip(&paid).all(|(open, closed)| open < closed && *open < 0.1), "{last}: {open:?}");
        }
    }
}

/// Formats whose calls stand in one list, which a mistake of syntax takes as a whole.
mod lists {
    use super::*;

    /// The format, what stands before and behind its calls and between two, and how a call is written.
    type Form = (&'static str, &'static str, &'static str, &'static str, fn(&str, &Value) -> String);

    const FORMS: [Form; 7] = [
        ("mistral", "[TOOL_CALLS][", "]", ", ", arguments),
        ("granite", "<|tool_call|>[", "]", ",", arguments),
        ("phi4_mini", "functools[", "]", ", ", arguments),
        ("phi4_mini", "<|tool_call|>[", "]<|/tool_call|>", ", ", arguments),
        ("llama3_json", "", "", "; ", parameters),
        ("llama3_json", "<|python_tag|>", "", "\n", parameters),
        ("pythonic", "[", "]", ", ", python),
    ];

    fn arguments(name: &str, given: &Value) -> String {
        json!({"name": name, "arguments": given}).to_string()
    }

    fn parameters(name: &str, given: &Value) -> String {
        json!({"type": "function", "name": name, "parameters": given}).to_string()
    }

    fn python(name: &str, given: &Value) -> String {
        let given: Vec<_> = given.as_object().unwrap().iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("{name}({})", given.join(", "))
    }

    /// Calls of a turn where `f` of 0 and 1 is wanted: right, similar, of the wrong type, once more, surplus, of no tool.
    fn mixtures() -> Vec<Vec<(&'static str, Value)>> {
        let right = |a: usize| ("f", json!({"a": a, "b": 0}));
        let near = |b: usize| ("f", json!({"a": 1, "b": b}));
        let surplus = |at: usize| ("g", json!({"at": format!("w{at}")}));
        vec![
            vec![right(0)],
            vec![right(0), right(1)],
            vec![right(0), near(8), near(9)],
            vec![right(0), ("f", json!({"a": "1", "b": 0}))],
            vec![right(0); 5],
            vec![near(9); 4],
            vec![near(7), near(8), near(9), right(1)],
            vec![surplus(0), surplus(1), surplus(2), surplus(3)],
            vec![surplus(0), right(1), ("nobody", json!({})), surplus(1)],
        ]
    }

    /// A list of calls, written in so many ways that break it: without its end, and with each element or all of them broken.
    fn broken((_, before, end, between, write): Form, calls: &[(&str, Value)]) -> Vec<String> {
        let whole: Vec<_> = calls.iter().map(|(name, given)| write(name, given)).collect();
        let list = |elements: &[String], end: &str| format!("{before}{}{end}", elements.join(between));
        let mistakes: [fn(&str) -> String; 4] = [
            |call| call.replacen(['{', '('], "$", 1),
            |call| call.replacen([':', '='], "", 1),
            |call| call.replacen('"', "", 1).replacen('=', "='", 1),
            |call| call[..call.len() - 1].to_owned(),
        ];
        let mut texts = Vec::new();
        if !end.is_empty() {
            texts.push(list(&whole, ""));
        }
        for mistake in mistakes {
            for at in 0..whole.len() {
                let mut elements = whole.clone();
                elements[at] = mistake(&whole[at]);
                texts.push(list(&elements, end));
            }
            texts.push(list(&whole.iter().map(|call| mistake(call)).collect::<Vec<_>>(), end));
        }
        // What is no attempt at all pays what no call does, and is no break.
        let is_attempt = |text: &String| match before {
            "" => text.starts_with('{'),
            "[" => text.find(|c: char| !(c.is_alphanumeric() || c == '[')) == text.find('('),
            _ => true,
        };
        let list = list(&whole, end);
        texts.retain(|text| is_attempt(text) && *text != list);
        texts
    }

    /// One turn makes a right call, and the next one these, which stand alone otherwise.
    fn trajectory(form: Form, is_second: bool, text: &str) -> Value {
        let (format, before, end, _, write) = form;
        let first = format!("{before}{}{end}", write("f", &json!({"a": 0, "b": 0})));
        let mut messages = vec![json!({"role": "user", "content": "q"})];
        if is_second {
            messages.push(json!({"role": "assistant", "content": first}));
            messages.push(json!({"role": "tool", "content": "1"}));
        }
        messages.push(json!({"role": "assistant", "content": text}));
        let references: Vec<_> = (0..2).map(|a| json!({"name": "f", "arguments": {"a": a, "b": 0}})).collect();
        json!({"messages": messages, "tools": tools(), "tool_format": format, "reference_calls": references})
    }

    #[test]
    fn to_break_a_list_never_pays() {
        for form in FORMS {
            let (format, before, end, between, write) = form;
            for calls in mixtures() {
                let written: Vec<_> = calls.iter().map(|(name, given)| write(name, given)).collect();
                let whole = format!("{before}{}{end}", written.join(between));
                let texts = broken(form, &calls);
                for is_second in [false, true] {
                    let of = |text: &String| trajectory(form, is_second, text);
                    let paid = rewards("tool_use", &[vec![of(&whole)], texts.iter().map(of).collect()].concat());
                    for (text, less) in texts.iter().zip(&paid[1..]) {
                        assert!(paid[0] - less > ROUNDING, "{format}: {less} for {text}, {} for {whole}", paid[0]);
                    }
                }
            }
        }
    }

    /// More calls in a list that breaks earn no more than fewer.
    #[test]
    fn a_longer_broken_list_earns_no_more() {
        for form in FORMS.into_iter().filter(|(_, before, ..)| !before.is_empty()) {
            let calls: Vec<_> = (0..5).map(|at| ("g", json!({"at": format!("w{at}")}))).collect();
            for mistake in 0..3 {
                let texts: Vec<_> = (1..=5).map(|few| broken(form, &calls[..few])[mistake].clone()).collect();
                let paid =
                    rewards("tool_use", &texts.iter().map(|text| trajectory(form, true, text)).collect::<Vec<_>>());
                assert!(paid.windows(2).all(|pair| pair[0] > pair[1] + ROUNDING), "{texts:?}: {paid:?}");
            }
        }
    }
}
