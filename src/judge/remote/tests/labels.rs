//! Labels read from log-probabilities: what is known of them, and what is not.

use serde_json::json;

use super::*;
use crate::judge::inquiry::{BackendAnswer, Usage};
use crate::judge::remote::Logprobs;

#[tokio::test]
async fn labels_are_the_probabilities_of_their_tokens() {
    let reply = tokens(&[("Yes", ln(0.6)), ("No", ln(0.3)), ("Maybe", ln(0.05))]);
    let (found, sent) = ask(|url| config(&[url]), labels(), &reply).await;
    assert_eq!(
        found.as_ref().expect("a finding").usage,
        Usage { prompt_tokens: 10, cached_tokens: 4, completion_tokens: 2 }
    );
    assert_labels(found, [0.6, 0.3]);
    assert_eq!(
        sent,
        json!({
            "model": "judge", "messages": [{ "role": "user", "content": "Is it so?" }], "temperature": 0.0,
            "max_tokens": 1, "logprobs": true, "top_logprobs": 20,
            "chat_template_kwargs": { "enable_thinking": false },
        })
    );
}

#[tokio::test]
async fn tokens_that_spell_the_same_label_are_added() {
    let reply = tokens(&[(" Yes", ln(0.5)), ("Yes", ln(0.25)), ("  Yes", ln(0.1)), ("yes", ln(0.1))]);
    assert_labels(ask(|url| config(&[url]), labels(), &reply).await.0, [0.75, 0.0]);
}

#[tokio::test]
async fn the_sampled_token_counts_once_listed_or_not() {
    let unlisted = chat(&json!({
        "message": { "content": "No" },
        "logprobs": { "content": [{
            "token": "No", "logprob": ln(0.2), "top_logprobs": [{ "token": "Yes", "logprob": ln(0.7) }],
        }] },
    }));
    assert_labels(ask(|url| config(&[url]), labels(), &unlisted).await.0, [0.7, 0.2]);
}

#[tokio::test]
async fn without_a_label_among_the_tokens_there_is_no_verdict() {
    let (found, _) = ask(|url| config(&[url]), labels(), &tokens(&[("<think>", ln(0.9))])).await;
    assert_unavailable(found, UnavailableCode::NoVerdict, "none of the labels is among the likeliest tokens");
}

/// A tokenizer that splits a label would never give it a probability.
#[tokio::test]
async fn a_token_that_only_begins_a_label_makes_no_verdict() {
    let (found, _) = ask(|url| config(&[url]), labels(), &tokens(&[("Yes", ln(0.6)), (" Ye", ln(0.2))])).await;
    assert_unavailable(found, UnavailableCode::NoVerdict, "begins a label with the token `Ye`");
    let (found, _) =
        ask(|url| config(&[url]), labels(), &tokens(&[("Yes", ln(0.6)), ("No", ln(0.3)), ("Y", ln(0.05))])).await;
    assert!(found.is_ok(), "{found:?}");
}

/// "10" in two tokens begins with that of "1".
#[tokio::test]
async fn a_label_that_begins_another_is_told_apart_or_makes_no_verdict() {
    let asked = async |labels: &[&str], said: &[(&str, f64)]| {
        let want = AnswerForm::Labels(labels.iter().map(|label| (*label).to_owned()).collect());
        let said: Vec<_> = said.iter().map(|(token, probability)| (*token, ln(*probability))).collect();
        ask(|url| config(&[url]), want, &tokens(&said)).await.0
    };
    for (labels, said) in [
        (["1", "10"], [("1", 0.97), ("0", 0.01)]),
        (["10", "1"], [(" 1", 0.97), ("1", 0.01)]),
        (["Correct", "Correct but incomplete"], [("Correct", 0.9), ("Wrong", 0.1)]),
    ] {
        let says = format!("begins a label with the token `{}`", said[0].0.trim());
        assert_unavailable(asked(&labels, &said).await, UnavailableCode::NoVerdict, &says);
    }
    assert_labels(asked(&["1", "10"], &[("1", 0.7), (" 10", 0.2)]).await, [0.7, 0.2]);
    assert_labels(asked(&["Match", "Mismatch"], &[("Match", 0.9), ("Mis", 0.05)]).await, [0.9, 0.0]);
    let little = asked(&["1", "10", "7"], &[("7", 0.9), ("1", 0.05)]).await.expect("a finding").said;
    assert_eq!(little, BackendAnswer::Labels(vec![f64::NEG_INFINITY, f64::NEG_INFINITY, ln(0.9)]));
}

/// What is not listed may be anything: it is not outside the labels.
#[tokio::test]
async fn a_label_whose_probability_is_not_known_makes_no_verdict() {
    let asked = async |top_logprobs, labels: &[&str], said: &[(&str, f64)]| {
        let want = AnswerForm::Labels(labels.iter().map(|label| (*label).to_owned()).collect());
        let said: Vec<_> = said.iter().map(|(token, probability)| (*token, ln(*probability))).collect();
        ask(|url| Config { top_logprobs, ..config(&[url]) }, want, &tokens(&said)).await.0
    };
    let is_unknown = |found, says| assert_unavailable(found, UnavailableCode::NoVerdict, says);
    is_unknown(asked(1, &["Yes", "No"], &[("Yes", 0.6)]).await, "not among the 1 tokens that the endpoint lists: No;");
    is_unknown(asked(20, &["Yes", "No"], &[("Yes", 0.6), ("no", 0.1)]).await, "up to 0.300 of the probability");
    is_unknown(
        asked(2, &["A", "B", "C"], &[("A", 0.4), ("B", 0.3)]).await,
        "lists: C; up to 0.300 of the probability may be theirs. Raise `top_logprobs` (it is 2)",
    );
    // As many as were asked for: a token that is not listed has no more than the least of them.
    let four = [("Yes", 0.6), ("yes", 0.1), ("Sure", 0.02), ("So", 0.02)];
    assert_labels(asked(4, &["Yes", "No"], &four).await, [0.6, 0.0]);
    // One that lists fewer whatever it is asked for would not list more if it were asked for more.
    is_unknown(asked(5, &["Yes", "No"], &four).await, "never lists more, lower `top_logprobs` to 4 (it is 5)");
    // So little is left that it may be left out.
    assert_labels(asked(1, &["Yes", "No"], &[("Yes", 0.95)]).await, [0.95, 0.0]);
}

/// Only the sampled token: nothing but a hard verdict could be made of it.
#[tokio::test]
async fn the_sampled_token_alone_is_no_distribution() {
    for listed in [json!([]), json!(null)] {
        let position = json!({ "token": "Yes", "logprob": ln(0.97), "top_logprobs": listed });
        let alone = chat(&json!({ "message": { "content": "Yes" }, "logprobs": { "content": [position] } }));
        let server = server(vec![ok(&alone), ok(&content(r#"{"verdict":"No"}"#))]).await;
        let judge = remote(config(&[&root(&server)]));
        assert_eq!(chosen(answer(&judge, labels()).await), (1, String::new()), "it is asked for JSON");
        let on = |url: &str| Config { logprobs: Logprobs::On, ..config(&[url]) };
        let (found, _) = ask(on, labels(), &alone).await;
        assert_unavailable(found, UnavailableCode::NoVerdict, "gives no log-probabilities");
    }
}

/// A token may be a piece of a character: as `OpenAI` writes it, and as vLLM does.
#[tokio::test]
async fn a_piece_of_a_character_begins_a_label() {
    let asked = async |labels: [&str; 2], piece: Value| {
        let whole = json!({ "token": labels[0], "logprob": ln(0.55), "bytes": labels[0].as_bytes() });
        let position = json!({ "token": labels[0], "logprob": ln(0.55), "top_logprobs": [whole, piece] });
        let reply = chat(&json!({ "message": { "content": labels[0] }, "logprobs": { "content": [position] } }));
        ask(|url| config(&[url]), AnswerForm::Labels(labels.map(str::to_owned).into()), &reply).await.0
    };
    let piece = |token: &str, bytes: Value| json!({ "token": token, "logprob": ln(0.4), "bytes": bytes });
    for piece in [
        piece("\\xe5\\x90", json!([0xe5, 0x90])),
        piece(" \u{fffd}", json!([b' ', 0xe5])),
        piece("\u{fffd}", json!("\u{fffd}".as_bytes())),
        piece("\u{fffd}", json!(null)),
    ] {
        let found = asked(["是", "否"], piece).await;
        assert_unavailable(found, UnavailableCode::NoVerdict, "begins a label with the token");
    }
    // Its bytes say what it is, and a list that is none says nothing.
    assert_labels(asked(["是", "否"], piece("\\xe5\\x90\\xa6", json!([0xe5, 0x90, 0xa6]))).await, [0.55, 0.4]);
    assert_labels(asked(["Yes", "No"], piece(" No", json!(["?"]))).await, [0.55, 0.4]);
    assert_labels(asked(["Yes", "No"], piece("No", json!([]))).await, [0.55, 0.4]);
}

#[tokio::test]
async fn a_log_probability_that_is_none_makes_no_verdict() {
    for (logprob, says) in [
        (json!(null), "the log-probability of `Yes` is null"),
        (json!("NaN"), "\"NaN\""),
        (json!(0.5), "is 0.5"),
        (json!([]), "is []"),
    ] {
        let entry = json!({ "token": "Yes", "logprob": logprob });
        let position = json!({ "token": "Yes", "logprob": -0.1, "top_logprobs": [entry] });
        let reply = chat(&json!({ "message": {}, "logprobs": { "content": [position] } }));
        let (found, _) = ask(|url| config(&[url]), labels(), &reply).await;
        assert_unavailable(found, UnavailableCode::NoVerdict, says);
    }
}

#[tokio::test]
async fn a_bare_nan_is_no_json() {
    for bare in ["NaN", "-Infinity", "-1e999"] {
        let body = tokens(&[("Yes", -0.125)]).to_string().replace("-0.125", bare);
        let server = server(vec![raw(&body)]).await;
        let found = answer(&remote(config(&[&root(&server)])), labels()).await;
        assert_unavailable(found, UnavailableCode::NoVerdict, "the reply is no");
    }
}

#[tokio::test]
async fn probabilities_beyond_one_make_no_verdict() {
    let (found, _) = ask(|url| config(&[url]), labels(), &tokens(&[("Yes", ln(0.9)), ("No", ln(0.9))])).await;
    assert_unavailable(found, UnavailableCode::NoVerdict, "add up to 1.8");
}

/// A slip of one moment: it says nothing about those that come after.
#[tokio::test]
async fn a_reply_without_a_token_decides_nothing() {
    for message in [json!({ "content": "" }), json!({ "content": null })] {
        let nothing = chat(&json!({ "message": message, "logprobs": null }));
        let server = server(vec![ok(&nothing), ok(&tokens(&[("Yes", ln(0.6)), ("No", ln(0.4))]))]).await;
        let judge = remote(config(&[&root(&server)]));
        assert_unavailable(answer(&judge, labels()).await, UnavailableCode::NoVerdict, "wrote no token");
        assert_eq!(judge.form(&labels()), None);
        assert_labels(answer(&judge, labels()).await, [0.6, 0.4]);
    }
}
