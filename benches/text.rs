//! The text metrics at several lengths. In: an answer that shares most of its words with three references; out: time per
//! answer.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gradus::text::{Bleu, LaBleu, Tokenizer, exact_match, f1};

const WORDS: [&str; 16] = [
    "the",
    "river",
    "Vltava,",
    "which",
    "flows",
    "through",
    "Prague",
    "(Praha)",
    "is",
    "430.2",
    "km",
    "long",
    "and",
    "a",
    "tributary",
    "of",
];

fn sentence(words: usize, step: usize) -> String {
    let word = |index: usize| WORDS[(index * index + index / 7 + (index % 9) * step) % WORDS.len()];
    (0..words).map(word).collect::<Vec<_>>().join(" ")
}

fn metrics(criterion: &mut Criterion) {
    for words in [1, 5, 25, 100, 1000] {
        let answer = sentence(words, 0);
        let references: Vec<String> = (0..3).map(|step| sentence(words + step, step)).collect();
        let mut group = criterion.benchmark_group(format!("text/{words}"));
        group.throughput(Throughput::Elements(words as u64));
        let (hypothesis, references) = (black_box(&*answer), black_box(&*references));
        let (bleu, la_bleu) = (Bleu::default(), LaBleu::default());
        let chinese = Bleu { tokenizer: Tokenizer::Zh, ..Bleu::default() };
        // Not the reference itself, where the first comparison ends it.
        let others = &references[1..];
        group.bench_function("exact_match", |bencher| bencher.iter(|| exact_match(hypothesis, others)));
        group.bench_function("f1", |bencher| bencher.iter(|| f1(hypothesis, references)));
        group.bench_function("bleu", |bencher| bencher.iter(|| bleu.sentence(hypothesis, references)));
        group.bench_function("bleu_zh", |bencher| bencher.iter(|| chinese.sentence(hypothesis, references)));
        group.bench_function("la_bleu", |bencher| bencher.iter(|| la_bleu.similarity(hypothesis, references)));
        group.finish();
    }
}

criterion_group!(benches, metrics);
criterion_main!(benches);
