//! The text metrics against their oracles: sacreBLEU 2.6.0 and the formulas of `SQuAD` v1.1. The cases are files,
//! written by `tests/fixtures/sacrebleu/generate.py`.

use gradus::text::{Bleu, LaBleu, Smoothing, Tokenizer, exact_match, f1, normalize, squad};
use serde_json::Value;

const TOLERANCE: f64 = 1e-9;

fn cases(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(text).collect()
}

/// The metric that a sacreBLEU signature names.
fn metric(signature: &str, order: &Value) -> Bleu {
    let field = |key: &str| signature.split('|').find_map(|pair| pair.strip_prefix(key)?.strip_prefix(':')).unwrap();
    Bleu {
        tokenizer: field("tok").parse().unwrap(),
        lowercase: field("case") == "lc",
        smoothing: field("smooth").parse().unwrap(),
        effective_order: field("eff") == "yes",
        max_ngram_order: order.as_u64().unwrap().try_into().unwrap(),
    }
}

#[test]
fn bleu_equals_sacrebleu() {
    let cases = cases(include_str!("../fixtures/sacrebleu/bleu.jsonl"));
    assert!(cases.len() >= 600);
    for case in &cases {
        let expected = case["score"].as_f64().unwrap() / 100.0;
        let score = metric(text(&case["signature"]), &case["order"]).sentence(text(&case["h"]), &texts(&case["r"]));
        // sacreBLEU's perfect score is a little above 100, and its floor smoothing can exceed it.
        let difference = (score - expected.min(1.0)).abs();
        assert!(difference <= TOLERANCE, "{score} instead of {expected}: {case}");
    }
}

#[test]
fn the_signature_has_sacrebleus_keys_and_values() {
    for case in cases(include_str!("../fixtures/sacrebleu/bleu.jsonl")) {
        let (theirs, version) = text(&case["signature"]).rsplit_once("|version:").unwrap();
        let ours = metric(text(&case["signature"]), &case["order"]).signature(case["r"].as_array().unwrap().len());
        assert!(ours.starts_with(theirs), "{ours} instead of {theirs}");
        assert!(ours.ends_with(&format!("|equals:sacrebleu-{version}")), "{ours}");
        assert_eq!(ours.contains("|order:"), case["order"] != 4, "{ours}");
    }
}

#[test]
fn tokens_equal_sacrebleus() {
    for case in cases(include_str!("../fixtures/sacrebleu/tokens.jsonl")) {
        for tokenizer in Tokenizer::ALL {
            assert_eq!(
                tokenizer.tokenize(text(&case["text"])),
                texts(&case[tokenizer.as_str()]),
                "{tokenizer}: {case}"
            );
        }
    }
}

#[test]
fn exact_match_and_f1_equal_squads() {
    for case in cases(include_str!("../fixtures/sacrebleu/squad.jsonl")) {
        let (answer, references) = (text(&case["a"]), texts(&case["r"]));
        assert_eq!(normalize(answer), text(&case["normalized"]), "{case}");
        assert_eq!(exact_match(answer, &references), case["exact_match"], "{case}");
        assert!((f1(answer, &references) - case["f1"].as_f64().unwrap()).abs() <= TOLERANCE, "{case}");
        let both = squad(answer, &references);
        assert_eq!((both.exact_match, both.f1), (exact_match(answer, &references), f1(answer, &references)), "{case}");
    }
}

#[test]
fn without_slack_guard_la_bleu_is_sacrebleus_score_at_the_references_order() {
    let metric = LaBleu { slack: f64::INFINITY, ..LaBleu::default() };
    for case in cases(include_str!("../fixtures/sacrebleu/bleu.jsonl")) {
        let hypothesis = text(&case["h"]);
        for reference in texts(&case["r"]) {
            let order = u8::try_from(Tokenizer::V13a.tokenize(reference).len().min(4)).unwrap();
            let plain = Bleu { max_ngram_order: order, ..Bleu::default() };
            let (ours, expected) =
                (metric.similarity(hypothesis, &[reference]), plain.sentence(hypothesis, &[reference]));
            assert!((ours - expected).abs() <= TOLERANCE, "{ours} instead of {expected}: {reference:?}, {case}");
        }
    }
}

/// sacreBLEU 2.6.0: `sentence_bleu("b c", ["b x y"], smooth_method="floor", smooth_value=3)` is 74.28453148.
#[test]
fn a_floor_above_1_counts_before_the_brevity_penalty_and_is_cut_behind_it() {
    let bleu = Bleu { smoothing: Smoothing::Floor(3.0), ..Bleu::default() };
    assert!((bleu.sentence("b c", &["b x y"]) - 0.742_845_314_8).abs() < 1e-9);
    assert_eq!(bleu.sentence("b c", &["b x"]), 1.0);
}

#[test]
fn smoothing_is_read_as_sacrebleu_prints_it() {
    for (text, smoothing) in [
        ("none", Smoothing::None),
        ("exp", Smoothing::Exp),
        ("floor[0.10]", Smoothing::Floor(0.1)),
        ("add-k[1.00]", Smoothing::AddK(1.0)),
        ("add-k[0.125]", Smoothing::AddK(0.125)),
    ] {
        assert_eq!(text.parse(), Ok(smoothing));
        assert_eq!(smoothing.to_string(), text);
    }
    assert_eq!("floor".parse(), Ok(Smoothing::Floor(0.1)));
    assert_eq!("add-k".parse(), Ok(Smoothing::AddK(1.0)));
    for wrong in ["", "Exp", "exp[1]", "floor[-1]", "floor[inf]", "floor[NaN]", "add-k[", "add-k]", "floor[0.1]]"] {
        assert!(wrong.parse::<Smoothing>().is_err(), "{wrong}");
    }
}
