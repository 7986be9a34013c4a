//! What a trajectory may look like, and which of it is scored.

use serde_json::{Value, json};

use super::contract::{score, score_one};
use crate::common::{Server, answering, hermes, saying, stable, tool, with};

pub(super) fn conversation(messages: Value) -> Value {
    json!({"messages": messages, "references": ["Paris"]})
}

fn assistant(message: Value) -> Value {
    with(message, "role", json!("assistant"))
}

#[test]
fn only_messages_are_required() {
    let server = Server::start(&[]);
    let bare = json!({"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "No tag."}]});
    let result = score_one(&server, bare);
    assert_eq!(result["valid"], true, "{result}");
    assert!(result["id"].is_null() && result["group"].is_null());
}

#[test]
fn null_stands_for_absent_in_every_optional_field() {
    let server = Server::start(&[]);
    let mut trajectory = answering("Paris");
    for field in [
        "id",
        "group",
        "tools",
        "tool_format",
        "truncated",
        "response_tokens",
        "metadata",
        "prompt",
        "response",
        "reference_calls",
    ] {
        trajectory[field] = Value::Null;
    }
    for (first, second) in [("references", "ground_truth"), ("golds", "references"), ("ground_truth", "golds")] {
        let mut item = json!({"messages": trajectory["messages"], first: ["Paris"], second: null});
        assert_eq!(score_one(&server, item.clone())["reward"], 1.0, "a second name that is null takes nothing away");
        item["\u{69}d\n"] = Value::Null;
        assert_eq!(score_one(&server, item)["reward"], 1.0, "nor where an item is read the other way");
    }
    let mut request = json!({"trajectories": [trajectory]});
    for field in ["rubric", "run_id", "step", "curriculum", "deadline_ms", "on_invalid", "tools"] {
        request[field] = Value::Null;
    }
    assert_eq!(score(&server, &request)["rewards"], json!([1.0]));
}

#[test]
fn text_parts_are_scored_and_other_parts_are_kept_out() {
    let server = Server::start(&[]);
    let parts = json!([
        {"type": "text", "text": "<ans"}, {"type": "image_url", "image_url": {"url": "data:,<answer>Lyon</answer>"}},
        {"type": "text", "text": "wer>Paris</answer>"},
    ]);
    let result = score_one(&server, conversation(json!([assistant(json!({"content": parts}))])));
    assert_eq!(result["answer"], json!({"text": "Paris", "message": 0}));
    let user_parts = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, assistant(json!({"content": "<answer>Paris</answer>"}))]);
    assert_eq!(score_one(&server, conversation(user_parts))["reward"], 1.0);
}

#[test]
fn null_and_absent_content_are_empty_text() {
    let server = Server::start(&[]);
    for message in [json!({"content": null}), json!({}), json!({"content": ""}), json!({"content": []})] {
        let result = score_one(&server, conversation(json!([{"role": "user", "content": "?"}, assistant(message)])));
        assert_eq!(result["valid"], true, "{result}");
        assert!(result["answer"]["text"].is_null());
    }
}

#[test]
fn native_calls_take_arguments_as_a_string_or_an_object() {
    let server = Server::start(&[]);
    let tools = json!([tool("search", json!({"type": "object", "required": ["query"]}))]);
    for arguments in [json!("{\"query\": \"a\"}"), json!({"query": "a"})] {
        let call = json!({"id": "c1", "type": "function", "function": {"name": "search", "arguments": arguments}});
        let turns = json!([assistant(json!({"content": null, "tool_calls": [call]})), {"role": "tool", "content": "b", "tool_call_id": "c1"},
                           assistant(json!({"content": "<answer>Paris</answer>"}))]);
        let result = score_one(&server, with(conversation(turns), "tools", tools.clone()));
        assert_eq!(result["reward"], 1.0, "{result}");
        assert_eq!(result["tool_calls"][0]["arguments"], json!({"query": "a"}));
        assert_eq!(result["parse"]["format"], "openai");
    }
    let broken = json!({"function": {"name": "search", "arguments": "{\"query\": "}});
    let result =
        score_one(&server, with(conversation(json!([assistant(json!({"tool_calls": [broken]}))])), "tools", tools));
    assert_eq!(result["tool_calls"][0]["parsed"], false);
}

#[test]
fn reasoning_content_is_never_an_answer_and_never_searched_for_calls() {
    let server = Server::start(&[]);
    let thoughts = format!("<answer>Paris</answer>{}", hermes("search", &json!({})));
    for content in [json!("No idea."), Value::Null] {
        let result = score_one(
            &server,
            conversation(json!([assistant(json!({"content": content, "reasoning_content": thoughts}))])),
        );
        assert!(result["answer"]["text"].is_null(), "{result}");
        assert_eq!(result["tool_calls"], json!([]));
    }
    let right = assistant(json!({"content": "<answer>Paris</answer>", "reasoning_content": "<answer>Lyon</answer>"}));
    assert_eq!(score_one(&server, conversation(json!([right])))["reward"], 1.0);
}

#[test]
fn reasoning_in_the_text_is_no_answer_either() {
    let server = Server::start(&[]);
    let result = score_one(&server, saying("<think><answer>Paris</answer></think>Hm."));
    assert!(result["answer"]["text"].is_null());
}

#[test]
fn tool_results_user_and_system_turns_are_never_scored() {
    let server = Server::start(&[]);
    let foreign = "<answer>Paris</answer><tool_call>{broken</tool_call><think>";
    for role in ["system", "user", "tool", "developer"] {
        let turns = json!([{"role": role, "content": foreign}, assistant(json!({"content": "I do not know."})), {"role": role, "content": foreign}]);
        let result = score_one(&server, conversation(turns));
        assert!(result["answer"]["text"].is_null(), "{role}");
        assert_eq!(result["parse"]["ok"], true, "{role}");
        assert_eq!(result["tool_calls"], json!([]), "{role}");
    }
    let tools = json!([tool("search", json!({"type": "object"}))]);
    let after = |tool_result: &str| {
        with(
            conversation(
                json!([assistant(json!({"content": hermes("search", &json!({}))})), {"role": "tool", "content": tool_result},
                                 assistant(json!({"content": "<answer>Paris</answer>"}))]),
            ),
            "tools",
            tools.clone(),
        )
    };
    assert_eq!(stable(&score_one(&server, after("Paris"))), stable(&score_one(&server, after(foreign))));
}

#[test]
fn open_reasoning_is_open_with_native_calls_and_without() {
    let server = Server::start(&[]);
    let calls = json!([{"function": {"name": "f", "arguments": "{}"}}]);
    for (format, calls) in [("openai", json!([])), ("openai", calls.clone()), ("auto", calls)] {
        let turn = assistant(json!({"content": "<think>open", "tool_calls": calls}));
        let result = score_one(&server, with(conversation(json!([turn])), "tool_format", json!(format)));
        assert_eq!(result["parse"]["errors"][0]["code"], "reasoning_open", "{format} {result}");
        assert_eq!(result["parse"]["ok"], false);
    }
    let turn = assistant(
        json!({"content": "<think><answer>Lyon</answer></think><answer>Paris</answer>", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}),
    );
    let result = score_one(&server, conversation(json!([turn])));
    assert_eq!((&result["parse"]["ok"], &result["answer"]["text"]), (&json!(true), &json!("Paris")));
}

#[test]
fn tools_of_a_trajectory_win_over_those_of_the_request() {
    let server = Server::start(&[]);
    let strict = tool("search", json!({"type": "object", "required": ["query"]}));
    let lax = tool("search", json!({"type": "object"}));
    let call = saying(&hermes("search", &json!({})));
    let own = |tools: Value| with(call.clone(), "tools", tools);
    let request =
        json!({"tools": [strict], "trajectories": [call, own(json!([lax])), own(json!([])), own(Value::Null)]});
    let response = score(&server, &request);
    let first = |index: usize| response["results"][index]["tool_calls"][0].clone();
    assert_eq!(first(0)["errors"][0]["code"], "schema_violation", "the request's tools where there are no others");
    assert_eq!(first(1)["schema_valid"], true, "its own");
    assert_eq!(first(2)["errors"][0]["code"], "unknown_tool", "an empty list offers nothing");
    assert_eq!(first(3)["errors"][0]["code"], "schema_violation", "null is no list");
}

#[test]
fn any_of_the_references_is_acceptable() {
    let server = Server::start(&[]);
    let item = |answer: &str| with(answering(answer), "references", json!(["Lutetia", "Paris", "Ville de Paris"]));
    let request = json!({"trajectories": [item("Paris"), item("Lutetia"), item("ville de paris."), item("Rome")]});
    let response = score(&server, &request);
    assert_eq!(response["rewards"][0], 1.0);
    assert_eq!(response["rewards"][1], 1.0);
    assert_eq!(response["rewards"][2], 1.0, "the best reference after SQuAD's normalisation");
    assert!(response["rewards"][3].as_f64().unwrap() < 0.5);
}

#[test]
fn ids_groups_and_references_may_be_numbers() {
    let server = Server::start(&[]);
    let item = with(with(with(answering("42"), "id", json!(7)), "group", json!(12)), "references", json!([42]));
    let response = score(&server, &json!({"trajectories": [item]}));
    assert_eq!(response["results"][0]["id"], "7");
    assert_eq!(response["results"][0]["group"], "12");
    assert_eq!(response["groups"][0]["group"], "12");
    assert_eq!(response["rewards"], json!([1.0]));
}

/// A column of whole numbers of which one is missing comes as floats.
#[test]
fn a_reference_that_is_a_whole_number_has_no_fraction() {
    let server = Server::start(&[]);
    for (references, answer, is_right) in [
        (json!([42.0]), "42", true),
        (json!(42.0), "42", true),
        (json!(-7.00), "-7", true),
        (json!([42.0]), "420", false),
        (json!([42.5]), "42.5", true),
        (json!(["42.0"]), "42", false),
    ] {
        let item = with(answering(answer), "references", references.clone());
        let response = score(&server, &json!({"trajectories": [item]}));
        assert_eq!(response["rewards"][0] == 1.0, is_right, "{references} {answer}");
    }
}

#[test]
fn calls_in_the_field_of_another_api_are_warned_about() {
    let server = Server::start(&[]);
    let call = json!({"name": "f", "arguments": "{}"});
    for (message, field) in [
        (json!({"role": "assistant", "content": null, "function_call": call}), Some("`function_call`")),
        (json!({"function_call": call, "content": "A", "role": "assistant"}), Some("`function_call`")),
        (json!({"role": "assistant", "content": "", "toolCalls": [call]}), Some("`toolCalls`")),
        (
            json!({"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": {}}]}),
            Some("`content`, in parts of type `tool_use`,"),
        ),
        (
            json!({"content": [{"type": "tool_use", "name": "f", "input": {}}], "role": "assistant"}),
            Some("`content`, in parts of type `tool_use`,"),
        ),
        (json!({"role": "assistant", "content": "", "function_call": null}), None),
        (json!({"role": "user", "content": "", "function_call": call}), None),
    ] {
        let item = json!({"messages": [message, {"role": "assistant", "content": "<answer>Paris</answer>"}], "references": ["Paris"]});
        let warnings = score(&server, &json!({"trajectories": [item]}))["warnings"].clone();
        let said = field.map(|field| {
            json!([format!("/trajectories/0: calls in a message's {field} are not read; put them in `tool_calls`")])
        });
        assert_eq!(warnings, said.unwrap_or_default(), "{message}");
    }
}

#[test]
fn results_keep_the_order_of_the_request() {
    let server = Server::start(&[]);
    let ids: Vec<String> = (0..257).map(|i| format!("t{}", (i * 101) % 257)).collect();
    let item = |id: &String| with(answering(if id.ends_with('3') { "Paris" } else { "Lyon" }), "id", json!(id));
    let response = score(&server, &json!({"trajectories": ids.iter().map(item).collect::<Vec<_>>()}));
    for (id, result) in ids.iter().zip(response["results"].as_array().unwrap()) {
        assert_eq!(result["id"], **id);
        assert_eq!(result["reward"] == 1.0, id.ends_with('3'));
    }
}

/// Only what a dialect has prepared can be refused so.
#[test]
fn a_client_cannot_refuse_an_item_in_words_of_its_own() {
    let server = Server::start(&[]);
    let mut item = json!({"$refused": "because"});
    item.as_object_mut().unwrap().extend(answering("Paris").as_object().unwrap().clone());
    let response = server.reward(&json!({"trajectories": [item]})).ok();
    assert_eq!(response["rewards"], json!([1.0]));
    assert!(response["warnings"].to_string().contains("$refused"), "{response}");
}

#[test]
fn an_unknown_field_of_an_item_is_ignored_and_warned_about() {
    let server = Server::start(&[]);
    let response = score(&server, &json!({"trajectories": [with(answering("Paris"), "refrences", json!(["Lyon"]))]}));
    assert_eq!(response["rewards"], json!([1.0]));
    let warning = "/trajectories/0: the field \"refrences\" is not known and was ignored; put columns of your own under `metadata`";
    assert_eq!(response["warnings"], json!([warning]));
    let twice = r#"{"trajectories":[{"messages":[{"role":"assistant","content":"x"}],"refrences":1,"refrences":2,"references":["x"]}]}"#;
    assert_eq!(server.post("/reward", twice).ok()["warnings"], json!([warning]), "items are counted, not fields");
}

#[test]
fn missing_references_are_told_before_a_stage_needs_them() {
    let server = Server::start(&[]);
    let broken = || json!({"messages": [{"role": "assistant", "content": "<tool_call>{</tool_call>"}]});
    let unread = || json!({"messages": [], "references": 1});
    let warnings = |rubric: Value, items: Value| {
        score(&server, &json!({"rubric": rubric, "trajectories": items}))["warnings"].clone()
    };
    let items = json!([answering("Paris"), broken(), unread(), broken()]);
    let text = "/trajectories/1: there are no `references`, with which la_bleu compares: a trajectory that gets that far \
                cannot be scored (and 1 more)";
    assert_eq!(warnings(json!("short_form_qa"), items), json!([text]));
    // What could not be scored for the lack of them says so itself.
    let open = json!({"messages": [{"role": "assistant", "content": "<answer>Paris</answer>"}]});
    assert!(warnings(json!("short_form_qa"), json!([open])).is_null());
    for (rubric, words) in [
        (
            json!({"name": "calls", "stages": [
                {"kind": "tool_parse", "threshold": 1, "weight": 1},
                {"kind": "tool_match", "weight": 1},
            ]}),
            "there are no `reference_calls`, with which tool_match compares",
        ),
        (json!("binary_em"), ""),
        (json!("long_form_qa"), ""),
        (
            json!({"name": "mine", "stages": [
                {"kind": "tool_parse", "threshold": 1, "weight": 1},
                {"kind": "expr", "name": "both", "expr": "1 - min(f1, -tool_match)", "weight": 1},
            ]}),
            "there are no `references`, with which both compares",
        ),
    ] {
        let warnings = warnings(rubric.clone(), json!([broken()]));
        let said = warnings[0].as_str().unwrap_or_default();
        assert!(said.contains(words) && warnings.is_null() == words.is_empty(), "{rubric}: {warnings}");
    }
}

#[test]
fn calls_without_tools_are_told_where_a_stage_asks_for_them() {
    let server = Server::start(&[]);
    let call = || with(saying(&hermes("search", &json!({}))), "references", json!(["Paris"]));
    let none = || with(call(), "tools", json!([]));
    let given = || with(call(), "tools", json!([tool("search", json!({}))]));
    let warnings = |request: Value| score(&server, &request)["warnings"].clone();
    let text = "/trajectories/1: there are calls and no `tools`: to tool_schema all are calls of unknown tools; send the tools \
                that the policy was offered, `[]` where it was offered none (and 1 more)";
    let mixed = || json!([given(), call(), none(), answering("Paris"), call()]);
    assert_eq!(warnings(json!({"rubric": "short_form_qa", "trajectories": mixed()})), json!([text]));
    assert!(warnings(json!({"rubric": "binary_em", "trajectories": mixed()})).is_null(), "nobody asks");
    let all = json!({"rubric": "short_form_qa", "tools": [tool("search", json!({}))], "trajectories": mixed()});
    assert!(warnings(all).is_null(), "the request has them");
}

#[test]
fn a_whole_number_may_be_written_as_a_float() {
    let server = Server::start(&[]);
    let item = with(answering("Paris"), "response_tokens", json!(12.0));
    let request = json!({"step": 120.0, "deadline_ms": 6e4, "trajectories": [item]});
    let response = score(&server, &request);
    assert_eq!((&response["curriculum"]["step"], &response["rewards"]), (&json!(120), &json!([1.0])));
    let replaced = with(with(request, "step", json!(null)), "curriculum", json!({"step": 7.0}));
    assert_eq!(score(&server, &replaced)["curriculum"]["step"], 7);
    for wrong in [json!(1.5), json!(-1), json!(-1.0), json!(1e300), json!("1"), json!(true)] {
        let problem = server.reward(&json!({"step": wrong, "trajectories": []})).refused(422, "a whole number from 0");
        assert_eq!(problem["pointer"], "/step", "{problem}");
    }
}

#[test]
fn metadata_is_the_clients_own() {
    let server = Server::start(&[]);
    let plain = score_one(&server, answering("Paris"));
    let item = with(answering("Paris"), "metadata", json!({"reward": 0, "references": ["Lyon"], "deep": [[[[1]]]]}));
    assert_eq!(stable(&score_one(&server, item)), stable(&plain));
}

#[test]
fn a_truncated_rollout_is_scored() {
    let server = Server::start(&[]);
    let result = score_one(&server, with(saying("<think>and then"), "truncated", json!(true)));
    assert_eq!(result["valid"], true);
    assert_eq!(result["parse"]["ok"], false);
}

#[test]
fn a_bad_field_is_named_and_no_place_that_its_sender_cannot_see() {
    let server = Server::start(&[]);
    let error = |message: Value| {
        let result = score_one(&server, conversation(json!([assistant(message)])));
        assert_eq!((&result["valid"], &result["errors"][0]["code"]), (&json!(false), &json!("item_malformed")));
        let [pointer, said] = ["pointer", "message"].map(|key| result["errors"][0][key].as_str().unwrap().to_owned());
        assert!(!said.contains("column"), "{said}");
        (pointer.strip_prefix("/trajectories/0").unwrap().to_owned(), said)
    };
    for field in ["content", "reasoning_content", "reasoning"] {
        let (pointer, said) = error(with(json!({"content": "x"}), field, json!(5)));
        assert_eq!(pointer, format!("/messages/0/{field}"), "{said}");
    }
    let broken = r#"{"trajectories":[{"messages":[{"role":"assistant","content":"\ud83d"}]}]}"#;
    let said = server.post("/reward", broken).ok()["results"][0]["errors"][0]["message"].to_string();
    assert!(said.contains("surrogate pair") && !said.contains("column"), "{said}");
}

/// A server may have taken the calls out of the text, or left them in and copied those that it understood.
#[test]
fn native_calls_are_read_where_a_format_is_named_and_the_text_has_none() {
    let server = Server::start(&[]);
    let native = |arguments: &str| json!([{"type": "function", "function": {"name": "f", "arguments": arguments}}]);
    let parse = |content: Value, calls: Value| {
        let turn = assistant(json!({"content": content, "tool_calls": calls}));
        let answer = assistant(json!({"content": "<answer>Paris</answer>"}));
        let item =
            with(conversation(json!([turn, {"role": "tool", "content": "r"}, answer])), "tool_format", json!("hermes"));
        let parse = score_one(&server, item)["parse"].clone();
        (
            parse["format"].as_str().unwrap_or_default().to_owned(),
            parse["attempts"].as_u64().unwrap(),
            parse["ok"] == true,
        )
    };
    assert_eq!(parse(Value::Null, native("{bad")), ("openai".to_owned(), 1, false));
    assert_eq!(parse(json!("looking"), native("{}")), ("openai".to_owned(), 1, true));
    assert_eq!(
        parse(json!("<think>looking"), native("{}")),
        ("openai".to_owned(), 1, false),
        "as with no format named"
    );
    let two = hermes("f", &json!({})) + "<tool_call>{bad</tool_call>";
    assert_eq!(parse(json!(two), native("{}")), ("hermes".to_owned(), 2, false), "the text shows what the copy lost");
}

#[test]
fn markers_in_the_arguments_of_a_call_are_no_answer() {
    let server = Server::start(&[]);
    let answer = |text: &str| score_one(&server, saying(text))["answer"]["text"].clone();
    let call = hermes("f", &json!({"a": "<answer>Rome</answer>"}));
    assert_eq!(answer(&format!("<answer>Paris</answer>{call}")), "Paris");
    assert_eq!(answer(&call), Value::Null);
    // A call that cannot be read may have swallowed the answer.
    assert_eq!(answer("<tool_call>{\"name\": <answer>Paris</answer>"), "Paris");
}

#[test]
fn reasoning_in_a_field_of_its_own_counts_for_search_r1() {
    let server = Server::start(&[]);
    let reward = |field: &str, thought: &str, before: &str| {
        let said = |text: &str| assistant(json!({"content": format!("{before}{text}"), field: thought}));
        let turns =
            [said("<search>q</search>"), json!({"role": "tool", "content": "i"}), said("<answer>Paris</answer>")];
        let body = json!({"rubric": "search_r1", "trajectories": [conversation(json!(turns))]});
        score(&server, &body)["results"][0]["metrics"]["answer_format"].clone()
    };
    assert_eq!(reward("reasoning_content", "t", ""), 1.0);
    assert_eq!(reward("reasoning", "t", ""), 1.0);
    assert_eq!(reward("reasoning_content", "t", "<think>t</think>"), 1.0, "a copy is no second thought");
    assert_eq!(reward("reasoning_content", " ", ""), 0.0);
    let one = assistant(json!({"content": "<answer>Paris</answer>", "reasoning_content": "t"}));
    let body = json!({"rubric": "search_r1", "trajectories": [conversation(json!([one]))]});
    assert_eq!(score(&server, &body)["results"][0]["metrics"]["answer_format"], 1.0);
}

/// A trainer that moves one of them only would be scored at the other one.
#[test]
fn two_steps_must_be_one() {
    let server = Server::start(&[]);
    let request = |step: Value, curriculum: Value| json!({"step": step, "curriculum": curriculum, "trajectories": []});
    let problem = server.reward(&request(json!(5), json!({"step": 7}))).problem(422);
    let detail = problem["detail"].as_str().unwrap();
    assert_eq!(problem["pointer"], "/curriculum/step", "{problem}");
    assert!(detail.contains("the step is 7 here and 5 in `step`"), "{problem}");
    for (step, curriculum) in [(json!(7), json!({"step": 7})), (json!(7), json!({})), (json!(null), json!({"step": 7}))]
    {
        assert_eq!(server.reward(&request(step, curriculum)).ok()["curriculum"]["step"], 7);
    }
}
