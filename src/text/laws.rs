//! Properties that hold for every answer and every list of references.
#![allow(clippy::float_cmp, reason = "tests; the numbers compared are rounded or exact")]

use proptest::prelude::*;

use super::*;

/// Segments with much of what the tokenizers care about.
fn segment() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-d]{1,2}".boxed(),
        2 => prop::sample::select(vec![
            "the", "Paris", "1", "2.5", ".", ",", "-", "'", "&amp;", "<skipped>", "-\n",
            "猫", "。", "Σ", "ß", "\u{1f}", "…",
        ]).prop_map(str::to_owned).boxed(),
        1 => any::<char>().prop_map(String::from).boxed(),
    ];
    prop::collection::vec((piece, prop::sample::select(vec!["", " ", " "])), 0..12)
        .prop_map(|pieces| pieces.into_iter().map(|(piece, blank)| piece + blank).collect())
}

fn tokenizer() -> impl Strategy<Value = Tokenizer> {
    prop::sample::select(Tokenizer::ALL.to_vec())
}

fn la_bleu() -> impl Strategy<Value = LaBleu> {
    let slack = prop_oneof![0.0..3.0, Just(f64::INFINITY), any::<f64>()];
    let share = || prop_oneof![4 => 0.0..=1.0, 1 => any::<f64>()];
    (tokenizer(), any::<bool>(), slack, share(), share()).prop_map(|(tokenizer, lowercase, slack, floor, cap)| LaBleu {
        tokenizer,
        lowercase,
        slack,
        floor,
        cap,
    })
}

fn bleu() -> impl Strategy<Value = Bleu> {
    let smoothing = prop_oneof![
        Just(Smoothing::None),
        Just(Smoothing::Exp),
        any::<f64>().prop_map(Smoothing::Floor),
        any::<f64>().prop_map(Smoothing::AddK),
    ];
    (tokenizer(), any::<bool>(), smoothing, any::<bool>(), any::<u8>()).prop_map(
        |(tokenizer, lowercase, smoothing, effective_order, max_ngram_order)| Bleu {
            tokenizer,
            lowercase,
            smoothing,
            effective_order,
            max_ngram_order,
        },
    )
}

/// Words that every tokenizer but `char` leaves whole, and `SQuAD` too.
fn words(count: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = String> {
    prop::collection::vec("[b-z]{2,5}".prop_filter("an article", |word| word != "the"), count)
        .prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn repeated_references_change_nothing(
        answer in segment(), references in prop::collection::vec(segment(), 0..4), bleu in bleu(), la_bleu in la_bleu()
    ) {
        let repeated: Vec<&String> = references.iter().flat_map(|reference| [reference; 3]).collect();
        prop_assert_eq!(squad(&answer, &references), squad(&answer, &repeated));
        prop_assert_eq!(exact_match(&answer, &references), exact_match(&answer, &repeated));
        prop_assert_eq!(bleu.sentence(&answer, &references).to_bits(), bleu.sentence(&answer, &repeated).to_bits());
        prop_assert_eq!(la_bleu.score(&answer, &references).to_bits(), la_bleu.score(&answer, &repeated).to_bits());
    }

    #[test]
    fn every_score_is_in_the_unit_interval(
        answer in segment(), references in prop::collection::vec(segment(), 0..4), bleu in bleu(), la_bleu in la_bleu()
    ) {
        let scores = [
            f1(&answer, &references),
            bleu.sentence(&answer, &references),
            la_bleu.similarity(&answer, &references),
            la_bleu.score(&answer, &references),
        ];
        prop_assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)), "{scores:?}");
    }

    #[test]
    fn no_text_panics(answer in any::<String>(), reference in any::<String>(), bleu in bleu()) {
        normalize(&answer);
        squad(&answer, &[&reference, &answer]);
        bleu.sentence(&answer, &[&reference, &answer]);
        for tokenizer in Tokenizer::ALL {
            tokenizer.tokenize(&answer);
        }
    }

    #[test]
    fn a_right_answer_scores_1(
        answer in words(1..=6), la_bleu in la_bleu(), others in prop::collection::vec(segment(), 0..3)
    ) {
        let references: Vec<&str> = others.iter().map(String::as_str).chain([answer.as_str()]).collect();
        prop_assert!((la_bleu.similarity(&answer, &references) - 1.0).abs() < 1e-12);
        prop_assert!((la_bleu.score(&answer, &references) - 1.0).abs() < 1e-12);
        prop_assert!((f1(&answer, &references) - 1.0).abs() < 1e-12);
        prop_assert!(exact_match(&answer, &references));
    }

    #[test]
    fn stuffing_scores_below_the_plain_answer(
        references in prop::collection::vec(words(1..=5), 1..5), times in 2..6_usize, la_bleu in la_bleu()
    ) {
        let repeated = vec![references[0].as_str(); times].join(" ");
        let plain = la_bleu.similarity(&references[0], &references[..1]);
        prop_assert!(la_bleu.similarity(&repeated, &references[..1]) < plain);
        if references.len() > 1 {
            let stuffed = references.join(" ");
            for reference in &references {
                prop_assert!(la_bleu.similarity(&stuffed, &references) < la_bleu.similarity(reference, &references));
            }
        }
    }

    #[test]
    fn a_smaller_slack_never_raises_the_score(
        answer in segment(), reference in segment(), slack in 0.0..3.0, more in 0.0..3.0
    ) {
        let tight = LaBleu { slack, ..LaBleu::default() };
        let loose = LaBleu { slack: slack + more, ..tight };
        prop_assert!(tight.similarity(&answer, &[&reference]) <= loose.similarity(&answer, &[&reference]));
    }

    #[test]
    fn la_bleu_without_guard_is_bleu_at_the_order_of_the_reference(
        answer in segment(), references in prop::collection::vec(segment(), 1..4), tokenizer in tokenizer(),
        lowercase in any::<bool>()
    ) {
        let la_bleu = LaBleu { tokenizer, lowercase, slack: f64::INFINITY, ..LaBleu::default() };
        let expected = references.iter().map(|reference| {
            let cased = if lowercase { reference.to_lowercase() } else { reference.clone() };
            let order = u8::try_from(tokenizer.tokenize(&cased).len().min(4)).unwrap();
            let bleu = Bleu { tokenizer, lowercase, max_ngram_order: order, ..Bleu::default() };
            bleu.sentence(&answer, &[reference])
        });
        let expected = expected.fold(0.0, f64::max);
        prop_assert!((la_bleu.similarity(&answer, &references) - expected).abs() < 1e-12);
    }

    #[test]
    fn the_order_of_the_references_changes_nothing(
        answer in segment(), (references, shuffled) in prop::collection::vec(segment(), 1..5)
            .prop_flat_map(|references| (Just(references.clone()), Just(references).prop_shuffle())),
        bleu in bleu(), la_bleu in la_bleu()
    ) {
        prop_assert_eq!(squad(&answer, &references), squad(&answer, &shuffled));
        prop_assert_eq!(bleu.sentence(&answer, &references).to_bits(), bleu.sentence(&answer, &shuffled).to_bits());
        prop_assert_eq!(la_bleu.score(&answer, &references).to_bits(), la_bleu.score(&answer, &shuffled).to_bits());
    }

    #[test]
    fn tokens_are_never_empty_nor_hold_white_space(text in segment(), tokenizer in tokenizer()) {
        for token in tokenizer.tokenize(&text) {
            prop_assert!(!token.is_empty() && !token.contains(unicode::is_space), "{token:?}");
        }
    }

    #[test]
    fn normalising_twice_changes_nothing(text in "[a-zA-Z .,'-]{0,40}") {
        let once = normalize(&text);
        prop_assert_eq!(normalize(&once), once);
    }
}

/// Counts by the definition, for the table to agree with.
fn clipped_by_definition(hypothesis: &[String], references: &[Vec<String>], n: usize) -> usize {
    let count = |tokens: &[String], ngram: &[String]| tokens.windows(n).filter(|window| *window == ngram).count();
    let mut distinct: Vec<&[String]> = hypothesis.windows(n).collect();
    distinct.sort_unstable();
    distinct.dedup();
    let largest = |ngram: &[String]| references.iter().map(|tokens| count(tokens, ngram)).max().unwrap_or(0);
    distinct.into_iter().map(|ngram| count(hypothesis, ngram).min(largest(ngram))).sum()
}

proptest! {
    #[test]
    fn matches_equal_the_definition(
        hypothesis in prop::collection::vec("[a-c]{1,1}", 0..40),
        references in prop::collection::vec(prop::collection::vec("[a-d]{1,1}", 0..30), 0..4)
    ) {
        let mut overlap = overlap::Overlap::new(names::Seed::random());
        for clip in [overlap::Clip::LargestReference, overlap::Clip::EachReference] {
            overlap.clear();
            for reference in &references {
                for token in reference {
                    overlap.push_reference_token(token.as_bytes());
                }
                overlap.end_reference();
            }
            for token in &hypothesis {
                overlap.push_hypothesis_token(token.as_bytes());
            }
            overlap.count(5, clip);
            let each: Vec<&[Vec<String>]> = match clip {
                overlap::Clip::LargestReference => vec![&references],
                overlap::Clip::EachReference => references.chunks(1).collect(),
            };
            prop_assert_eq!(overlap.matches().len(), each.len() * 5);
            for (row, references) in overlap.matches().chunks(5).zip(each) {
                for (n, &matched) in (1..).zip(row) {
                    prop_assert_eq!(matched as usize, clipped_by_definition(&hypothesis, references, n));
                }
            }
        }
    }
}

#[test]
fn many_references_and_a_long_answer_take_linear_time() {
    let references: Vec<String> = (0..1000).map(|i| format!("the {i} of {} and the {}", i % 7, i * i)).collect();
    let answer = "the 1 of 1 and the 1 the the and ".repeat(20_000);
    let score = LaBleu { slack: f64::INFINITY, ..LaBleu::default() }.similarity(&answer, &references);
    assert!(score > 0.0 && score < 1e-3, "{score}");
    assert!(Bleu::default().sentence(&answer, &references) > 0.0);
    assert!(f1(&answer, &references) > 0.0);
}

#[test]
fn what_an_answer_is_worth() {
    let metric = LaBleu::default();
    let score = |answer: &str, references: &[&str]| (metric.score(answer, references) * 1000.0).round() / 1000.0;
    // Exact, and exact but for what `SQuAD` ignores.
    assert_eq!(score("Paris", &["Paris"]), 1.0);
    assert_eq!(score("the paris.", &["Paris"]), 1.0);
    // Near: at most `cap`.
    assert_eq!(score("Paris Paris", &["Paris"]), 0.25);
    assert_eq!(score("Paris France", &["Paris"]), 0.25);
    assert_eq!(score("It is Paris", &["Paris"]), 0.101);
    // Wrong or absent.
    assert_eq!(score("Lyon", &["Paris"]), 0.0);
    assert_eq!(score("", &["Paris"]), 0.0);
    assert_eq!(score("Paris", &[""]), 0.0);
    assert_eq!(score("Paris", &[]), 0.0);
}

#[test]
fn signatures() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        Bleu::default().signature(2),
        format!("nrefs:2|case:mixed|eff:yes|tok:13a|smooth:exp|version:gradus-{version}|equals:sacrebleu-2.6.0")
    );
    assert_eq!(
        LaBleu { slack: f64::INFINITY, ..LaBleu::default() }.signature(),
        format!(
            "la_bleu|nrefs:max|case:mixed|eff:yes|tok:13a|smooth:exp|order:min(4,ref)|slack:inf|floor:0|cap:0.5\
             |version:gradus-{version}|equals:sacrebleu-2.6.0"
        )
    );
}

#[test]
fn tokenizers_are_read_as_they_are_printed() {
    for tokenizer in Tokenizer::ALL {
        assert_eq!(tokenizer.to_string().parse(), Ok(tokenizer));
    }
    let error = "13A".parse::<Tokenizer>().unwrap_err();
    assert_eq!(error.to_string(), "unknown tokenizer `13A`: use none, 13a, intl, zh or char");
}
