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
/// The small judge, changed by `change` in its tokenizer.
fn small_judge(change: impl Fn(&mut serde_json::Value)) -> Local {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "generation_config.json", "model.safetensors", "tokenizer_config.json"] {
        let from = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/small_judge").join(file);
        std::fs::copy(from, dir.path().join(file)).unwrap();
    }
    let mut tokenizer = serde_json::from_slice(include_bytes!("../../../tests/small_judge/tokenizer.json")).unwrap();
    change(&mut tokenizer);
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
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
    let text = "Same?\n<<<question 0\nWhat is it?\n0 question>>>\nVerdict:".to_owned();
    let inquiry = Inquiry {
        messages: vec![PromptMessage { role: ChatRole::User, text, untrusted: Vec::new() }],
        want: AnswerForm::Labels(["Match", "Mismatch"].map(str::to_owned).into()),
        fewer: [].into(),
    };
    let mut found = Vec::new();
    for judge in [small_judge(|_| ()), small_judge(with_spaces)] {
        let BackendAnswer::Labels(logprobs) = judge.answer(&inquiry).await.unwrap().said else { panic!("no labels") };
        found.push(logprobs.into_iter().map(f64::exp).collect::<Vec<_>>());
    }
    assert!(found[0].iter().all(|probability| *probability > 1e-4), "{found:?}");
    assert!(found[0].iter().zip(&found[1]).all(|(one, other)| (one - other).abs() < 1e-6), "{found:?}");
}
