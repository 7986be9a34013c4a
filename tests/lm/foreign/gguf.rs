//! GGUF files give what our own decoder gives on the same weights.

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;
use gradus::lm::{Foreign, LmError};

use super::build::{CONTEXT, Tiny};
use super::{by_engine, by_foreign, farthest, in_any_order, prompts};

fn load(tiny: &Tiny, architecture: &str, dtype: GgmlDType) -> Foreign {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny.gguf(architecture).write(&dir.path().join("model.gguf"), dtype);
    Foreign::load(&path, &Device::Cpu, CONTEXT).unwrap()
}

fn tiny(architecture: &str) -> Tiny {
    // Phi 3 is a Llama whose matrices are joined.
    let family = if architecture == "phi3" { "llama" } else { architecture };
    Tiny::new(family, if architecture == "phi3" { 1e4 } else { 5e5 })
}

#[test]
fn in_float32_a_file_says_the_same_as_our_own_decoder() {
    for architecture in ["llama", "qwen2", "qwen3", "phi3"] {
        let tiny = tiny(architecture);
        let mut foreign = load(&tiny, architecture, GgmlDType::F32);
        let found = by_foreign(&mut foreign, &prompts()).unwrap();
        let off = farthest(&found, &by_engine(&mut tiny.engine(), &prompts()));
        assert!(off < 1e-3, "{architecture}: {off}");
    }
}

#[test]
fn in_eight_bits_it_says_nearly_the_same() {
    for architecture in ["llama", "qwen2", "qwen3", "phi3"] {
        let tiny = tiny(architecture);
        let short = &prompts()[..3];
        let found = by_foreign(&mut load(&tiny, architecture, GgmlDType::Q8_0), short).unwrap();
        let off = farthest(&found, &by_engine(&mut tiny.engine(), short));
        assert!(off > 1e-6 && off < 0.2, "{architecture}: {off}");
    }
}

#[test]
fn a_score_does_not_depend_on_what_was_scored_before() {
    for architecture in ["llama", "qwen2", "qwen3", "phi3"] {
        let tiny = tiny(architecture);
        let there = in_any_order(&mut load(&tiny, architecture, GgmlDType::F32));
        let fresh = by_foreign(&mut load(&tiny, architecture, GgmlDType::F32), &prompts()).unwrap();
        assert!(there == fresh, "{architecture}");
    }
}

#[test]
fn a_file_without_a_head_uses_its_embedding() {
    let tiny = tiny("qwen2");
    let dir = tempfile::tempdir().unwrap();
    let whole = tiny.gguf("qwen2");
    let embedding = whole.tensors.iter().find(|(name, _)| name == "token_embd.weight").unwrap().1.clone();
    let mut same = whole.clone().without("output.weight");
    same.tensors.push(("output.weight".to_owned(), embedding));
    let score = |content: &super::build::Content, name: &str| {
        let path = content.write(&dir.path().join(name), GgmlDType::F32);
        by_foreign(&mut Foreign::load(&path, &Device::Cpu, CONTEXT).unwrap(), &prompts()).unwrap()
    };
    assert!(score(&whole.without("output.weight"), "tied.gguf") == score(&same, "same.gguf"));
}

#[test]
fn a_prompt_beyond_the_context_fails_alone_and_says_the_limit() {
    let mut foreign = load(&tiny("qwen2"), "qwen2", GgmlDType::F32);
    let (long, short, unknown) = (vec![1; CONTEXT + 1], vec![1; 3], vec![1, 96]);
    let labels = [1, 2];
    let mut found = foreign.label_logprobs(&[(&long, &labels), (&short, &labels), (&unknown, &labels), (&[], &labels)]);
    assert!(matches!(found[0], Err(LmError::TooLong { tokens: 513, limit: 512, .. })), "{:?}", found[0]);
    assert!(found.remove(1).is_ok());
    assert!(found.remove(1).unwrap_err().to_string().contains("token 96 is beyond the vocabulary of 96"));
    assert!(found.remove(1).unwrap_err().to_string().contains("empty prompt"));
}

#[test]
fn a_sliding_window_bounds_the_context() {
    let dir = tempfile::tempdir().unwrap();
    let content = tiny("llama").gguf("llama").set("llama.attention.sliding_window", Value::U32(100));
    let path = content.write(&dir.path().join("model.gguf"), GgmlDType::F32);
    assert_eq!(Foreign::load(&path, &Device::Cpu, CONTEXT).unwrap().context(), 100);
    assert_eq!(Foreign::load(&path, &Device::Cpu, 30).unwrap().context(), 30);
}

#[test]
fn another_weight_is_another_hash() {
    let (one, other) = (load(&tiny("qwen2"), "qwen2", GgmlDType::F32), load(&tiny("qwen2"), "qwen2", GgmlDType::Q8_0));
    assert_ne!(one.hash(), other.hash());
    assert_eq!(one.hash(), load(&tiny("qwen2"), "qwen2", GgmlDType::F32).hash());
}
