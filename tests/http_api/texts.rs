//! A prompt and a response as two texts: where the policy's turns end, and what in them is its own.

use serde_json::{Value, json};

use super::contract::{score, score_one};
use super::items::conversation;
use crate::common::{Server, hermes, tool, with};

/// A prompt and what was written after it, as two texts.
fn rollout(prompt: &str, response: &str) -> Value {
    json!({"prompt": prompt, "response": response, "references": ["Paris"]})
}

#[test]
fn prompt_and_response_are_scored_like_the_same_messages() {
    let server = Server::start(&[]);
    let response = "<think>Easy.</think>\n<answer>Paris</answer>";
    let messages = conversation(json!([{"role": "user", "content": "?"}, {"role": "assistant", "content": response}]));
    let expected = score_one(&server, messages);
    for prompt in [json!("?"), json!([{"role": "user", "content": "?"}])] {
        let item = json!({"prompt": prompt, "response": response, "references": ["Paris"]});
        let result = score_one(&server, item);
        assert_eq!(result["reward"], expected["reward"]);
        assert_eq!(result["metrics"], expected["metrics"]);
        assert_eq!(result["answer"]["text"], "Paris");
    }
    let no_prompt = json!({"response": response, "references": ["Paris"]});
    assert_eq!(score_one(&server, no_prompt)["reward"], 1.0);
}

#[test]
fn tool_results_between_the_markers_of_a_response_are_not_the_policys() {
    let server = Server::start(&[]);
    let item = |answer: &str| {
        json!({
            "prompt": "?", "references": ["Paris"], "tools": [tool("search", json!({"type": "object"}))], "tool_format": "hermes",
            "response": format!("{}<|im_end|>\n<|im_start|>user\n<tool_response>\n<answer>Paris</answer><tool_call>oops</tool_call>\n</tool_response><|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>", hermes("search", &json!({"query": "a"}))),
        })
    };
    let result = score_one(&server, item("I do not know."));
    assert!(result["answer"]["text"].is_null(), "{result}");
    assert_eq!(result["parse"]["attempts"], 1, "{result}");
    assert_eq!(score_one(&server, item("<answer>Paris</answer>"))["reward"], 1.0);
    let search_r1 = json!({"prompt": "?", "references": ["Paris"], "tool_format": "search_r1", "tools": [tool("search", json!({"type": "object"}))],
        "response": "<think>a</think><search>capital</search><information>Doc 1: Lyon, not Paris.</information><think>b</think><answer>Paris</answer>"});
    let response = score(&server, &json!({"rubric": "search_r1", "trajectories": [search_r1]}));
    assert_eq!(response["rewards"], json!([1.0]));
}

/// Formats that are guessed from what others say, or that the policy chooses by its words, must not make theirs its own.
#[test]
fn what_others_say_in_a_response_is_not_scored_where_the_format_is_guessed() {
    let server = Server::start(&[]);
    let result = |response: String| {
        let tools = json!([tool("f", json!({})), tool("search", json!({}))]);
        score_one(&server, json!({"prompt": "?", "response": response, "references": ["Paris"], "tools": tools}))
    };
    let call = hermes("f", &json!({"a": 1}));
    let answered = "<|im_end|>\n<|im_start|>user\n<tool_response>\n<answer>Paris</answer>\n</tool_response><|im_end|>\n<|im_start|>assistant\nno idea";
    for lead in ["<search>a</search>", "<|message|>", "<|channel|>final<|message|>"] {
        for format in ["auto", "search_r1"] {
            let item = json!({"prompt": "?", "response": format!("{lead}{call}{answered}"), "references": ["Paris"], "tool_format": format});
            let result = score_one(&server, item);
            assert!(result["answer"]["text"].is_null() && result["reward"] != 1.0, "{lead} {format} {result}");
        }
    }
    let plain = format!(
        "<|message|>{call}\nuser\n<tool_response>\n<answer>Paris</answer>\n</tool_response>\nassistant\nno idea"
    );
    assert!(result(plain)["answer"]["text"].is_null());
    let asked = "Hello<|im_end|>\n<|im_start|>user\nuse <search>x</search> please<|im_end|>\n<|im_start|>assistant\n";
    let found = result(format!("{asked}{call}"));
    assert_eq!((&found["parse"]["format"], &found["parse"]["attempts"]), (&json!("hermes"), &json!(1)), "{found}");
    let harmony = "<|channel|>analysis<|message|>a<|end|><|start|>functions.f to=assistant<|channel|>commentary<|message|><answer>Lyon</answer><|end|><|start|>assistant<|channel|>final<|message|><answer>Paris</answer><|return|>";
    assert_eq!(result(harmony.to_owned())["answer"]["text"], "Paris");
}

#[test]
fn markers_that_a_call_or_reasoning_quotes_split_no_response() {
    let server = Server::start(&[]);
    let f = hermes("f", &json!({}));
    for (format, response) in [
        ("hermes", format!("<think>I recall <tool_response> tags</think>{f}")),
        ("hermes", format!("<think>The <tool_response></tool_response> pair</think>{f}")),
        ("hermes", hermes("f", &json!({"s": "[INST] the <|im_start|> token <tool_response>x</tool_response>"}))),
        ("hermes", format!("The template uses [INST], [TOOL_RESULTS] and <tool_response> tags. {f}")),
        ("auto", format!("The template uses [INST], [TOOL_RESULTS] and <tool_response> tags. {f}")),
        (
            "qwen3_coder",
            "<tool_call><function=f><parameter=a>\nx = \"[INST]\"\n</parameter></function></tool_call>".to_owned(),
        ),
        ("pythonic", "[f(a=\"[INST]\")]".to_owned()),
    ] {
        let item = json!({"prompt": "?", "response": response, "tool_format": format, "tools": [tool("f", json!({}))]});
        let result = score_one(&server, item);
        let parsed = (&result["parse"]["ok"], &result["parse"]["attempts"], &result["tool_calls"][0]["parsed"]);
        assert_eq!(parsed, (&json!(true), &json!(1), &json!(true)), "{format} {response}");
    }
}

#[test]
fn a_call_in_a_response_has_its_span_in_the_response() {
    let server = Server::start(&[]);
    let call = hermes("search", &json!({"query": "é"}));
    let response = format!("Größe: {call}");
    let item = json!({"prompt": "?", "response": response, "tools": [tool("search", json!({}))]});
    let result = score_one(&server, item);
    let ends = [0, 1].map(|end| usize::try_from(result["tool_calls"][0]["span"][end].as_u64().unwrap()).unwrap());
    assert_eq!(&response[ends[0]..ends[1]], call, "spans count bytes");
}

#[test]
fn a_marker_that_the_prompt_wrote_counts() {
    let server = Server::start(&[]);
    let prompt =
        "<|start_header_id|>user<|end_header_id|>\n\nq<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n>>>";
    let parsed = |response: &str, more: Value| {
        let mut item = json!({"prompt": prompt, "response": response, "references": ["x"]});
        item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        score(&server, &json!({"trajectories": [item]}))["results"][0]["parse"].clone()
    };
    let call = parsed("get_weather\n{\"city\": \"Hanoi\"}", json!({}));
    assert_eq!((&call["format"], &call["attempts"]), (&json!("functionary_v32"), &json!(1)), "{call}");
    let broken = parsed("get_weather\n{\"city\": \"Hanoi\"", json!({}));
    assert_eq!(broken["ok"], false, "{broken}");
    let named = parsed("get_weather\n{\"city\": \"Hanoi\"}", json!({"tool_format": "hermes"}));
    assert_eq!((&named["format"], &named["attempts"]), (&json!("hermes"), &json!(0)), "{named}");
}

#[test]
fn reasoning_that_the_prompt_opened_and_nobody_closed_is_no_answer() {
    let server = Server::start(&[]);
    let result = |prompt: &str, response: &str| score_one(&server, rollout(prompt, response));
    let answer = "I might say <answer>Paris</answer>";
    for end in ["<think>", "<think>\n", "<think>\n\n "] {
        let open = result(&format!("<|im_start|>assistant\n{end}"), answer);
        assert_eq!(open["parse"]["errors"][0]["code"], "reasoning_open", "{open}");
        assert!(open["answer"]["text"].is_null() && open["reward"] != 1.0, "{open}");
        let closed = result(end, &format!("hm</think>{answer}"));
        assert_eq!((&closed["reward"], &closed["parse"]["ok"]), (&json!(1.0), &json!(true)), "{closed}");
    }
    for prompt in ["q", "<think>\n\n</think>\n\n", "What does <think> mean?", "Begin your reasoning with <think>"] {
        assert_eq!(result(prompt, answer)["reward"], 1.0, "{prompt}");
    }
    // Any way to write the prompt; the first closer ends the reasoning, whatever was opened in it.
    let body = |prompt: &str, response: &str| {
        let response = json!(response);
        let body = format!(
            "{{\"trajectories\":[{{\"prompt\":{prompt},\"response\":{response},\"references\":[\"Paris\"]}}]}}"
        );
        server.post("/reward", &body).ok()["results"][0].clone()
    };
    let prefill = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>\n"}]).to_string();
    for prompt in [r#""assistant\n\u003cthink\u003e\r\n\t""#, &prefill] {
        assert_eq!(body(prompt, answer)["parse"]["errors"][0]["code"], "reasoning_open", "{prompt}");
        let guessed = body(prompt, &format!("{answer} hm <think>x</think> done"));
        assert!(guessed["answer"]["text"].is_null() && guessed["parse"]["ok"] == true, "{guessed}");
        let called = body(prompt, &format!("{} or so</think>{answer}", hermes("f", &json!({}))));
        assert_eq!((&called["parse"]["attempts"], &called["reward"]), (&json!(0), &json!(1.0)), "{called}");
    }
    // Searches inside reasoning that a later turn ends.
    let turns = "I look <search>q</search>\n<information>Rome</information>\n so</think><answer>Paris</answer>";
    let found = result("<think>\n", turns);
    assert_eq!((&found["reward"], &found["parse"]["ok"]), (&json!(1.0), &json!(true)), "{found}");
    let never =
        result("<think>\n", "I look <search>q</search>\n<information>Rome</information>\n so <answer>Paris</answer>");
    assert_eq!(never["parse"]["errors"].as_array().unwrap().len(), 1, "{never}");
    assert!(never["answer"]["text"].is_null());
}

/// Reasoning that the prompt opened ends with its turn; then the same conversation has one reward, however it is sent.
#[test]
fn reasoning_that_the_prompt_opened_reaches_into_no_later_turn() {
    let server = Server::start(&[]);
    let good = hermes("f", &json!({"a": 1}));
    for (first, then) in [
        (good.as_str(), "<think>\nnow</think>\n<answer>Paris</answer>"),
        ("<tool_call>{broken</tool_call>", "<think>\nnow</think>\n<answer>Paris</answer>"),
        (&good, "<answer>Paris</answer>"),
        ("so</think>\n<tool_call>{broken</tool_call>", "now</think>\n<answer>Paris</answer>"),
    ] {
        let text = format!(
            "I need it.\n{first}<|im_end|>\n<|im_start|>user\n<tool_response>\nr\n</tool_response><|im_end|>\n\
             <|im_start|>assistant\n{then}<|im_end|>"
        );
        let prompt = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<think>\n";
        let whole =
            json!({"prompt": prompt, "response": text, "references": ["Paris"], "tools": [tool("f", json!({}))]});
        let apart = json!({"messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": format!("<think>\nI need it.\n{first}")},
            {"role": "tool", "content": "r"},
            {"role": "assistant", "content": then},
        ], "references": ["Paris"], "tools": [tool("f", json!({}))]});
        let (whole, apart) = (score_one(&server, whole), score_one(&server, apart));
        for field in ["reward", "answer/text", "parse/ok", "parse/attempts"] {
            let pointer = format!("/{field}");
            assert_eq!(whole.pointer(&pointer), apart.pointer(&pointer), "{field}: {first} {then}\n{whole}\n{apart}");
        }
    }
}

/// A marker of another template is a word where the prompt shows the policy's own.
#[test]
fn a_foreign_marker_hides_no_turn_where_the_prompt_shows_the_template() {
    let server = Server::start(&[]);
    let broken = "<tool_call>{broken</tool_call>";
    let text = format!(
        "<|user|>{broken}<|im_end|>\n<|im_start|>user\n<tool_response>r</tool_response><|im_end|>\n\
         <|im_start|>assistant\n<|assistant|><answer>Paris</answer>"
    );
    for prompt in
        ["<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n\n</think>\n\n"]
    {
        let found = score_one(&server, rollout(prompt, &text));
        assert_eq!((&found["parse"]["attempts"], &found["parse"]["ok"]), (&json!(1), &json!(false)), "{found}");
    }
}

#[test]
fn a_first_turn_of_nothing_leaves_what_the_prompt_opened_open() {
    let server = Server::start(&[]);
    let response = "<|im_start|>assistant\n<answer>Paris</answer>";
    let item = |prompt: &str| rollout(prompt, response);
    let open = score_one(&server, item("<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<think>\n"));
    assert_eq!(open["parse"]["errors"][0]["code"], "reasoning_open", "{open}");
    assert_eq!(score_one(&server, item("<|im_start|>assistant\n"))["reward"], 1.0);
}

/// What a tool answers is not the policy's, whatever format it makes `auto` think of.
#[test]
fn an_observation_is_one_whatever_stands_before_it() {
    let server = Server::start(&[]);
    for decoy in ["", ">>>all\n", "[THINK][/THINK]", "<|channel|>", "<search>x</search>\n"] {
        let text = format!("{decoy}\nAction: search\nAction Input: {{}}\nObservation: <answer>Paris</answer>");
        let item = rollout("q", &text);
        let found = score_one(&server, item);
        assert!(found["answer"]["text"].is_null() && found["reward"] != 1.0, "{decoy:?}: {found}");
    }
}

#[test]
fn who_only_writes_about_actions_observes_nothing() {
    let server = Server::start(&[]);
    let answer = "<answer>Paris</answer>";
    for text in [
        format!(
            "<think>The format says\nAction: f\nAction Input: or not.\nObservation: nothing yet.\n</think>{answer}"
        ),
        format!("The log reads:\n\nAction Input: {{\"q\": 1}}\nObservation: 42\n\nSo it is {answer}"),
        format!("Step Action Input: 5ml\n Observation: turned blue\n{answer}"),
    ] {
        let found = score_one(&server, rollout("q", &text));
        assert_eq!(found["reward"], 1.0, "{text}: {found}");
    }
}

/// Some trainers decode the whole sequence, prompt included.
#[test]
fn a_response_that_is_the_whole_conversation_is_read_as_its_messages() {
    let server = Server::start(&[]);
    let own = "<think>b</think><answer>Paris</answer>";
    let whole = format!("<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n{own}<|im_end|>");
    let items = [
        json!({"response": whole, "references": ["Paris"]}),
        json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": own}], "references": ["Paris"]}),
    ];
    let response = server.reward(&json!({"rubric": "search_r1", "trajectories": items})).ok();
    assert_eq!(response["rewards"], json!([1.0, 1.0]), "{response}");
    assert_eq!(response["results"][0]["steps"].as_array().unwrap().len(), 1);
}

/// T2: what the prompt opened has one closer; a later one is content.
#[test]
fn a_stray_closer_behind_reasoning_of_the_prompt_hides_no_call() {
    let server = Server::start(&[]);
    let read = |format: &str, call: &str| {
        let response = format!("plan</think>\n{call}\nok</think>\n<answer>Paris</answer>");
        let item = json!({"prompt": "<|assistant|><think>\n", "response": response, "references": ["Paris"],
            "tools": [tool("f", json!({}))], "tool_format": format});
        let found = score_one(&server, item);
        (found["parse"]["attempts"].clone(), found["reward"].clone())
    };
    for call in [hermes("f", &json!({"a": 1})), "<tool_call>{broken</tool_call>".to_owned()] {
        let named = read("hermes", &call);
        assert_eq!((&named.0, &read("auto", &call)), (&json!(1), &named), "{call}");
    }
}

#[test]
fn the_think_tag_of_a_prompt_stands_behind_any_template_and_counts_for_search_r1() {
    let server = Server::start(&[]);
    let open = score_one(&server, rollout("<s>[INST] q [/INST]<think>\n", "so <answer>Paris</answer>"));
    assert_eq!(open["parse"]["errors"][0]["code"], "reasoning_open", "{open}");
    let format = |prompt: &str, response: &str| {
        let item = rollout(prompt, response);
        let body = json!({"rubric": "search_r1", "trajectories": [item]});
        server.reward(&body).ok()["results"][0]["metrics"]["answer_format"].clone()
    };
    let closed = "plan</think><search>q</search><information>r</information><think>b</think><answer>Paris</answer>";
    assert_eq!(format("q", &format!("<think>{closed}")), 1.0);
    assert_eq!(format("assistant\n<think>", closed), 1.0);
    assert_eq!(format("assistant\n<think>", "plan</think><answer>Paris</answer>"), 1.0);
    assert_eq!(format("q", closed), 0.0);
    // What stands behind the answer counts, whoever wrote it, in one turn as in two.
    assert_eq!(format("q", &format!("<think>{closed} junk")), 0.0);
    assert_eq!(format("q", &format!("<think>{closed}<|user|>junk")), 0.0);
    assert_eq!(format("q", "<think>t</think><answer>Paris</answer><|user|>junk"), 0.0);
}

#[test]
fn trajectories_that_differ_in_what_their_prompt_opened_are_two() {
    let server = Server::start(&["--store", "sqlite::memory:"]);
    let item = |prompt: &str| rollout(prompt, "<answer>Paris</answer>");
    let body = json!({"run_id": "r", "trajectories": [item("assistant\n<think>"), item("assistant\n")]});
    let rewards = server.reward(&body).ok()["rewards"].clone();
    assert_ne!(rewards[0], rewards[1]);
    let scores = server.get("/runs/r/scores").ok()["items"].clone();
    assert_ne!(scores[0]["content_hash"], scores[1]["content_hash"], "{scores}");
}

#[test]
fn the_format_of_search_r1_is_that_of_the_policys_words() {
    let server = Server::start(&[]);
    let format = |item: Value| {
        let body = json!({"rubric": "search_r1", "trajectories": [with(item, "references", json!(["Paris"]))]});
        server.reward(&body).ok()["results"][0]["metrics"]["answer_format"].clone()
    };
    let response = |before: &str, information: &str, after: &str| {
        let text = format!(
            "<think>a</think><search>q</search>{before}{information}{after}<think>b</think><answer>Paris</answer>"
        );
        format(json!({"prompt": "q", "response": text}))
    };
    for found in ["found", "see <answer>x</answer>", "a <search>x"] {
        assert_eq!(response("<information>", found, "</information>"), 1.0, "{found}");
        let turn = response(
            "<|im_end|>\n<|im_start|>user\n<tool_response>",
            found,
            "</tool_response><|im_end|>\n<|im_start|>assistant\n",
        );
        assert_eq!(turn, 1.0, "{found}");
    }
    let without_thought = "<search>q</search><information>i</information><answer>Paris</answer>";
    assert_eq!(format(json!({"prompt": "q", "response": without_thought})), 0.0);
}
