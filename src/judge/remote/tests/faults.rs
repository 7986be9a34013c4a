//! What faults of endpoints become: a later success or a named reason, never a number.

use serde_json::json;

use super::*;
use crate::judge::remote::accounting::Health;

fn yes() -> ResponseTemplate {
    ok(&tokens(&[("Yes", -0.1)]))
}

fn status(status: u16) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_json(json!({ "error": { "message": "not now", "code": status } }))
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    for code in [408, 409, 425, 429, 500, 502, 503, 529] {
        let server = server(vec![status(code), status(code), yes()]).await;
        let judge = remote(config(&[&root(&server)]));
        answer(&judge, labels()).await.expect("a later success");
        let account = judge.snapshot().remove(0);
        assert_eq!((account.requests, account.retries), (3, 2), "status {code}");
        assert_eq!(account.failures.values().sum::<u64>(), 2);
    }
}

#[tokio::test]
async fn what_stays_wrong_is_not_tried_again() {
    for (code, kind) in [
        (400, UnavailableCode::NoVerdict),
        (401, UnavailableCode::NotConfigured),
        (403, UnavailableCode::NotConfigured),
        (404, UnavailableCode::NotConfigured),
        (422, UnavailableCode::NoVerdict),
    ] {
        let server = server(vec![status(code), yes()]).await;
        let judge = remote(config(&[&root(&server)]));
        assert_unavailable(answer(&judge, labels()).await, kind, "not now");
        assert_eq!(judge.snapshot()[0].requests, 1, "status {code}");
    }
}

#[tokio::test]
async fn the_last_failure_is_told_when_tries_run_out() {
    let server = server(vec![status(500)]).await;
    let judge = remote(Config { attempts: 3, ..config(&[&root(&server)]) });
    assert_unavailable(answer(&judge, labels()).await, UnavailableCode::Timeout, "500 Internal Server Error: not now");
    assert_eq!(judge.snapshot()[0].requests, 3);
}

#[tokio::test]
async fn an_endpoints_words_are_bounded_and_without_the_key() {
    let words = format!("bad key sk-1234\r\n{}", "x".repeat(1000));
    let server = server(vec![ResponseTemplate::new(401).set_body_string(words)]).await;
    let mut config = config(&[&root(&server)]);
    config.endpoints[0].api_key_env = Some("KEY".to_owned());
    let judge = Remote::new(config, |name| (name == "KEY").then(|| "sk-1234".to_owned())).expect("a judge");
    let unavailable = answer(&judge, labels()).await.expect_err("no finding");
    assert!(unavailable.message.contains("bad key [key]  xxx"), "{unavailable}");
    assert!(unavailable.message.len() < 500 && !unavailable.message.contains("sk-1234"), "{unavailable}");
    let request = server.received_requests().await.expect("recording is on").remove(0);
    assert_eq!(request.headers["authorization"], "Bearer sk-1234");
    assert!(!format!("{judge:?}").contains("sk-1234"));
}

/// However the endpoint writes it, and wherever a quote ends.
#[tokio::test]
async fn the_key_is_taken_out_of_whatever_is_quoted() {
    let key = "sk/SECRET+12345";
    let judge = |server: &MockServer, key: &str| {
        let (mut config, key) = (config(&[&root(server)]), key.to_owned());
        config.endpoints[0].api_key_env = Some("KEY".to_owned());
        Remote::new(config, |_| Some(key.clone())).expect("a judge")
    };
    let not_utf8 = [&b"\xff bad key "[..], key.as_bytes()].concat();
    let escaped = r#"{"error":{"message":"bad key sk\/SECRET\u002b12345"}}"#;
    let refusal = chat(&json!({ "message": { "content": null, "refusal": format!("bad key {key}") } }));
    let long = chat(&json!({ "message": { "content": null, "refusal": format!("{}{key}", "x".repeat(290)) } }));
    for reply in [
        ResponseTemplate::new(401).set_body_bytes(not_utf8),
        ResponseTemplate::new(401).set_body_string(escaped),
        ok(&json!({ "error": { "message": format!("bad key {key}"), "code": 401 } })),
        ok(&refusal),
        ok(&long),
    ] {
        let server = server(vec![reply]).await;
        let judge = judge(&server, key);
        let unavailable = answer(&judge, labels()).await.expect_err("no finding");
        assert!(unavailable.message.contains("[key]") && !unavailable.message.contains("SECRET"), "{unavailable}");
        assert!(!format!("{:?}", judge.snapshot()).contains("SECRET"));
    }
    // A reply is read as it is, even where a word that stands for no key occurs in it.
    for key in ["1", "token", "logprobs", "Yes"] {
        let server = server(vec![yes()]).await;
        answer(&judge(&server, key), labels()).await.expect("a finding");
    }
}

/// What was reasoned is kept, and shown with a score.
#[tokio::test]
async fn the_key_is_taken_out_of_what_was_reasoned() {
    let key = "sk/SECRET+12345";
    let said = r#"{"reasoning":"the key is sk\/SECRET\u002b12345, so","verdict":"No"}"#;
    let thought = json!({ "content": said, "reasoning": format!("Who has {key}?") });
    let server = server(vec![ok(&chat(&json!({ "message": thought })))]).await;
    let mut config = config(&[&root(&server)]);
    config.endpoints[0].api_key_env = Some("KEY".to_owned());
    let judge = Remote::new(config, |_| Some(key.to_owned())).expect("a judge");
    let found = answer(&judge, reasoned()).await;
    assert_eq!(chosen(found), (1, "Who has [key]?\n\nthe key is [key], so".to_owned()));
}

/// As gateways do. The kind is that of the same as a status.
#[tokio::test]
async fn an_error_inside_a_reply_is_one() {
    let error = |code: Value| ok(&json!({ "error": { "message": "Provider returned error", "code": code } }));
    for code in [json!(429), json!("503"), json!("overloaded"), json!(null)] {
        let server = server(vec![error(code.clone()), yes()]).await;
        let judge = remote(config(&[&root(&server)]));
        answer(&judge, labels()).await.expect("a later success");
        assert_eq!(judge.snapshot()[0].requests, 2, "{code}");
    }
    let null = json!({ "error": { "message": "Provider returned error", "code": 429 }, "choices": null });
    let nulls = server(vec![ok(&null), yes()]).await;
    answer(&remote(config(&[&root(&nulls)])), labels()).await.expect("a later success");
    let server = server(vec![error(json!(400)), yes()]).await;
    let found = answer(&remote(config(&[&root(&server)])), labels()).await;
    assert_unavailable(found, UnavailableCode::NoVerdict, "an error in place of a reply: Provider returned error");
}

#[tokio::test]
async fn a_reply_without_an_answer_names_no_model_to_keep_to() {
    for choices in [json!([]), json!(null)] {
        let nothing = json!({ "model": "fallback", "choices": choices });
        let server = server(vec![ok(&nothing), yes()]).await;
        let judge = remote(config(&[&root(&server)]));
        assert_unavailable(answer(&judge, labels()).await, UnavailableCode::NoVerdict, "has no choice");
        answer(&judge, labels()).await.expect("the first answer names the model");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = server(vec![yes()]).await;
    let moved = ResponseTemplate::new(307).insert_header("location", format!("{}/chat/completions", root(&other)));
    let server = server(vec![moved]).await;
    let found = answer(&remote(config(&[&root(&server)])), labels()).await;
    assert_unavailable(found, UnavailableCode::NotConfigured, "307");
    assert!(sent(&other).await.is_empty());
}

#[tokio::test]
async fn garbage_makes_no_verdict() {
    for (body, says) in [
        ("", "the reply is empty"),
        ("<html>Log in</html>", "the reply is no JSON"),
        ("[1, 2]", "not of the protocol"),
        (r#"{"model":"m","choices":7}"#, "not of the protocol"),
        (r#"{"model":"m","choices":[{"message":{"content":"#, "the reply is no JSON"),
    ] {
        let server = server(vec![raw(body)]).await;
        let judge = remote(config(&[&root(&server)]));
        assert_unavailable(answer(&judge, labels()).await, UnavailableCode::NoVerdict, says);
        assert_eq!(judge.snapshot()[0].requests, 1, "the same would come again");
    }
}

#[tokio::test]
async fn a_reply_of_any_depth_is_read_without_harm() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    for body in [
        deep.clone(),
        format!(r#"{{"model":"m","extra":{deep},"choices":[]}}"#),
        format!(
            r#"{{"model":"m","choices":[{{"message":{{}},"logprobs":{{"content":[{{"token":"a","logprob":{deep}}}]}}}}]}}"#
        ),
    ] {
        let server = server(vec![raw(&body)]).await;
        let found = answer(&remote(config(&[&root(&server)])), labels()).await;
        assert_eq!(found.expect_err("no finding").code, UnavailableCode::NoVerdict);
    }
}

#[tokio::test]
async fn a_reply_is_read_up_to_a_bound() {
    let server = server(vec![raw(&format!("\"{}\"", "x".repeat(4 << 20)))]).await;
    let found = answer(&remote(config(&[&root(&server)])), labels()).await;
    assert_unavailable(found, UnavailableCode::NoVerdict, "longer than 4194304 bytes");
}

#[tokio::test]
async fn half_a_body_is_no_reply() {
    let gate = Gate::open("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"model\":".to_owned()).await;
    gate.release.add_permits(10);
    let judge = remote(Config { attempts: 2, ..config(&[&gate.url]) });
    assert_unavailable(answer(&judge, labels()).await, UnavailableCode::NoVerdict, "stopped in the middle");
    assert_eq!(gate.arrived(), 2, "the next try may end well");
}

#[tokio::test]
async fn a_connection_that_closes_without_a_reply_is_tried_again() {
    let gate = Gate::open(String::new()).await;
    gate.release.add_permits(10);
    let judge = remote(Config { attempts: 3, ..config(&[&gate.url]) });
    assert_unavailable(answer(&judge, labels()).await, UnavailableCode::Timeout, "closed before a reply");
    assert_eq!(gate.arrived(), 3);
}

#[tokio::test]
async fn nobody_there_is_told() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let judge = remote(config(&[&format!("http://{free}/v1")]));
    assert_unavailable(answer(&judge, labels()).await, UnavailableCode::Timeout, "no connection");
    assert_eq!(judge.snapshot()[0].failures["connection"], 4);
}

#[tokio::test(start_paused = true)]
async fn a_hang_ends_with_the_deadline() {
    let gate = Gate::open(String::new()).await;
    let judge = remote(Config { deadline_ms: 3_000, ..config(&[&gate.url]) });
    let start = Instant::now();
    assert_unavailable(answer(&judge, labels()).await, UnavailableCode::Timeout, "no reply before the deadline");
    assert_eq!(start.elapsed().as_secs(), 3, "the judge's own deadline is the earlier");
    let soon = within(Duration::from_secs(1));
    let start = Instant::now();
    let found = judge.answer(&inquiry(labels()), &soon).await;
    assert_unavailable(found, UnavailableCode::Timeout, "no reply before the deadline");
    assert_eq!(start.elapsed().as_secs(), 1, "the caller's deadline is the earlier");
    assert_eq!(judge.snapshot()[0].failures["hang"], 2);
}

#[tokio::test]
async fn a_deadline_that_has_passed_costs_no_request() {
    let server = server(vec![yes()]).await;
    let judge = remote(config(&[&root(&server)]));
    let found = judge.answer(&inquiry(labels()), &within(Duration::ZERO)).await;
    assert_unavailable(found, UnavailableCode::Timeout, "out of time");
    assert!(sent(&server).await.is_empty());
}

#[tokio::test]
async fn a_judge_that_changes_its_model_is_none() {
    let mut other = tokens(&[("Yes", -0.1)]);
    other["model"] = json!("judge-2");
    let mut nameless = tokens(&[("Yes", -0.1)]);
    nameless["model"] = json!(null);
    let server = server(vec![yes(), ok(&other), ok(&nameless), yes()]).await;
    let judge = remote(config(&[&root(&server)]));
    answer(&judge, labels()).await.expect("the first names the model");
    let changed = "changed its model from `judge-1` to `judge-2`";
    assert_unavailable(answer(&judge, labels()).await, UnavailableCode::NoVerdict, changed);
    assert_unavailable(answer(&judge, labels()).await, UnavailableCode::NoVerdict, "does not say which model");
    answer(&judge, labels()).await.expect("it is back");

    let loose = remote(Config { pin_model: false, ..config(&[&root(&server)]) });
    answer(&loose, labels()).await.expect("any model");
}

#[tokio::test]
async fn retry_after_beyond_the_deadline_ends_at_once() {
    let server = server(vec![status(429).insert_header("retry-after", "200"), yes()]).await;
    let judge = remote(config(&[&root(&server)]));
    let found = answer(&judge, labels()).await;
    assert_unavailable(found, UnavailableCode::Timeout, "waiting for it to take requests again");
    assert_eq!(judge.snapshot()[0].requests, 1);
    // So it does for whoever comes next: the endpoint is left alone.
    assert_eq!(answer(&judge, labels()).await.expect_err("no finding").code, UnavailableCode::Timeout);
    assert_eq!(judge.snapshot()[0].requests, 1);
    assert_eq!(judge.snapshot()[0].health, Health::Closed, "busy is not broken");
    let paused = judge.snapshot()[0].paused.as_secs();
    assert!((150..200).contains(&paused), "{paused}");
}

#[tokio::test]
async fn a_busy_endpoint_is_left_for_another_at_once() {
    let busy = server(vec![status(429).insert_header("retry-after", "200")]).await;
    let free = server(vec![yes()]).await;
    let judge = remote(config(&[&root(&busy), &root(&free)]));
    for _ in 0..4 {
        answer(&judge, labels()).await.expect("the other one answers");
    }
    assert_eq!(judge.snapshot().iter().map(|account| account.requests).collect::<Vec<_>>(), [1, 4]);
}

fn refusing(message: &str) -> ResponseTemplate {
    ResponseTemplate::new(400).set_body_json(json!({ "error": { "message": message } }))
}

fn asked(judge: &Remote) -> Vec<u64> {
    judge.snapshot().iter().map(|account| account.requests).collect()
}

fn all(servers: &[&MockServer]) -> Config {
    let roots: Vec<String> = servers.iter().map(|server| root(server)).collect();
    config(&roots.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Too small a context, an option that it does not know: another one may answer.
#[tokio::test]
async fn what_one_endpoint_refuses_is_asked_of_another() {
    for message in ["This model's maximum context length is 16 tokens", "logprobs are not allowed", "no"] {
        let (refuses, well) = (server(vec![refusing(message)]).await, server(vec![yes()]).await);
        let judge = remote(Config { breaker_failures: 3, ..all(&[&refuses, &well]) });
        for _ in 0..8 {
            let found = answer(&judge, labels()).await.expect("the other one's answer");
            assert!(matches!(found.said, crate::judge::inquiry::BackendAnswer::Labels(_)), "{found:?}");
        }
        assert_eq!(asked(&judge), [3, 8], "it does not keep on taking what another one has to answer");
        assert_eq!(judge.snapshot()[0].health, Health::Open);
        let untrusted = sent(&well).await.iter().all(|body| body["messages"][0]["content"] == "Is it so?");
        assert!(untrusted, "nothing is cut");
    }
}

#[tokio::test]
async fn what_two_endpoints_refuse_is_refused() {
    let refuses = server(vec![refusing("no")]).await;
    let judge = remote(Config { breaker_failures: 1, ..all(&[&refuses, &refuses, &refuses]) });
    for requests in [2, 4, 6] {
        assert_unavailable(answer(&judge, labels()).await, UnavailableCode::NoVerdict, "no; before that: http://");
        assert_eq!(asked(&judge).iter().sum::<u64>(), requests);
    }
    assert!(judge.snapshot().iter().all(|account| account.health == Health::Closed), "it may be the request");
}

#[tokio::test]
async fn what_is_refused_and_answered_by_no_other_is_refused() {
    let refuses = server(vec![refusing("the prompt is too long"), yes()]).await;
    let fails = server(vec![status(503)]).await;
    let judge = remote(Config { attempts: 3, ..all(&[&refuses, &fails]) });
    let long = inquiry_of(labels(), &[(ChatRole::User, &"word ".repeat(1000))]);
    judge.answer(&long, &in_a_minute()).await.expect("it was cut, as by one endpoint alone");
    assert_eq!(asked(&judge), [2, 2]);
    assert!(sent(&refuses).await[1]["messages"][0]["content"].as_str().expect("a text").len() < 2600);
}
