//! A file that is broken, or that would give other numbers than it should, is refused by name.

use std::path::Path;

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;
use gradus::lm::{Foreign, Gguf};

use super::build::{CONTEXT, Content, Tiny};

fn refused(path: &Path) -> String {
    Foreign::load(path, &Device::Cpu, CONTEXT).unwrap_err().to_string()
}

fn refused_content(content: &Content) -> String {
    let dir = tempfile::tempdir().unwrap();
    refused(&content.write(&dir.path().join("model.gguf"), GgmlDType::F32))
}

fn llama() -> Content {
    Tiny::new("llama", 1e4).gguf("llama")
}

#[track_caller]
fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = llama().write(&dir.path().join("model.gguf"), GgmlDType::F32);
    let whole = std::fs::read(&path).unwrap();
    // At the magic number, in the options, in the list of tensors, and in the data.
    for keep in [0, 3, 20, 300, 1500, whole.len() / 2, whole.len() - 33] {
        std::fs::write(&path, &whole[..keep]).unwrap();
        let message = refused(&path);
        says(&message, &["model.gguf"]);
        assert!(message.contains("cut off") || message.contains("not copied whole"), "{keep}: {message}");
    }
}

#[test]
fn a_file_that_is_no_gguf_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, b"<!DOCTYPE html><html>not found</html>").unwrap();
    says(&refused(&path), &["model.gguf", "is no GGUF file"]);
    says(&refused(&dir.path().join("none.gguf")), &["none.gguf", "No such file"]);
}

#[test]
fn an_unknown_architecture_is_named() {
    let unknown = llama().set("general.architecture", Value::String("mamba".to_owned()));
    says(&refused_content(&unknown), &["model.gguf", "general.architecture", "\"mamba\"", "qwen3"]);
    says(&refused_content(&llama().without("general.architecture")), &["general.architecture", "missing"]);
}

#[test]
fn a_missing_or_misshapen_tensor_is_named_with_its_shape() {
    let message = refused_content(&llama().without("blk.1.attn_k.weight"));
    says(&message, &["model.gguf", "blk.1.attn_k.weight", "is missing", "[32, 64]"]);
    says(&refused_content(&llama().without("token_embd.weight")), &["token_embd.weight", "is missing"]);
    let message = refused_content(&llama().with("blk.2.ffn_down.weight", &[64, 64]));
    says(&message, &["blk.2.ffn_down.weight", "[64, 64]", "[64, 96]"]);
}

#[test]
fn what_the_models_code_would_pass_over_is_refused() {
    let with = |name: &str, shape: &[usize]| refused_content(&llama().with(name, shape));
    says(&with("rope_freqs.weight", &[8]), &["rope_freqs.weight", "passes over", "safetensors"]);
    says(&with("blk.0.attn_q.bias", &[64]), &["blk.0.attn_q.bias"]);
    let set = |key: &str, value: Value| refused_content(&llama().set(key, value));
    let yarn = Value::String("yarn".to_owned());
    says(&set("llama.rope.scaling.type", yarn), &["`llama.rope.scaling.type` is \"yarn\""]);
    says(&set("llama.rope.scaling.factor", Value::F32(4.0)), &["llama.rope.scaling.factor", "4"]);
    says(&set("llama.rope.dimension_count", Value::U32(8)), &["llama.rope.dimension_count", "8"]);
    says(&set("llama.expert_count", Value::U32(8)), &["llama.expert_count"]);
    says(&set("split.count", Value::U16(3)), &["one part of several", "llama-gguf-split"]);
    let phi3 = Tiny::new("llama", 25e4).gguf("phi3");
    says(&refused_content(&phi3), &["phi3.rope.freq_base", "250000"]);
}

#[test]
fn options_that_cannot_be_are_named() {
    let set = |key: &str, value: u32| refused_content(&llama().set(&format!("llama.{key}"), Value::U32(value)));
    for key in ["attention.head_count", "attention.head_count_kv", "embedding_length", "block_count", "context_length"]
    {
        says(&set(key, 0), &[key, "whole number"]);
    }
    says(&set("attention.head_count_kv", 3), &["head_count_kv", "does not divide 4"]);
    says(&set("block_count", 100_000), &["block_count", "1024"]);
    says(&set("block_count", 4), &["blk.3.", "is missing"]);
    says(&set("embedding_length", u32::MAX), &["embedding_length"]);
    says(&refused_content(&llama().without("llama.block_count")), &["llama.block_count", "missing"]);
    let wrong = llama().set("llama.block_count", Value::String("three".to_owned()));
    says(&refused_content(&wrong), &["llama.block_count", "whole number"]);
    // What the library itself panics over.
    says(&refused_content(&llama().set("general.alignment", Value::U32(0))), &["model.gguf", "gave up"]);
}

#[test]
fn a_directory_means_its_only_file() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Gguf::find(dir.path()).unwrap(), None);
    let one = llama().write(&dir.path().join("a.gguf"), GgmlDType::F32);
    assert_eq!(Gguf::find(dir.path()).unwrap(), Some(one.clone()));
    assert!(Foreign::load(dir.path(), &Device::Cpu, CONTEXT).is_ok());
    std::fs::copy(&one, dir.path().join("b.gguf")).unwrap();
    says(&refused(dir.path()), &["holds 2 GGUF files"]);
    std::fs::write(dir.path().join("model.safetensors"), b"").unwrap();
    assert_eq!(Gguf::find(dir.path()).unwrap(), None);
}
