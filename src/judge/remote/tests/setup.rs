//! Configurations: read, checked, told apart.

use serde_json::json;

use super::*;
use crate::judge::remote::config::Conversation;
use crate::judge::remote::{Logprobs, RemoteError};

fn parse(value: &Value) -> Result<Config, serde_json::Error> {
    serde_json::from_value(value.clone())
}

#[test]
fn a_short_configuration_gets_the_defaults() {
    let short = json!({ "endpoints": [{ "url": "http://127.0.0.1:8000/v1" }], "model": "m", "flavor": "vllm" });
    let config = parse(&short).expect("a configuration");
    assert_eq!((config.deadline_ms, config.attempts, config.top_logprobs), (60_000, 4, 20));
    assert_eq!((config.temperature, config.logprobs, config.pin_model), (0.0, Logprobs::Auto, true));
    assert_eq!(config.endpoints[0].max_concurrency, 32);
    config.check().expect("it is right");
}

#[test]
fn an_unknown_field_or_value_is_refused_by_name() {
    for (value, says) in [
        (json!({ "modle": "m" }), "modle"),
        (json!({ "endpoints": [{ "uri": "x" }] }), "uri"),
        (json!({ "flavor": "auto" }), "auto"),
    ] {
        let error = parse(&value).expect_err("refused").to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_field_out_of_its_range_is_told_by_name() {
    let good = config(&["http://127.0.0.1:8000/v1"]);
    let with = |change: fn(&mut Config)| {
        let mut config = good.clone();
        change(&mut config);
        config.check().expect_err("refused").to_string()
    };
    assert!(with(|config| config.endpoints.clear()).starts_with("`endpoints` is empty"));
    assert!(with(|config| config.model.clear()).starts_with("`model` is empty"));
    assert!(with(|config| config.special_tokens.push(String::new())).starts_with("`special_tokens` is empty"));
    assert!(with(|config| config.temperature = f64::NAN).starts_with("`temperature` is NaN: give a value from 0 to 2"));
    assert!(with(|config| config.request_timeout_ms = Some(0)).starts_with("`request_timeout_ms` is 0"));
    assert!(with(|config| config.attempts = 0).starts_with("`attempts` is 0"));
    assert!(with(|config| config.top_logprobs = 1001).starts_with("`top_logprobs` is 1001"));
    assert!(with(|config| config.backoff_max_ms = 0).starts_with("`backoff_max_ms` is 0"));
    assert!(with(|config| config.endpoints[0].max_concurrency = 0).starts_with("`endpoints[0].max_concurrency` is 0"));
    assert!(
        with(|config| config.endpoints[0].tokens_per_minute = Some(0)).starts_with("`endpoints[0].tokens_per_minute`")
    );
    let negative = with(|config| config.endpoints[0].prompt_price_per_million = Some(-1.0));
    assert!(negative.starts_with("`endpoints[0].prompt_price_per_million` is -1"));
    assert!(with(|config| (config.flavor, config.top_logprobs) = (Flavor::Openai, 21)).ends_with("from 1 to 20"));
}

#[test]
fn only_plain_urls_are_asked() {
    for (url, says) in [
        ("file:///etc/passwd", "its scheme is `file`"),
        ("ftp://127.0.0.1/v1", "its scheme is `ftp`"),
        ("127.0.0.1:8000/v1", "it is no url"),
        ("http://", "it is no url"),
        ("http://me:hunter2@127.0.0.1/v1", "a user or a password"),
        ("http://127.0.0.1/v1?key=hunter2", "a query"),
        ("http://127.0.0.1/v1#hunter2", "a fragment"),
    ] {
        let error = config(&["http://127.0.0.1/v1", url]).check().expect_err("refused").to_string();
        assert!(error.starts_with("`endpoints[1].url` cannot be used"), "{error}");
        assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
    }
    config(&["https://example.org/v1/", "http://[::1]:8000"]).check().expect("both are right");
}

#[test]
fn keys_come_from_the_caller_and_are_checked() {
    let mut config = config(&["http://127.0.0.1/v1"]);
    config.endpoints[0].api_key_env = Some("KEY".to_owned());
    let missing = Remote::new(config.clone(), |_| None).expect_err("no key");
    let field = "endpoints[0].api_key_env".to_owned();
    assert_eq!(missing, RemoteError::MissingKey { field: field.clone(), name: "KEY".to_owned() });
    let bad = Remote::new(config, |_| Some("two\nlines".to_owned())).expect_err("no header");
    assert_eq!(bad, RemoteError::BadKey { field, name: "KEY".to_owned() });
    assert!(!bad.to_string().contains("lines"));
}

#[test]
fn the_identity_changes_with_what_changes_answers_and_with_nothing_else() {
    let base = config(&["http://127.0.0.1:8000/v1"]);
    let identity = |change: fn(&mut Config)| {
        let mut config = base.clone();
        change(&mut config);
        crate::judge::remote::identity(&config)
    };
    let same = identity(|_| ());
    assert_eq!(same, remote(base.clone()).identity());
    assert_eq!(same, "remote:\"judge\":vllm:temperature=0:top_logprobs=20:logprobs=auto:reading=2");
    for change in [
        (|config| config.model = "other".to_owned()) as fn(&mut Config),
        |config| config.revision = "2".to_owned(),
        |config| config.flavor = Flavor::Sglang,
        |config| config.temperature = 0.5,
        |config| config.top_logprobs = 5,
        |config| config.logprobs = Logprobs::Off,
        |config| config.label_token_ids = [("Yes".to_owned(), 1)].into(),
        |config| config.chat_template_kwargs = [("thinking".to_owned(), json!(true))].into_iter().collect(),
        |config| config.special_tokens = vec!["<x>".to_owned()],
        |config| config.conversation = Some(Conversation::Llama3),
    ] {
        assert_ne!(identity(change), same);
    }
    for change in [
        (|config| config.endpoints[0].url = "http://[::1]/v1".to_owned()) as fn(&mut Config),
        |config| config.endpoints[0].api_key_env = Some("KEY".to_owned()),
        |config| config.attempts = 9,
        |config| config.deadline_ms = 1,
        |config| config.request_timeout_ms = Some(1),
    ] {
        assert_eq!(identity(change), same);
    }
}

#[test]
fn the_classifier_stands_beside_the_root() {
    use crate::judge::remote::address::Address;
    for (url, classify) in [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/classify"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/classify"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/classify"),
        ("https://example.org/judge/v1", "https://example.org/judge/classify"),
    ] {
        assert_eq!(Address::parse(url).expect("a url").classify(), classify);
    }
}
