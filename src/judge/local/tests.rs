//! What a judge on this machine is set to, and what its labels are.

use super::*;

#[test]
fn a_field_out_of_its_range_is_told_by_name() {
    let check = |change: fn(&mut LocalConfig)| {
        let mut config = LocalConfig { model: "model".into(), ..LocalConfig::default() };
        change(&mut config);
        config.check()
    };
    assert_eq!(check(|_| ()), Ok(()));
    assert_eq!(check(|config| (config.context, config.batch_tokens, config.temperature) = (2, Some(2), 2.0)), Ok(()));
    let refused = |change| check(change).unwrap_err();
    assert!(refused(|config| config.model = PathBuf::new()).starts_with("`model` is missing"));
    assert_eq!(refused(|config| config.batch_tokens = Some(0)), "`batch_tokens` is 0: give 2 tokens at least");
    assert_eq!(refused(|config| config.context = 1), "`context` is 1: give 2 tokens at least");
    assert_eq!(refused(|config| config.temperature = f64::NAN), "`temperature` is NaN: give a value from 0 to 2");
    assert!(refused(|config| config.temperature = f64::INFINITY).starts_with("`temperature` is inf"));
    assert!(refused(|config| config.temperature = -1.0).starts_with("`temperature` is -1"));
}

#[test]
fn probabilities_are_added_and_one_alone_stays_as_it_is() {
    assert_eq!(log_sum(&[-0.123_456_789]).to_bits(), (-0.123_456_789_f64).to_bits());
    assert!((log_sum(&[0.5_f64.ln(), 0.05_f64.ln()]).exp() - 0.55).abs() < 1e-12);
    assert!((log_sum(&[-2000.0, -2000.0]) + 2000.0 - 2.0_f64.ln()).abs() < 1e-12, "far below what exp can hold");
    assert_eq!(log_sum(&[f64::NEG_INFINITY, -1.0]).to_bits(), (-1.0_f64).to_bits());
    assert!([&[][..], &[f64::NEG_INFINITY; 2]].iter().all(|none| log_sum(none) == f64::NEG_INFINITY));
}

fn match_or_not() -> AnswerForm {
    AnswerForm::Labels(["Match", "Mismatch"].map(str::to_owned).into())
}

/// The small judge, changed by `change` in its tokenizer.
fn small_judge(change: impl Fn(&mut serde_json::Value)) -> Local {
    small_judge_with(change, |_| ())
}

/// The small judge, changed in its tokenizer and in what stands beside it.
fn small_judge_with(change: impl Fn(&mut serde_json::Value), configure: impl Fn(&mut serde_json::Value)) -> Local {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "generation_config.json", "model.safetensors"] {
        let from = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/small_judge").join(file);
        std::fs::copy(from, dir.path().join(file)).unwrap();
    }
    let write = |file: &str, text: &[u8], change: &dyn Fn(&mut serde_json::Value)| {
        let mut json = serde_json::from_slice(text).unwrap();
        change(&mut json);
        std::fs::write(dir.path().join(file), json.to_string()).unwrap();
    };
    write("tokenizer.json", include_bytes!("../../../tests/small_judge/tokenizer.json"), &change);
    write("tokenizer_config.json", include_bytes!("../../../tests/small_judge/tokenizer_config.json"), &configure);
    let config = LocalConfig { model: dir.path().to_owned(), device: DeviceChoice::Cpu, ..LocalConfig::default() };
    Local::load(&config, &Hub::from_variables(|_| None)).unwrap()
}

/// The words that it says are tokens with a space here, and it has others without one, which it never says.
#[tokio::test]
async fn a_label_counts_in_both_of_its_forms() {
    let with_spaces = |tokenizer: &mut serde_json::Value| {
        tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] =
            serde_json::json!(" ?\\b(?:Mismatch|Match|Yes|No)\\b");
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        for (label, unused) in [("Match", "\u{100}"), ("Mismatch", "\u{101}")] {
            let spare = vocabulary.remove(unused).unwrap();
            let said = vocabulary.insert(label.to_owned(), spare).unwrap();
            vocabulary.insert(format!("\u{120}{label}"), said);
        }
    };
    let inquiry = question(match_or_not());
    let mut found = Vec::new();
    for judge in [small_judge(|_| ()), small_judge(with_spaces)] {
        let BackendAnswer::Labels(logprobs) = judge.answer(&inquiry).await.unwrap().said else { panic!("no labels") };
        found.push(logprobs.into_iter().map(f64::exp).collect::<Vec<_>>());
    }
    assert!(found[0].iter().all(|probability| *probability > 1e-4), "{found:?}");
    assert!(found[0].iter().zip(&found[1]).all(|(one, other)| (one - other).abs() < 1e-6), "{found:?}");
}

/// A question of the small judge's form.
fn question(want: AnswerForm) -> Inquiry {
    let text = "Same?\n<<<question 0\nWhat is it?\n0 question>>>\nVerdict:".to_owned();
    let messages = vec![PromptMessage { role: ChatRole::User, text, untrusted: Vec::new() }];
    Inquiry { messages, want, fewer: [].into() }
}

/// They are told apart by what stands at their ends, which this judge writes byte by byte.
#[tokio::test]
async fn labels_that_begin_alike_for_long_get_a_verdict() {
    let judge = small_judge(|_| ());
    for times in [4, 20] {
        let labels = ["right", "wrong"].map(|end| "all things considered, it is ".repeat(times) + end);
        let want = AnswerForm::ReasonedLabel { labels: labels.into(), thinking_tokens: 8, seed: 0 };
        let said = judge.answer(&question(want)).await.unwrap().said;
        assert!(matches!(said, BackendAnswer::Chosen { .. }), "{said:?}");
    }
}

/// As the templates of R1 and `QwQ` do, which know no `enable_thinking`.
fn open_thinking(config: &mut serde_json::Value) {
    let template = config["chat_template"].as_str().unwrap();
    config["chat_template"] = template.replace("assistant\\n' }}", "assistant\\n<think>\\n' }}").into();
}

/// This judge has no token for the end of thinking.
#[tokio::test]
async fn a_verdict_is_not_given_amid_thinking() {
    for (judge, closes) in [(small_judge_with(|_| (), open_thinking), true), (small_judge(|_| ()), false)] {
        assert_eq!(judge.text.think_end, None);
        let labels = ["Yes", "No"].map(str::to_owned).into();
        let want = AnswerForm::ReasonedLabel { labels, thinking_tokens: 8, seed: 0 };
        let said = judge.answer(&question(want)).await.unwrap().said;
        let BackendAnswer::Chosen { reasoning, .. } = said else { panic!("no verdict: {said:?}") };
        assert_eq!(reasoning.contains("</think>\n\n{"), closes, "{reasoning}");
    }
}

#[test]
fn a_label_is_not_asked_for_amid_thinking() {
    let judge = small_judge_with(|_| (), open_thinking);
    let prompt = |want| {
        let tokens = judge.text.encode(&question(want)).unwrap().tokens;
        judge.text.tokenizer.decode(&tokens, SpecialText::Shown).unwrap()
    };
    for at_once in [match_or_not(), AnswerForm::Order { candidates: 2 }] {
        let prompt = prompt(at_once);
        assert!(prompt.ends_with("<|im_start|>assistant\n<think>\n\n</think>\n\n"), "{prompt}");
    }
    let thinks = prompt(AnswerForm::ReasonedLabel { labels: [].into(), thinking_tokens: 8, seed: 0 });
    assert!(thinks.ends_with("<think>\n"), "{thinks}");
}

#[tokio::test]
async fn a_judge_that_never_learnt_to_order_names_each_candidate_once() {
    let judge = small_judge(|_| ());
    let said = judge.answer(&question(AnswerForm::Order { candidates: 11 })).await.unwrap().said;
    let BackendAnswer::Order(mut order) = said else { panic!("no order") };
    order.sort_unstable();
    assert_eq!(order, (0..11).collect::<Vec<_>>());
}
