//! The shipped rubrics: each loads, says why it weighs as it weighs, keeps its version through its JSON form, and gives
//! fixed trajectories the rewards that were worked out by hand in the comments.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gradus::http::batch::{BatchError, Engine, Overrides, Stop};
use gradus::judge::rubric::read_json;
use gradus::rubric::{Location, Rubric, SHIPPED};
use gradus::shaping::Position;
use gradus::stages::{Judge, JudgeAnswer, Question, UnitScore, Verdict};
use serde_json::{Value, json};

use super::{NoJudge, hermes, response};

mod files {
    use super::*;

    #[test]
    fn the_directory_and_the_binary_hold_the_same_rubrics() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("rubrics");
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let rubrics = entries.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
        let mut files: Vec<_> = rubrics.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        files.sort();
        let mut shipped = SHIPPED.map(|(name, _)| name.to_owned());
        shipped.sort();
        assert_eq!(files, shipped);
        let wanted = [
            "binary_em",
            "binary_judge",
            "long_form_qa",
            "search_r1",
            "short_form_qa",
            "short_form_qa_curriculum",
            "tool_use",
        ];
        assert_eq!(shipped, wanted);
    }

    #[test]
    fn each_loads_under_its_own_name_and_says_what_it_is_for() {
        for (name, text) in SHIPPED {
            let rubric = Rubric::from_toml(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(*rubric.name, *name);
            assert!(rubric.description.ends_with('.'), "{name} has no description");
            assert!(text.starts_with("# "), "{name} opens with what it is");
        }
    }

    /// Right above, or at the end of the same line.
    #[test]
    fn each_weight_has_a_comment_that_says_why() {
        for (name, text) in SHIPPED {
            let lines: Vec<_> = text.lines().collect();
            let weights = lines.iter().enumerate().filter(|(_, line)| line.trim_start().starts_with("weight"));
            assert!(weights.clone().count() >= Rubric::from_toml(text).unwrap().stages.len(), "{name}");
            for (index, line) in weights {
                let above = index.checked_sub(1).is_some_and(|above| lines[above].starts_with("# "));
                assert!(above || line.contains(" # "), "{name}, line {}: {line:?} has no comment", index + 1);
            }
        }
    }

    #[test]
    fn the_json_form_is_the_same_rubric() {
        for (name, text) in SHIPPED {
            let rubric = Rubric::from_toml(text).unwrap();
            let again = Rubric::from_json(&rubric.json).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(again, rubric, "{name}");
            assert_eq!(again.json, rubric.json, "{name}");
        }
    }

    /// Words about a rubric change no score; weights do.
    #[test]
    fn the_version_names_what_is_scored() {
        let (_, text) = SHIPPED[0];
        let version = |text: &str| Rubric::from_toml(text).unwrap().version;
        assert_eq!(version(&text.replace("description = \"", "description = \"Once more: ")), version(text));
        assert_eq!(version(&format!("# A comment\n{text}")), version(text));
        assert_ne!(version(&text.replacen("weight = 0.1", "weight = 0.2", 1)), version(text));
        let hash = version(text);
        let digits = hash.strip_prefix("b3-").unwrap();
        assert!(digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
    }

    #[test]
    fn weights_sum_to_one() {
        for (name, text) in SHIPPED {
            let rubric = Rubric::from_toml(text).unwrap();
            let sum: f64 = rubric.plan(&gradus::shaping::Position::default()).iter().map(|stage| stage.weight).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{name}: {sum}");
        }
    }
}

/// A list for a struct, field by field, is what serde takes and nobody means.
#[test]
fn lists_are_no_objects() {
    let whole = r#"["x", "", {}, {}, {}, [], [{"kind": "f1", "weight": 1}], [], []]"#;
    assert!(Rubric::from_json(whole).unwrap_err().message.contains("expected an object"));
    let stages = r#""stages": [{"kind": "f1", "weight": 1}]"#;
    for (field, pointer) in [
        (r#""reward": [0, 2]"#, "/reward"),
        (r#""answer": ["answer_tag"]"#, "/answer"),
        (r#""calls": ["auto"]"#, "/calls"),
        (r#""penalties": [["repeat_calls", "r", 0.1]]"#, "/penalties/0"),
        (r#""schedules": [["f1", "weight", "step", [[0, 1], [1, 2]]]]"#, "/schedules/0"),
    ] {
        let error = Rubric::from_json(&format!("{{\"name\": \"x\", {stages}, {field}}}")).unwrap_err();
        assert_eq!(error.pointer, pointer, "{error}");
        assert!(error.message.contains("expected an object"), "{error}");
    }
    let error = Rubric::from_json(r#"{"name": "x", "stages": [["f1", null, 1]]}"#).unwrap_err();
    assert_eq!(error.pointer, "/stages/0");
    let error =
        Rubric::from_toml("name = \"x\"\nreward = [0, 2]\nstages = [{ kind = \"f1\", weight = 1 }]\n").unwrap_err();
    assert_eq!(error.location, Some(Location { line: 2, column: 10 }), "{error}");
}

#[test]
fn errors_in_json_have_line_and_column() {
    let place = |text: &str| {
        let error = read_json(text).unwrap_err();
        let Location { line, column } = error.location.unwrap();
        assert!(!error.message.contains("at line"), "{error}");
        (error.pointer.clone(), line, column)
    };
    let rubric = |stage: &str| format!("{{\"name\": \"x\",\n \"description\": \"é\", \"stages\": [\n  {stage}\n]}}");
    let at = |pointer: &str, line, column| (pointer.to_owned(), line, column);
    // After parsing, while the shape is read, and where it is no JSON at all.
    assert_eq!(place(&rubric(r#"{"kind": "f1", "weight": 1, "threshold": 1.5}"#)), at("/stages/0/threshold", 3, 44));
    assert_eq!(place(&rubric(r#"{"kind": "f1", "weight": "much"}"#)), at("/stages/0/weight", 3, 28));
    assert_eq!(place(&rubric(r#"{"kind": "f1"}"#)), at("/stages/0", 3, 3));
    assert_eq!(place(&rubric(r#"{"kind": "é", weight}"#)).1, 3);
    assert_eq!(place("{\"name\": \"x\",\n \"reward\": [0, 2], \"stages\": []}"), at("/reward", 2, 12));
    assert_eq!(place(""), at("", 1, 1));
}

/// A judge that always says the same: what is tested here is what a rubric makes of a verdict.
struct Always(f64);

impl Judge for Always {
    fn ask(&self, _: &Question<'_>) -> JudgeAnswer {
        JudgeAnswer::Verdict(Verdict { score: UnitScore::clamped(self.0), detail: Vec::new(), cached: false })
    }
}

fn engine(rubric: &str, inline_rubrics: bool) -> Engine {
    Engine { default_rubric: rubric.to_owned(), inline_rubrics, ..super::engine() }
}

/// The result of one trajectory.
fn result(rubric: &str, judge: &dyn Judge, trajectory: &Value) -> Value {
    let body = json!({"trajectories": [trajectory]}).to_string();
    response(&engine(rubric, false), &body, judge)["results"][0].take()
}

/// A judge who is asked for somebody that goes away meanwhile.
#[derive(Default)]
struct Asked {
    times: AtomicUsize,
    abandoned: Arc<AtomicBool>,
}

impl Judge for Asked {
    fn ask(&self, _: &Question<'_>) -> JudgeAnswer {
        self.times.fetch_add(1, Ordering::Relaxed);
        self.abandoned.store(true, Ordering::Relaxed);
        JudgeAnswer::Verdict(Verdict { score: UnitScore::clamped(1.0), detail: Vec::new(), cached: false })
    }
}

#[test]
fn stages_end_when_nobody_wants_them() {
    let judge = Asked::default();
    let engine = engine("binary_em", true);
    let stages: Vec<Value> = (0..16)
        .map(|at| json!({"kind": "judge", "name": format!("j{at}"), "weight": 1, "criteria": "is it right"}))
        .collect();
    let item = json!({"prompt": "q", "response": "<answer>Paris</answer>"});
    let body = json!({"rubric": {"name": "many", "stages": stages}, "trajectories": [item]}).to_string();
    let stop = Stop { abandoned: Arc::clone(&judge.abandoned), ..Stop::default() };
    let error = engine.score(&body, &Overrides::default(), &stop, &judge).map(|scored| String::from_utf8(scored.body));
    assert!(matches!(error, Err(BatchError::Abandoned)), "{error:?}");
    assert!((1..=4).contains(&judge.times.load(Ordering::Relaxed)), "{:?}", judge.times);
}

/// An item that no judge can answer could be sent again for ever.
#[test]
fn an_inline_rubric_with_a_broken_prompt_is_refused() {
    let stage = json!({"kind": "judge", "mode": "match", "weight": 1, "prompt": "{{ anwser }}"});
    let item = json!({"prompt": "q", "response": "<answer>Paris</answer>"});
    let body = json!({"rubric": {"name": "r", "stages": [stage]}, "trajectories": [item]}).to_string();
    let engine = engine("binary_em", true);
    match engine.score(&body, &Overrides::default(), &Stop::default(), &Always(1.0)) {
        Err(BatchError::Rubric(error)) => {
            assert_eq!((&*error.pointer, error.location), ("/stages/0/prompt", None), "{error}");
            assert!(error.message.contains("`anwser`"), "{error}");
        }
        other => panic!("{:?}", other.map(|scored| String::from_utf8(scored.body))),
    }
}

#[test]
fn a_score_below_its_threshold_is_written_as_another_number() {
    let reason = |expression: &str, threshold: f64| {
        let stage = json!({"kind": "expr", "expr": expression, "weight": 1, "threshold": threshold});
        let item = json!({"prompt": "q", "response": "<answer>Paris</answer>"});
        let body = json!({"rubric": {"name": "r", "stages": [stage]}, "trajectories": [item]}).to_string();
        response(&engine("binary_em", true), &body, &Always(1.0))["results"][0]["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(reason("0.9999", 1.0), "expr scored 0.9999, below its threshold 1");
    assert_eq!(reason("0.333", 0.3333), "expr scored 0.333, below its threshold 0.3333");
    assert_eq!(reason("0.9994", 1.0), "expr scored 0.999, below its threshold 1.000");
}

#[test]
fn a_weight_on_its_way_to_the_least_is_never_nothing() {
    let rubric = Rubric::from_json(
        r#"{"name": "n", "stages": [{"kind": "f1", "weight": 1, "threshold": 1}], "schedules": [{"stage": "f1",
            "of": "weight", "over": "mastery.f1", "points": [[0, 1e9], [0.8917523368513164, 1e-9]]}]}"#,
    )
    .unwrap();
    let position = Position { step: None, mastery: [("f1".to_owned(), 0.891_752_336_851_316_3)].into() };
    assert_eq!(rubric.plan(&position)[0].weight, 1.0);
}

#[track_caller]
fn reward_of(result: &Value, wanted: f64) {
    assert_eq!(result["valid"], true, "{result}");
    let reward = result["reward"].as_f64().unwrap();
    assert!((reward - wanted).abs() < 1e-12, "the reward is {reward}, worked out by hand it is {wanted}: {result:#}");
    let components: f64 = result["components"].as_object().unwrap().values().map(|value| value.as_f64().unwrap()).sum();
    assert!((components - reward).abs() <= 1e-9 * reward.abs(), "components sum to {components}: {result:#}");
}

fn search(arguments: &Value) -> String {
    hermes("search", arguments)
}

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "search", "parameters": {
        "type": "object",
        "properties": {"query": {"type": "string"}, "top_k": {"type": "integer"}},
        "required": ["query"]}}}])
}

/// A search, its result, and a last turn.
fn asked_and_answered(call: &str, last: &str) -> Value {
    json!({
        "messages": [
            {"role": "user", "content": "Who wrote the A-0 system?"},
            {"role": "assistant", "content": call},
            {"role": "tool", "content": "Grace Hopper wrote it."},
            {"role": "assistant", "content": last},
        ],
        "tools": tools(),
        "references": ["Grace Hopper"],
    })
}

fn good_call() -> String {
    search(&json!({"query": "A-0 system"}))
}

mod short_form_qa {
    use super::*;

    fn of(call: &str, last: &str) -> Value {
        result("short_form_qa", &NoJudge, &asked_and_answered(call, last))
    }

    /// 0.1 for parsing, 0.1 for the schema, 0.1 for the tag, 0.7 for the answer.
    #[test]
    fn everything_right_is_one() {
        reward_of(&of(&good_call(), "<answer>Grace Hopper</answer>"), 1.0);
    }

    /// Case and punctuation go, as in SQuAD: an exact match is 1 whatever its BLEU.
    #[test]
    fn an_exact_match_after_normalisation_is_one() {
        reward_of(&of(&good_call(), "<answer>the grace hopper!</answer>"), 1.0);
    }

    /// [Grace Hopper USN] against [Grace Hopper]: `N_r` = 2, p1 = 2/3, p2 = 1/2, the geometric mean is sqrt(1/3); 3 tokens
    /// are within the slack of 2 * 2, so BP = 1. Floor 0.2 and cap 0.5: 0.5 * (sqrt(1/3) - 0.2) / 0.8 = 0.2358 of 0.7.
    #[test]
    fn a_near_miss_earns_partial_credit() {
        let similarity = (1.0_f64 / 3.0).sqrt();
        let wanted = 0.3 + 0.7 * 0.5 * (similarity - 0.2) / 0.8;
        assert!((wanted - 0.465_091).abs() < 1e-6);
        reward_of(&of(&good_call(), "<answer>Grace Hopper USN</answer>"), wanted);
    }

    /// No shared token: form alone pays 0.3.
    #[test]
    fn a_wrong_answer_keeps_what_form_earned() {
        reward_of(&of(&good_call(), "<answer>Alan Turing</answer>"), 0.3);
    }

    /// The stage asks for the tag, scores 0, and closes the last one: 0.1 + 0.1.
    #[test]
    fn no_answer_closes_the_answer_stage() {
        let result = of(&good_call(), "It was Grace Hopper.");
        reward_of(&result, 0.2);
        assert_eq!(result["failed_stage"], "answer_format");
        assert_eq!(result["stages"][3]["open"], false);
    }

    /// One of one call misses a required argument: 0.1 for parsing, then 0 is below one half.
    #[test]
    fn a_call_against_its_schema_closes_the_answer() {
        let result = of(&search(&json!({"top_k": 3})), "<answer>Grace Hopper</answer>");
        reward_of(&result, 0.1);
        assert_eq!(result["failed_stage"], "tool_schema");
    }

    /// One of two calls fits: 0.1 + 0.1 * 1/2 + 0.1 + 0.7.
    #[test]
    fn one_slip_of_two_calls_costs_half_of_the_schemas_share() {
        let calls = good_call() + &search(&json!({"top_k": 3}));
        reward_of(&of(&calls, "<answer>Grace Hopper</answer>"), 0.95);
    }

    /// One of two attempts parses: 0.1 * 1/2, and everything else stays closed.
    #[test]
    fn a_broken_call_closes_everything() {
        let calls = good_call() + "<tool_call>{\"name\": \"search\",}</tool_call>";
        let result = of(&calls, "<answer>Grace Hopper</answer>");
        reward_of(&result, 0.05);
        assert_eq!(result["failed_stage"], "tool_parse");
        assert_eq!(result["metrics"]["exact_match"], 1.0, "reported beside the stages, worth nothing");
    }
}

mod binary_em {
    use super::*;

    fn of(last: &str) -> Value {
        result("binary_em", &NoJudge, &asked_and_answered("<tool_call>{</tool_call>", last))
    }

    /// The 0-1 reward of the paper's baselines: calls do not matter.
    #[test]
    fn right_is_one_and_all_else_is_zero() {
        reward_of(&of("<answer>Grace Hopper</answer>"), 1.0);
        reward_of(&of("<answer>Grace Hopper USN</answer>"), 0.0);
        reward_of(&of("Grace Hopper"), 0.0);
    }
}

mod judged {
    use super::*;

    fn of(rubric: &str, verdict: Option<f64>, last: &str) -> Value {
        let judge: Box<dyn Judge> = match verdict {
            Some(score) => Box::new(Always(score)),
            None => Box::new(NoJudge),
        };
        result(rubric, &*judge, &asked_and_answered(&good_call(), last))
    }

    const ANSWER: &str = "<answer>Grace Hopper wrote the A-0 system.</answer>";

    /// 0.1 + 0.1 + 0.1 + 0.7 * 0.8.
    #[test]
    fn the_verdict_is_seven_tenths_of_long_form_qa() {
        reward_of(&of("long_form_qa", Some(0.8), ANSWER), 0.86);
        reward_of(&of("long_form_qa", Some(0.0), ANSWER), 0.3);
    }

    /// The cut is at 0.5, and 0.5 itself counts.
    #[test]
    fn the_verdict_is_cut_in_binary_judge() {
        reward_of(&of("binary_judge", Some(0.5), ANSWER), 1.0);
        reward_of(&of("binary_judge", Some(0.49), ANSWER), 0.0);
    }

    /// A closed gate is a score, without a judge, too: 0.1 + 0.1 + 0.1 * 0. An empty last message is no answer.
    #[test]
    fn a_closed_gate_asks_no_judge() {
        reward_of(&of("long_form_qa", None, ""), 0.2);
    }

    #[test]
    fn without_a_judge_there_is_no_reward() {
        for rubric in ["long_form_qa", "binary_judge"] {
            let result = of(rubric, None, ANSWER);
            assert_eq!((&result["valid"], &result["reward"]), (&json!(false), &Value::Null), "{result:#}");
            assert_eq!(result["errors"][0]["code"], "judge_unavailable");
            assert_eq!(result["errors"][0]["stage"], "judge");
        }
    }
}

mod tool_use {
    use super::*;

    fn of(calls: &[String], reference_calls: &Value) -> Value {
        let trajectory = json!({
            "messages": [{"role": "user", "content": "Look both up."}, {"role": "assistant", "content": calls.concat()}],
            "tools": tools(),
            "reference_calls": reference_calls,
        });
        result("tool_use", &NoJudge, &trajectory)
    }

    fn both() -> Value {
        json!([
            {"name": "search", "arguments": {"query": "A-0 system", "top_k": 2}},
            {"name": "search", "arguments": {"query": "B-0 system", "top_k": 2}},
        ])
    }

    fn call(query: &str, top_k: u32) -> String {
        search(&json!({"query": query, "top_k": top_k}))
    }

    /// 0.02 + 0.02 + 0.96, in whatever order.
    #[test]
    fn the_reference_calls_in_any_order_are_one() {
        reward_of(&of(&[call("B-0 system", 2), call("A-0 system", 2)], &both()), 1.0);
    }

    /// The second call has one of two arguments right: similarity (1 + 1) / (1 + 2) = 2/3.
    /// Jaccard: (1 + 2/3) / (2 + 2 - (1 + 2/3)) = 5/7; 0.04 + 0.96 * 5/7.
    #[test]
    fn a_wrong_argument_costs_its_share() {
        reward_of(&of(&[call("A-0 system", 2), call("B-0 system", 9)], &both()), 0.04 + 0.96 * 5.0 / 7.0);
    }

    /// 2 / (3 + 2 - 2) = 2/3: 0.04 + 0.96 * 2/3.
    #[test]
    fn a_repeat_is_surplus() {
        let calls = [call("A-0 system", 2), call("A-0 system", 2), call("B-0 system", 2)];
        reward_of(&of(&calls, &both()), 0.68);
    }

    /// One reference, eight equal calls: 1 / (8 + 1 - 1), 0.04 + 0.96 / 8.
    #[test]
    fn a_loop_earns_next_to_nothing() {
        let calls = vec![call("A-0 system", 2); 8];
        let one = json!([{"name": "search", "arguments": {"query": "A-0 system", "top_k": 2}}]);
        reward_of(&of(&calls, &one), 0.16);
    }

    /// The second call has its two arguments, one of a wrong type: half of (1 + 1) / (1 + 2). (4/3) / (4 - 4/3) = 1/2, and not all
    /// calls fit: 0.02 + 0.96 / 2.
    #[test]
    fn a_call_that_its_tool_refuses_is_half_a_call() {
        let refused = search(&json!({"query": "B-0 system", "top_k": "2"}));
        reward_of(&of(&[call("A-0 system", 2), refused], &both()), 0.5);
    }

    /// Not all attempts parse and fit, and nothing closes: 0.96 * 1 / (2 + 2 - 1).
    #[test]
    fn a_broken_call_of_two_lets_the_other_count() {
        let calls = [call("A-0 system", 2), "<tool_call>{</tool_call>".to_owned()];
        reward_of(&of(&calls, &both()), 0.32);
    }

    /// A call that fits nothing earns no less whole than broken.
    #[test]
    fn breaking_a_call_does_not_pay() {
        let one = json!([{"name": "search", "arguments": {"query": "A-0 system", "top_k": 2}}]);
        let unfit = "<tool_call>{\"name\": \"search\", \"arguments\": {}}</tool_call>".to_owned();
        let broken = unfit.replace("{}}", "{}");
        for good in 0..3 {
            let with = |last: &String| {
                let mut calls = vec![call("A-0 system", 2); good];
                calls.push(last.clone());
                of(&calls, &one)["reward"].as_f64().unwrap()
            };
            assert!(with(&unfit) > with(&broken), "{good}");
        }
    }

    /// An empty list asks for no call: silence is right, and a call is wrong.
    #[test]
    fn no_call_may_be_the_right_thing() {
        reward_of(&of(&["I need no tool.".to_owned()], &json!([])), 1.0);
        reward_of(&of(&[call("A-0 system", 2)], &json!([])), 0.04);
    }

    #[test]
    fn without_reference_calls_there_is_no_reward() {
        let result = of(&[call("A-0 system", 2)], &Value::Null);
        assert_eq!(result["valid"], false);
        assert_eq!(result["errors"][0]["code"], "references_missing");
    }
}

mod search_r1 {
    use super::*;

    fn of(response: &str) -> Value {
        let trajectory = json!({"prompt": "Who wrote it?", "response": response, "references": ["Grace Hopper"]});
        result("search_r1", &NoJudge, &trajectory)
    }

    const ROUND: &str = "<think>Look.</think><search>A-0</search><information>Hopper</information><think>So.</think>";

    /// 0.1 for closed searches, 0.2 for the order of the blocks, 0.7 for the answer.
    #[test]
    fn everything_right_is_one() {
        reward_of(&of(&format!("{ROUND}\n<answer> Grace Hopper </answer>")), 1.0);
    }

    /// A search may find nothing: the environment wrote that, not the policy.
    #[test]
    fn an_empty_result_costs_nothing() {
        reward_of(&of(&format!("{}<answer>Grace Hopper</answer>", ROUND.replace("Hopper", " "))), 1.0);
        reward_of(&of(&format!("{}<answer>Grace Hopper</answer>", ROUND.replace("Hopper", ""))), 1.0);
    }

    /// Text between the blocks loses the frame's 0.2 and closes nothing.
    #[test]
    fn a_right_answer_in_the_wrong_frame_keeps_most() {
        reward_of(&of(&format!("{ROUND} I am sure. <answer>Grace Hopper</answer>")), 0.8);
    }

    /// As in `short_form_qa`, with a cap of 0.3: 0.3 + 0.7 * 0.3 * (sqrt(1/3) - 0.2) / 0.8.
    #[test]
    fn a_near_miss_earns_three_tenths_at_most() {
        let similarity = (1.0_f64 / 3.0).sqrt();
        let wanted = 0.3 + 0.7 * 0.3 * (similarity - 0.2) / 0.8;
        reward_of(&of(&format!("{ROUND}<answer>Grace Hopper USN</answer>")), wanted);
    }

    /// One of two searches is never closed: 0.1 * 1/2, and nothing behind it opens.
    #[test]
    fn an_open_search_closes_everything() {
        let result = of(&format!("{ROUND}<search>A-0 once more"));
        reward_of(&result, 0.05);
        assert_eq!(result["failed_stage"], "tool_parse");
    }
}
