//! The small judge behind `POST /reward`.

use super::*;
use crate::common::{stable, with};

/// 40 answers to one long question, all different.
fn rollouts() -> Vec<Value> {
    let question = format!("{}What is the capital of Australia?", "It is a large country in the south. ".repeat(10));
    let answer = |n: usize| answers(&question, "Canberra", &format!("{} It has {n} parks.", [RIGHT, WRONG][n % 2]));
    (0..40).map(answer).collect()
}

/// The question reaches the judge as its text, however the client escapes it.
#[test]
fn a_question_is_read_however_it_was_sent() {
    let server = SmallJudge::new().start(&[]);
    let judged = |content: &str| {
        let answer = r#"{"role":"assistant","content":"Die Größte ist Canberra."}"#;
        let body = format!(
            r#"{{"rubric":"{SMALL}","trajectories":[{{"messages":[{{"role":"user","content":{content}}},{answer}],"references":["Canberra"]}}]}}"#
        );
        let response = server.post("/reward", &body).ok();
        assert_eq!(response["results"][0]["valid"], true, "{response}");
        response["rewards"][0].as_f64().unwrap()
    };
    let plain = judged("\"Was ist die größte \\\"Stadt\\\"?\\nSag es.\"");
    for same in [
        r#""Was ist die gr\u00f6\u00dfte \"Stadt\"?\nSag es.""#,
        r#"[{"type":"text","text":"Was ist die größte \"Stadt\"?"},{"type":"text","text":"\nSag es."},{"type":"image_url","image_url":{"url":"u"}}]"#,
    ] {
        assert_eq!(judged(same).to_bits(), plain.to_bits(), "{same}");
    }
    assert_ne!(judged("\"Was ist die kleinste Stadt?\"").to_bits(), plain.to_bits());
}

#[test]
fn a_right_answer_scores_high_a_wrong_one_low_and_none_is_not_judged() {
    let server = SmallJudge::new().start(&[]);
    let response = server.reward(&by(SMALL, &[capital(RIGHT), capital(WRONG), capital("")])).ok();
    let [right, wrong, none] = results(&response).as_slice() else { panic!("{response}") };
    for (result, likely) in [(right, "p(Match)"), (wrong, "p(Mismatch)")] {
        let stage = judged(result);
        let detail = |name: &str| stage["detail"][name].as_f64().unwrap_or_else(|| panic!("{name} in {stage}"));
        assert!((detail("p(Match)") + detail("p(Mismatch)") - 1.0).abs() < 1e-9, "{stage}");
        assert!(detail(likely) > 0.5 && (0.0..0.5).contains(&detail("outside")), "{stage}");
        let score = stage["score"].as_f64().unwrap();
        assert_eq!(score, detail("p(Match)"), "Match is worth 1 and Mismatch 0");
        assert!((result["reward"].as_f64().unwrap() - (0.3 + 0.7 * score)).abs() < 1e-9, "{result}");
        assert_eq!((&result["valid"], &result["cache"]), (&json!(true), &json!("miss")));
    }
    assert_eq!((&none["reward"], &none["failed_stage"]), (&json!(0.2), &json!("answer_format")), "form alone: {none}");
    assert_eq!(judged(none)["open"], false);
    assert_eq!(server.metric("gradus_judge_cache_misses_total", &[]), 2.0, "nobody is asked about no answer");
    assert_eq!(server.metric("gradus_judge_outside_probability_count", &[("rubric", SMALL)]), 2.0);
}

/// Length is the policy's doing: it must not get it out of a verdict. The small judge reads 1,024 tokens.
#[test]
fn an_answer_that_is_longer_than_the_judge_can_read_is_judged_too() {
    let server = SmallJudge::new().start(&[]);
    let long = format!("{}{}", WRONG.repeat(2000), " So I say.");
    let question = "Where? ".repeat(40);
    let items = [
        capital(&WRONG.repeat(4)),
        capital(&long),
        answers(&question, "Canberra", &"\u{4f60}".repeat(150_000)),
        // Many characters for a token.
        capital(&(" ".repeat(150_000) + WRONG + &"=".repeat(40_000))),
    ];
    let response = server.reward(&by(SMALL, &items)).ok();
    for result in results(&response) {
        assert_eq!((&result["valid"], &judged(result)["open"]), (&json!(true), &json!(true)), "{result}");
    }
    let score = |index: usize| judged(&results(&response)[index])["score"].as_f64().unwrap();
    assert!((score(0) - score(1)).abs() < 0.25, "{} {}", score(0), score(1));
}

/// The number of turns is the policy's doing as well.
#[test]
fn a_conversation_of_more_messages_than_the_judge_can_read_is_judged_too() {
    let server = SmallJudge::new().start(&[]);
    let prompt = "Same?\n{% for m in conversation %}{{ m.text }}\n{% endfor %}\nVerdict:";
    let rubric = inline(json!({"prompt": prompt, "max_outside": 1}));
    let said = |n: usize| {
        let role = if n.is_multiple_of(2) { "user" } else { "assistant" };
        json!({"role": role, "content": format!("This is message {n}.")})
    };
    let conversation =
        |messages: usize| json!({"messages": (0..messages).map(said).collect::<Vec<_>>(), "references": ["Canberra"]});
    let items = [2, 12, 122, 1000].map(conversation);
    let response = server.reward(&json!({"rubric": rubric, "trajectories": items})).ok();
    for result in results(&response) {
        assert_eq!((&result["valid"], &judged(result)["open"]), (&json!(true), &json!(true)), "{result}");
    }
}

#[test]
fn the_same_question_is_asked_once() {
    let server = SmallJudge::new().start(&[]);
    let request = by(SMALL, &[capital(RIGHT)]);
    let first = server.reward(&request).ok();
    let computed = server.metric("gradus_judge_computed_tokens_total", &[("judge", "default")]);
    let second = server.reward(&request).ok();
    assert_eq!((&first["results"][0]["cache"], &second["results"][0]["cache"]), (&json!("miss"), &json!("hit")));
    assert_eq!(stable(&first["results"][0]), stable(&second["results"][0]));
    assert!(computed > 0.0);
    assert_eq!(server.metric("gradus_judge_computed_tokens_total", &[("judge", "default")]), computed);
    assert_eq!(server.metric("gradus_judge_cache_hits_total", &[]), 1.0);
    assert_eq!(server.metric("gradus_judge_cache_misses_total", &[]), 1.0);
}

#[test]
fn neither_order_nor_size_of_a_batch_changes_a_bit() {
    // Without room for answers every question is computed each time.
    let server = SmallJudge::new().start(&["--judge-cache-bytes", "0"]);
    let items = rollouts()[..12].to_vec();
    let together = server.reward(&by(SMALL, &items)).ok();
    let backwards: Vec<Value> = items.iter().rev().cloned().collect();
    let turned = server.reward(&by(SMALL, &backwards)).ok();
    for (index, item) in items.iter().enumerate() {
        let alone = server.reward(&by(SMALL, std::slice::from_ref(item))).ok();
        let wanted = stable(&alone["results"][0]);
        assert_eq!(alone["results"][0]["cache"], "miss");
        assert_eq!(stable(&together["results"][index]), wanted, "{index} of all");
        assert_eq!(stable(&turned["results"][items.len() - 1 - index]), wanted, "{index} of all, backwards");
    }
}

#[test]
fn rollouts_of_one_prompt_share_its_computation() {
    let server = SmallJudge::new().start(&[]);
    let response = server.reward(&by(SMALL, &rollouts())).ok();
    assert!(results(&response).iter().all(|result| result["valid"] == true), "{response}");
    let metric = |name: &str| server.metric(name, &[("judge", "default")]);
    let (asked, computed) = (metric("gradus_judge_asked_tokens_total"), metric("gradus_judge_computed_tokens_total"));
    assert!(asked > 40.0 * 400.0, "40 prompts of more than 400 tokens: {asked}");
    assert!(computed < asked / 2.0, "{computed} of {asked} tokens were computed");
    assert!((metric("gradus_judge_prefix_hit_ratio") - (1.0 - computed / asked)).abs() < 1e-9);
    assert!(metric("gradus_judge_batches_total") >= 1.0 && metric("gradus_judge_busy_seconds_total") > 0.0);
    assert_eq!((metric("gradus_judge_queued_tokens"), metric("gradus_judge_failures_total")), (0.0, 0.0));
    assert_eq!(metric("gradus_judge_ready"), 1.0);
    assert_eq!(server.get("/readyz").ok()["status"], "ok");
}

#[test]
fn a_deadline_that_is_too_short_is_never_a_number() {
    let server = SmallJudge::new().start(&[]);
    let request = with(by(SMALL, &rollouts()), "deadline_ms", json!(30));
    let answer = server.reward(&request);
    if answer.status == 504 {
        assert_eq!(answer.problem(504)["type"], "urn:gradus:problem:deadline");
    } else {
        let response = answer.ok();
        let open = |result: &&Value| result["valid"] == false;
        assert!(results(&response).iter().any(|result| open(&result)), "all in 30 ms: {response}");
        results(&response)
            .iter()
            .filter(open)
            .for_each(|result| assert_no_score(result, "judge_timeout", &["deadline"]));
    }
    // What was given up holds nobody up.
    let response = server.reward(&by(SMALL, &[capital(RIGHT)])).ok();
    assert_eq!(response["results"][0]["valid"], true, "{response}");
}

/// A rubric of one judge stage, sent with the request.
fn inline(judge: Value) -> Value {
    let mut stage = json!({"kind": "judge", "weight": 1, "mode": "match"});
    stage.as_object_mut().unwrap().extend(judge.as_object().unwrap().clone());
    json!({"name": "mine", "answer": {"from": "last_message"}, "stages": [stage]})
}

#[test]
fn a_judge_that_there_is_not_is_told_with_those_that_there_are() {
    let server = SmallJudge::new().start(&[]);
    let request = json!({"rubric": inline(json!({"judges": ["second"]})), "trajectories": [capital(RIGHT)]});
    let response = server.reward(&request).ok();
    assert_no_score(&response["results"][0], "judge_unavailable", &["\"second\"", "default"]);
    let request = with(request, "on_invalid", json!("error"));
    server.reward(&request).refused(503, "\"second\"");
}

#[test]
fn a_broken_prompt_template_is_told_with_its_place() {
    let server = SmallJudge::new().start(&[]);
    for (prompt, place) in [("Same?\n{{ answer", "line 2"), ("Same?\n\n{{ anwser }}", "line 3, column 4")] {
        let request = json!({"rubric": inline(json!({"prompt": prompt})), "trajectories": [capital(RIGHT)]});
        let problem = server.reward(&request).problem(422);
        assert_eq!(
            (&problem["type"], &problem["pointer"]),
            (&json!("urn:gradus:problem:bad-rubric"), &json!("/rubric/stages/0/prompt"))
        );
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("template") && detail.contains(place), "{detail}");
    }
}

#[test]
fn a_prompt_beyond_the_context_fails_alone() {
    let server = SmallJudge::new().start(&[]);
    // None of them is long enough to be cut.
    let references: Vec<String> = (0..400).map(|n| format!("Canberra {n}")).collect();
    let long = with(capital(RIGHT), "references", json!(references));
    let response = server.reward(&by(SMALL, &[capital(RIGHT), long, capital(WRONG)])).ok();
    let [right, long, wrong] = results(&response).as_slice() else { panic!("{response}") };
    assert_no_score(long, "judge_no_verdict", &["tokens do not fit", "1024 is the most of the model's context"]);
    assert!(right["reward"].as_f64().unwrap() > wrong["reward"].as_f64().unwrap(), "{response}");
    assert_eq!(server.metric("gradus_judge_failures_total", &[("judge", "default")]), 1.0);
}
