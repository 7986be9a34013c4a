//! The laws of the text metrics. In: an answer and references; out: a panic if a score leaves [0, 1], depends on the
//! order of the references, or if the metrics contradict each other.

use gradus::text::{Bleu, LaBleu, Smoothing, Squad, Tokenizer, exact_match, f1, normalize, squad};

const MAX_REFERENCES: usize = 8;

/// The first line is the answer, the others are references.
pub fn lines(choice: usize, text: &str) {
    let mut lines = text.split('\n');
    let answer = lines.next().unwrap_or_default();
    let references: Vec<&str> = lines.take(MAX_REFERENCES).collect();
    let reversed: Vec<&str> = references.iter().rev().copied().collect();

    let Squad { exact_match: exact, f1: overlap } = squad(answer, &references);
    assert_eq!(exact, exact_match(answer, &references), "exact match is the same alone");
    assert_eq!(overlap.to_bits(), f1(answer, &references).to_bits(), "f1 is the same alone");
    assert_eq!(normalize(&normalize(answer)), normalize(answer), "what is normal stays as it is");
    unit("f1", overlap);
    same("f1", overlap, f1(answer, &reversed));

    for tokenizer in Tokenizer::ALL {
        let tokens = tokenizer.tokenize(answer);
        assert!(tokens.iter().all(|token| !token.is_empty()), "{tokenizer}: no token is empty");
        let bleu = bleu(choice, tokenizer);
        let score = bleu.sentence(answer, &references);
        unit("bleu", score);
        same("bleu", score, bleu.sentence(answer, &reversed));

        let la_bleu = LaBleu { tokenizer, lowercase: choice & 1 == 1, ..LaBleu::default() };
        let similarity = la_bleu.similarity(answer, &references);
        unit("la_bleu's similarity", similarity);
        same("la_bleu", similarity, la_bleu.similarity(answer, &reversed));
        let score = la_bleu.score(answer, &references);
        unit("la_bleu", score);
        assert!(exact == (score.to_bits() == 1.0_f64.to_bits()), "only an exact match earns 1");
        assert!(similarity >= la_bleu.similarity(answer, references.get(..1).unwrap_or_default()), "the best counts");
        // 13a drops `<skipped>`, which may be there only once the answer is in lower case.
        let lowered = if choice & 1 == 1 { answer.to_lowercase() } else { answer.to_owned() };
        if !tokenizer.tokenize(&lowered).is_empty() {
            let itself = la_bleu.similarity(answer, &[answer]);
            assert!((itself - 1.0).abs() < 1e-9, "an answer is like itself, not {itself}");
        }
    }
}

fn bleu(choice: usize, tokenizer: Tokenizer) -> Bleu {
    let smoothings = [Smoothing::Exp, Smoothing::None, Smoothing::Floor(0.1), Smoothing::AddK(1.0)];
    Bleu {
        tokenizer,
        lowercase: choice & 1 == 1,
        smoothing: smoothings[(choice >> 1) % smoothings.len()],
        effective_order: choice & 8 == 8,
        ..Bleu::default()
    }
}

fn unit(what: &str, score: f64) {
    assert!((0.0..=1.0).contains(&score), "{what} is {score}");
}

fn same(what: &str, one: f64, other: f64) {
    assert_eq!(one.to_bits(), other.to_bits(), "{what} does not depend on the order of the references");
}
