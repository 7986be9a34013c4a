//! What trainers read beside the reward: order, places, shares of a turn, and what an answer says of itself.

use serde_json::{Value, json};

use super::contents::{Content, contents, server, templated_prompt};
use crate::common::Server;

#[test]
fn reward_model_servers_answer_in_the_order_of_their_texts() {
    let server = server(&[]);
    let whole = |answer: &str| format!("{}<answer>{answer}</answer>", templated_prompt());
    let body = json!({"model": "rm", "input": [whole("Paris"), whole("Lyon")]}).to_string();
    let answer = server.post("/classify?rubric=binary_em", &body).ok();
    let class =
        |index: usize, reward: f64| json!({"index": index, "label": "LABEL_0", "probs": [reward], "num_classes": 1});
    assert_eq!((&answer["model"], &answer["data"]), (&json!("rm"), &json!([class(0, 1.0), class(1, 0.0)])));
    let answer = server.post("/v1/embeddings?rubric=binary_em", &body).ok();
    let embedding = |index: usize, reward: f64| json!({"object": "embedding", "index": index, "embedding": [reward]});
    assert_eq!((&answer["model"], &answer["data"]), (&json!("rm"), &json!([embedding(0, 1.0), embedding(1, 0.0)])));
}

#[test]
fn eval_protocol_hears_what_each_message_of_the_assistant_earned() {
    let server = server(&[]);
    let call = |content: &Content| content.calls().into_iter().find(|call| call.dialect == "eval-protocol").unwrap();
    let answer = server.post("/eval-protocol/reward", &call(&contents()[0]).body).ok();
    let steps = answer["step_outputs"].as_array().unwrap();
    // System, user, call, result, answer.
    assert_eq!(steps.iter().map(|step| step["step_index"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 4]);
    let sum: f64 = steps.iter().map(|step| step["base_reward"].as_f64().unwrap()).sum();
    assert!((sum - answer["score"].as_f64().unwrap()).abs() < 1e-9, "{answer}");
    assert!(steps.iter().all(|step| step["terminated"] == false && step["metrics"] == json!({})), "{answer}");
    for content in contents() {
        let answer = server.post("/eval-protocol/reward", &call(&content).body).ok();
        let native = server.reward(&content.native()).ok()["results"][0].clone();
        let stage = format!("stage={}", native["stage_reached"].as_str().unwrap());
        assert_eq!(answer["reason"], native["reason"].as_str().unwrap_or(&stage), "{}", content.name);
    }
}

#[test]
fn an_episode_of_openenv_begins_with_nothing_and_ends_with_its_only_step() {
    let server = Server::start(&[]);
    let seen = |reward: Value, done: bool| json!({"observation": {"messages": []}, "reward": reward, "done": done});
    assert_eq!(server.post("/reset", "{}").ok(), seen(Value::Null, false));
    let said = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "<answer>Paris</answer>"}]);
    let step = |truth: Value| {
        server.post("/step?rubric=binary_em", &json!({"action": {"messages": said, "ground_truth": truth}})).ok()
    };
    assert_eq!((step(json!("Paris")), step(json!("Lyon"))), (seen(json!(1.0), true), seen(json!(0.0), true)));
    assert_eq!(step(Value::Null), seen(Value::Null, true), "there is nothing to compare with");
}

#[test]
fn pipeline_rl_may_ask_for_answers_and_for_null() {
    let server = Server::start(&[]);
    let verify = |query: &str, generation: Value| {
        let context = json!({"category": "qa", "is_relevance": false, "function": [], "ground_truth": ["Paris"]});
        let body =
            json!({"generation": generation, "tool_calls": null, "model_name": "model", "reward_context": context});
        server.post(&format!("/verify_answer?rubric=binary_em{query}"), &body).ok()
    };
    let right = json!("<answer>Paris</answer>");
    assert_eq!(verify("", right), json!({"answer_status": "correct", "partial_score": 1.0}));
    assert_eq!(verify("", json!("<answer>Lyon</answer>")), json!({"answer_status": "wrong", "partial_score": 0.0}));
    assert_eq!(verify("", json!("Hm.")), json!({"answer_status": "no_answer", "partial_score": 0.0}));
    assert_eq!(verify("", json!(7)), json!({"answer_status": "unparsable", "partial_score": 0.0}));
    let null = json!({"answer_status": "unparsable", "partial_score": null});
    assert_eq!(verify("&on_invalid=null", json!(7)), null);
}
