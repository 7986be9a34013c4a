//! What is asked, and how answers are read; `labels` has those that are probabilities.

use serde_json::json;

use super::*;
use crate::judge::inquiry::{BackendAnswer, Form, Usage};
use crate::judge::remote::Logprobs;
use crate::judge::remote::config::Conversation;

#[tokio::test]
async fn vllm_is_asked_for_the_labels_tokens_where_all_are_known() {
    let reply = tokens(&[("Yes", ln(0.6)), ("No", -9999.0)]);
    let ids = [("Yes", 9693), ("No", 2822)].map(|(label, id)| (label.to_owned(), id));
    let known = |url: &str| Config { label_token_ids: ids.clone().into(), ..config(&[url]) };
    let (found, sent) = ask(known, labels(), &reply).await;
    assert_labels(found, [0.6, 0.0]);
    assert_eq!(sent["logprob_token_ids"], json!([9693, 2822]));

    let partly = |url: &str| Config { label_token_ids: ids[..1].iter().cloned().collect(), ..config(&[url]) };
    assert!(ask(partly, labels(), &reply).await.1.get("logprob_token_ids").is_none());
    let elsewhere = |url: &str| Config { flavor: Flavor::Sglang, ..known(url) };
    assert!(ask(elsewhere, labels(), &reply).await.1.get("logprob_token_ids").is_none());
}

#[tokio::test]
async fn openai_gets_no_fields_that_it_does_not_know() {
    let reply = tokens(&[("Yes", ln(0.6))]);
    let (_, sent) = ask(|url| Config { flavor: Flavor::Openai, ..config(&[url]) }, labels(), &reply).await;
    let mut fields: Vec<&String> = sent.as_object().expect("an object").keys().collect();
    fields.sort_unstable();
    assert_eq!(fields, ["logprobs", "max_completion_tokens", "messages", "model", "temperature", "top_logprobs"]);
}

#[tokio::test]
async fn words_put_into_the_judges_mouth_are_continued() {
    let server = server(vec![ok(&tokens(&[("Yes", ln(0.6)), ("No", ln(0.3))]))]).await;
    let judge = remote(config(&[&root(&server)]));
    let prefilled = inquiry_of(labels(), &[(ChatRole::User, "Is it so?"), (ChatRole::Assistant, "Verdict:")]);
    judge.answer(&prefilled, &in_a_minute()).await.expect("a finding");
    let sent = sent(&server).await.remove(0);
    assert_eq!((&sent["continue_final_message"], &sent["add_generation_prompt"]), (&json!(true), &json!(false)));
}

#[tokio::test]
async fn untrusted_text_speaks_no_special_token() {
    let text = "Rules: <|x|>\nAnswer: <|im_end|> <b> </s><<|a [INST] <own>\u{e9}<";
    let untrusted = text.find("<|im_end").expect("it is there")..text.len();
    let message = PromptMessage { role: ChatRole::User, text: text.to_owned(), untrusted: vec![untrusted] };
    let server = server(vec![ok(&tokens(&[("Yes", ln(0.6)), ("No", ln(0.3))]))]).await;
    let judge = remote(Config { special_tokens: vec!["<own>".to_owned()], ..config(&[&root(&server)]) });
    judge
        .answer(&Inquiry { messages: vec![message], want: labels(), fewer: [].into() }, &in_a_minute())
        .await
        .expect("a finding");
    assert_eq!(
        sent(&server).await[0]["messages"][0]["content"],
        "Rules: <|x|>\nAnswer: < |im_end|> <b> < /s><< |a [ INST] < own>\u{e9}<"
    );
}

#[tokio::test]
async fn an_endpoint_without_logprobs_is_asked_for_json_and_not_for_logprobs_again() {
    let refused = ResponseTemplate::new(400)
        .set_body_json(json!({ "error": { "message": "This model does not support logprobs", "code": 400 } }));
    let without = chat(&json!({ "message": { "content": "Yes" }, "logprobs": null }));
    for first in [refused, ok(&without)] {
        let server = server(vec![first, ok(&content(r#"{"verdict":"No"}"#))]).await;
        let judge = remote(config(&[&root(&server)]));
        assert_eq!((judge.form(&labels()), judge.form(&reasoned())), (None, Some(Form::AsWanted)));
        assert_eq!(chosen(answer(&judge, labels()).await), (1, String::new()));
        assert_eq!(judge.form(&labels()), Some(Form::LabelAlone));
        assert_eq!(chosen(answer(&judge, labels()).await), (1, String::new()));
        let sent = sent(&server).await;
        assert_eq!(sent.len(), 3, "one request found it out");
        assert_eq!(
            sent[2]["response_format"]["json_schema"]["schema"]["properties"]["verdict"]["enum"],
            json!(["Yes", "No"])
        );
    }
}

#[tokio::test]
async fn asking_for_too_many_logprobs_is_an_error_and_no_reason_for_json() {
    let message = "Requested sample logprobs of 50, which is greater than max allowed: 20";
    let server =
        server(vec![ResponseTemplate::new(400).set_body_json(json!({ "error": { "message": message } }))]).await;
    let judge = remote(Config { top_logprobs: 50, ..config(&[&root(&server)]) });
    assert_unavailable(answer(&judge, labels()).await, UnavailableCode::NoVerdict, message);
    assert_eq!(sent(&server).await.len(), 1);
}

#[tokio::test]
async fn a_prompt_that_is_too_long_for_the_model_is_cut_where_the_trajectory_speaks() {
    let refused = |message: &str| ResponseTemplate::new(400).set_body_json(json!({ "error": { "message": message } }));
    let vllm = "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens";
    let sglang = "The input (9000 tokens) is longer than the model's context length (4096 tokens).";
    let verdict = ok(&tokens(&[("Yes", ln(0.6)), ("No", ln(0.3))]));
    let server = server(vec![refused(vllm), refused(sglang), verdict]).await;
    let judge = remote(config(&[&root(&server)]));
    let text = format!("Is this right? {}", "word ".repeat(2000));
    let untrusted = std::iter::once(15..text.len()).collect();
    let messages = vec![PromptMessage { role: ChatRole::User, text, untrusted }];
    let deadline = within(Duration::from_secs(20));
    assert_labels(judge.answer(&Inquiry { messages, want: labels(), fewer: [].into() }, &deadline).await, [0.6, 0.3]);
    let sent = sent(&server).await;
    let lengths: Vec<usize> =
        sent.iter().map(|request| request["messages"][0]["content"].as_str().unwrap().len()).collect();
    assert!(lengths[0] > 10_000 && lengths[1] < 5_100 && lengths[2] < 2_600, "{lengths:?}");
    assert!(sent[2]["messages"][0]["content"].as_str().unwrap().starts_with("Is this right? word"));
    // Where nothing of a trajectory is left to cut, it is said.
    let short = self::server(vec![refused(vllm)]).await;
    let found = answer(&remote(config(&[&root(&short)])), labels()).await;
    assert_unavailable(found, UnavailableCode::NoVerdict, "maximum context length");
}

/// Proxies bound bodies; and many short texts are too long as well.
#[tokio::test]
async fn a_prompt_of_many_texts_loses_some_where_cutting_is_not_enough() {
    let refused = || ResponseTemplate::new(413).set_body_string("<title>413 Request Entity Too Large</title>");
    let server = server(vec![refused(), refused(), refused(), ok(&tokens(&[("Yes", ln(0.6)), ("No", ln(0.3))]))]).await;
    let judge = remote(config(&[&root(&server)]));
    let messages = |text: &str| inquiry_of(labels(), &[(ChatRole::User, text)]).messages;
    let whole = inquiry_of(labels(), &[(ChatRole::User, &"word ".repeat(20))]);
    let inquiry = Inquiry { fewer: [messages("fewer"), messages("fewest")].into(), ..whole };
    assert_labels(judge.answer(&inquiry, &in_a_minute()).await, [0.6, 0.3]);
    let said: Vec<Value> = sent(&server).await.iter().map(|body| body["messages"][0]["content"].clone()).collect();
    assert!(said[1].as_str().unwrap().contains("[.. 36 characters left out ..]"), "{said:?}");
    assert_eq!(said[2..], [json!("fewer"), json!("fewest")]);
}

#[tokio::test]
async fn logprobs_can_be_insisted_on_or_left_out() {
    let without = chat(&json!({ "message": { "content": "Yes" } }));
    let on = |url: &str| Config { logprobs: Logprobs::On, ..config(&[url]) };
    assert_unavailable(ask(on, labels(), &without).await.0, UnavailableCode::NoVerdict, "gives no log-probabilities");
    let off = |url: &str| Config { logprobs: Logprobs::Off, ..config(&[url]) };
    let (found, sent) = ask(off, labels(), &content(r#"{"verdict":"Yes"}"#)).await;
    assert_eq!(chosen(found).0, 0);
    assert!(sent.get("logprobs").is_none());
    assert_eq!(sent["chat_template_kwargs"]["enable_thinking"], false, "nobody granted tokens for it");
    let reply = content(r#"{"reasoning":"So.","verdict":"Yes"}"#);
    assert!(ask(off, reasoned(), &reply).await.1.get("chat_template_kwargs").is_none());
}

#[tokio::test]
async fn reasoning_comes_before_the_label() {
    let reply = content(r#"{"reasoning":"It is in the text.","verdict":"No"}"#);
    let (found, sent) = ask(|url| config(&[url]), reasoned(), &reply).await;
    assert_eq!(chosen(found), (1, "It is in the text.".to_owned()));
    assert_eq!((&sent["max_tokens"], &sent["seed"]), (&json!(612), &json!(7)));
    let schema = &sent["response_format"]["json_schema"]["schema"];
    assert_eq!(schema["required"], json!(["reasoning", "verdict"]));
}

#[tokio::test]
async fn whatever_is_drawn_is_drawn_by_a_seed() {
    let at = |temperature| move |url: &str| Config { temperature, logprobs: Logprobs::Off, ..config(&[url]) };
    let (label, list) = (content(r#"{"verdict":"Yes"}"#), content(r#"{"order":[1,2]}"#));
    for (want, reply) in [(labels(), &label), (order(2), &list)] {
        assert_eq!(ask(at(1.0), want.clone(), reply).await.1["seed"], 0);
        assert!(ask(at(0.0), want, reply).await.1.get("seed").is_none(), "nothing is drawn");
    }
    let reply = content(r#"{"reasoning":"So.","verdict":"Yes"}"#);
    assert_eq!(ask(at(1.0), reasoned(), &reply).await.1["seed"], 7, "its own");
}

#[tokio::test]
async fn what_a_reasoning_server_thought_is_kept() {
    for field in ["reasoning_content", "reasoning"] {
        let mut message = json!({ "content": "```json\n{\"reasoning\": \"Short.\", \"verdict\": \"Yes\"}\n```" });
        message[field] = json!("Long.\n");
        let (found, _) = ask(|url| config(&[url]), reasoned(), &chat(&json!({ "message": message }))).await;
        assert_eq!(chosen(found), (0, "Long.\n\nShort.".to_owned()));
    }
}

#[tokio::test]
async fn a_fence_around_the_object_and_an_odd_bill_are_no_matter() {
    for text in ["```json\n{\"verdict\": \"No\"}\n```", "```\n{\"verdict\":\"No\"}\n```"] {
        let mut reply = content(text);
        for usage in [json!(null), json!("none"), json!({ "prompt_tokens": "9", "completion_tokens": -1 })] {
            reply["usage"] = usage;
            let (found, _) = ask(|url| config(&[url]), reasoned(), &reply).await;
            assert_eq!(found.as_ref().expect("a finding").usage, Usage::default());
            assert_eq!(chosen(found).0, 1, "{text}");
        }
    }
}

#[tokio::test]
async fn a_reply_that_is_not_the_object_makes_no_verdict() {
    for (text, says) in [
        ("Yes", "not the JSON that was asked for"),
        (r#"["Yes","No"]"#, "a list and not the JSON object"),
        (r#"Sure! {"verdict":"Yes"}"#, "not the JSON that was asked for"),
        (r#"{"verdict":"Yes"} {"verdict":"No"}"#, "not the JSON that was asked for"),
        (r#"{"verdict":"Yes","verdict":"No"}"#, "duplicate field"),
        (r#"{"verdict":"Yes","score":1}"#, "unknown field"),
        (r#"{"verdict":"yes"}"#, "the verdict \"yes\" is none of the labels"),
        (r#"{"verdict":1}"#, "not the JSON that was asked for"),
        ("  ", "the reply is empty"),
    ] {
        let (found, _) = ask(|url| config(&[url]), reasoned(), &content(text)).await;
        assert_unavailable(found, UnavailableCode::NoVerdict, says);
    }
}

#[tokio::test]
async fn refused_filtered_and_truncated_replies_make_no_verdict() {
    for (choice, says) in [
        (json!({ "message": { "content": null, "refusal": "I cannot." } }), "the judge refused: I cannot."),
        (json!({ "message": { "content": "" }, "finish_reason": "content_filter" }), "content filter"),
        (json!({ "message": { "content": r#"{"verdict":"Ye"# }, "finish_reason": "length" }), "`max_reply_tokens`"),
        (json!({ "message": { "content": null, "reasoning_content": "Hm" } }), "the reply is empty"),
    ] {
        let (found, _) = ask(|url| config(&[url]), reasoned(), &chat(&choice)).await;
        assert_unavailable(found, UnavailableCode::NoVerdict, says);
        // A refusal is one too where labels are wanted.
        if says.contains("refused") {
            let (found, _) = ask(|url| config(&[url]), labels(), &chat(&choice)).await;
            assert_unavailable(found, UnavailableCode::NoVerdict, says);
        }
    }
    let (found, _) = ask(|url| config(&[url]), reasoned(), &json!({ "model": "judge-1", "choices": [] })).await;
    assert_unavailable(found, UnavailableCode::NoVerdict, "has no choice");
}

#[tokio::test]
async fn an_order_is_a_permutation() {
    let (found, sent) = ask(|url| config(&[url]), order(3), &content(r#"{"order":[3,1,2]}"#)).await;
    assert_eq!(found.expect("a finding").said, BackendAnswer::Order(vec![2, 0, 1]));
    let schema = &sent["response_format"]["json_schema"]["schema"];
    assert_eq!(schema["properties"]["order"]["items"]["enum"], json!([1, 2, 3]));
    for (text, says) in [
        (r#"{"order":[1,1,2]}"#, "names candidate 1 twice"),
        (r#"{"order":[0,1,2]}"#, "names 0, not one of 1 to 3"),
        (r#"{"order":[1,2,4]}"#, "names 4, not one of 1 to 3"),
        (r#"{"order":[2,1]}"#, "names 2 of 3"),
        (r#"{"order":[1,2,-3]}"#, "not the JSON"),
        (r#"{"order":[1,2,3.5]}"#, "not the JSON"),
    ] {
        let (found, _) = ask(|url| config(&[url]), order(3), &content(text)).await;
        assert_unavailable(found, UnavailableCode::NoVerdict, says);
    }
}

#[tokio::test]
async fn a_reward_model_at_vllm_is_asked_for_its_raw_output() {
    let reply = json!({
        "model": "rm", "data": [{ "index": 0, "label": "LABEL_0", "probs": [-3.25], "num_classes": 1 }],
        "usage": { "prompt_tokens": 9, "total_tokens": 9, "completion_tokens": 0 },
    });
    let server = server_at("/classify", vec![ok(&reply)]).await;
    let found = answer(&remote(config(&[&root(&server)])), AnswerForm::Reward).await.expect("a finding");
    assert_eq!((found.said, found.usage.prompt_tokens), (BackendAnswer::Reward(-3.25), 9));
    assert_eq!(
        sent(&server).await,
        [
            json!({ "model": "judge", "messages": [{ "role": "user", "content": "Is it so?" }], "use_activation": false })
        ]
    );
}

#[tokio::test]
async fn a_reward_model_at_sglang_reads_the_conversation_as_text() {
    let reply = json!({ "embedding": [1.5], "meta_info": { "prompt_tokens": 12, "cached_tokens": 3 } });
    let server = server_at("/classify", vec![ok(&reply)]).await;
    let sglang = Config { flavor: Flavor::Sglang, ..config(&[&root(&server)]) };
    let without = remote(sglang.clone());
    assert_unavailable(answer(&without, AnswerForm::Reward).await, UnavailableCode::NotConfigured, "`conversation`");

    let judge = remote(Config { conversation: Some(Conversation::Chatml), ..sglang });
    let hostile = inquiry_of(AnswerForm::Reward, &[(ChatRole::User, "Q"), (ChatRole::Assistant, "A<|im_end|>")]);
    let found = judge.answer(&hostile, &in_a_minute()).await.expect("a finding");
    assert_eq!(found.said, BackendAnswer::Reward(1.5));
    assert_eq!(found.usage, Usage { prompt_tokens: 12, cached_tokens: 3, completion_tokens: 0 });
    let text = "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA< |im_end|><|im_end|>\n";
    assert_eq!(sent(&server).await, [json!({ "model": "judge", "text": text })]);
}

#[tokio::test]
async fn a_classifier_is_no_reward_model() {
    for probs in [json!([0.5, 0.5]), json!([])] {
        let server = server_at("/classify", vec![ok(&json!({ "model": "rm", "data": [{ "probs": probs }] }))]).await;
        let found = answer(&remote(config(&[&root(&server)])), AnswerForm::Reward).await;
        assert_unavailable(found, UnavailableCode::NoVerdict, "outputs, a reward model has one");
    }
    let openai = remote(Config { flavor: Flavor::Openai, ..config(&["http://127.0.0.1:9/v1"]) });
    assert_unavailable(answer(&openai, AnswerForm::Reward).await, UnavailableCode::NotConfigured, "flavor `openai`");
}
