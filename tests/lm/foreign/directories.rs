//! Directories of architectures that our own decoder does not know: against it where they differ only in how matrices are
//! joined, and against plain loops where they differ in more.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use gradus::lm::Foreign;
use serde_json::{Value, json};

use super::build::{CONTEXT, Tiny, VOCAB, directory};
use super::oracle::{self, Layer, Shape, matrix, vector};
use super::{by_engine, by_foreign, farthest, in_any_order, prompts};

fn config(model_type: &str, more: &Value) -> Value {
    let mut config = json!({
        "model_type": model_type, "architectures": ["TestForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCAB,
        "max_position_embeddings": CONTEXT, "rope_theta": 20_000.0, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "tie_word_embeddings": false, "eos_token_id": [2, 3],
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

/// The tensors of a model by the names that the architecture gives them.
fn tensors(tiny: &Tiny, model_type: &str) -> HashMap<String, Tensor> {
    let top = [
        ("model.embed_tokens.weight", vec![96, 64]),
        ("model.norm.weight", vec![64]),
        ("lm_head.weight", vec![96, 64]),
    ];
    let mut all: HashMap<String, Tensor> = top.iter().map(|(n, shape)| ((*n).to_owned(), tiny.get(n, shape))).collect();
    for layer in 0..3 {
        let mut put = |name: &str, tensor: Tensor| all.insert(format!("model.layers.{layer}.{name}.weight"), tensor);
        let get = |name: &str, shape: &[usize]| tiny.of_layer(layer, &format!("{name}.weight"), shape);
        let attention =
            [("q", 64), ("k", 32), ("v", 32)].map(|(n, rows)| get(&format!("self_attn.{n}_proj"), &[rows, 64]));
        let (gate, up) = (get("mlp.gate_proj", &[96, 64]), get("mlp.up_proj", &[96, 64]));
        let [first, second] = if model_type == "olmo2" {
            put("self_attn.q_norm", get("self_attn.q_norm", &[64]));
            put("self_attn.k_norm", get("self_attn.k_norm", &[32]));
            ["post_attention_layernorm", "post_feedforward_layernorm"]
        } else {
            ["input_layernorm", "post_attention_layernorm"]
        };
        put(first, get(first, &[64]));
        put(second, get(second, &[64]));
        put("self_attn.o_proj", get("self_attn.o_proj", &[64, 64]));
        put("mlp.down_proj", get("mlp.down_proj", &[64, 96]));
        if model_type == "phi3" {
            put("self_attn.qkv_proj", Tensor::cat(&attention, 0).unwrap());
            put("mlp.gate_up_proj", Tensor::cat(&[gate, up], 0).unwrap());
        } else {
            for (name, tensor) in ["q", "k", "v"].into_iter().zip(attention) {
                put(&format!("self_attn.{name}_proj"), tensor);
            }
            put("mlp.gate_proj", gate);
            put("mlp.up_proj", up);
        }
    }
    all
}

fn load(config: &Value, tensors: &HashMap<String, Tensor>) -> Result<Foreign, String> {
    let dir = tempfile::tempdir().unwrap();
    directory(dir.path(), config, tensors);
    Foreign::load(dir.path(), &Device::Cpu, CONTEXT).map_err(|error| error.to_string())
}

/// By plain loops, for prompts that those are quick enough for.
fn by_loops(shape: &Shape, tensors: &HashMap<String, Tensor>, prompts: &[Vec<u32>]) -> Vec<Vec<f64>> {
    let layer = |index: usize| {
        let get = |name: &str| &tensors[&format!("model.layers.{index}.{name}.weight")];
        let norms = if shape.norms_behind {
            ["post_attention_layernorm", "post_feedforward_layernorm"]
        } else {
            ["input_layernorm", "post_attention_layernorm"]
        };
        let on_heads = ["self_attn.q_norm", "self_attn.k_norm"];
        let [q, k, v, o] = ["q", "k", "v", "o"].map(|name| matrix(get(&format!("self_attn.{name}_proj"))));
        let [gate, up, down] = ["gate", "up", "down"].map(|name| matrix(get(&format!("mlp.{name}_proj"))));
        let query_key_norms = shape.norms_behind.then(|| on_heads.map(|name| vector(get(name))));
        Layer { norms: norms.map(|name| vector(get(name))), query_key_norms, q, k, v, o, gate, up, down }
    };
    let layers: Vec<Layer> = (0..3).map(layer).collect();
    let ends = ["model.embed_tokens.weight", "lm_head.weight"].map(|name| matrix(&tensors[name]));
    let last = vector(&tensors["model.norm.weight"]);
    prompts.iter().map(|prompt| oracle::logprobs(shape, &layers, [&ends[0], &ends[1]], &last, prompt)).collect()
}

fn short_prompts() -> Vec<Vec<u32>> {
    prompts().into_iter().filter(|prompt| prompt.len() < 100).collect()
}

fn shape() -> Shape {
    let (heads, kv_heads, rope_theta, norm_eps) = (4, 2, 20_000.0, 1e-5);
    Shape { heads, kv_heads, rope_theta, norm_eps, norms_behind: false, without_rope: Vec::new() }
}

#[test]
fn the_plain_loops_agree_with_our_own_decoder() {
    let tiny = Tiny::new("llama", 20_000.0);
    let off = farthest(
        &by_loops(&shape(), &tensors(&tiny, "llama"), &short_prompts()),
        &by_engine(&mut tiny.engine(), &short_prompts()),
    );
    assert!(off < 1e-4, "{off}");
}

#[test]
fn phi3_says_what_our_own_decoder_says() {
    let tiny = Tiny::new("llama", 20_000.0);
    let mut foreign = load(&config("phi3", &json!({})), &tensors(&tiny, "phi3")).unwrap();
    let off = farthest(&by_foreign(&mut foreign, &prompts()).unwrap(), &by_engine(&mut tiny.engine(), &prompts()));
    assert!(off < 1e-3, "{off}");
    assert_eq!((foreign.ends(), foreign.vocab(), foreign.context()), (&[2, 3][..], 96, CONTEXT));
}

#[test]
fn olmo2_says_what_plain_loops_say() {
    let tiny = Tiny::new("llama", 20_000.0);
    let tensors = tensors(&tiny, "olmo2");
    let mut foreign = load(&config("olmo2", &json!({})), &tensors).unwrap();
    let wanted = by_loops(&Shape { norms_behind: true, ..shape() }, &tensors, &short_prompts());
    let off = farthest(&by_foreign(&mut foreign, &short_prompts()).unwrap(), &wanted);
    assert!(off < 1e-3, "{off}");
}

#[test]
fn smollm3_says_what_plain_loops_say() {
    let tiny = Tiny::new("llama", 20_000.0);
    let tensors = tensors(&tiny, "smollm3");
    let wanted = by_loops(&Shape { without_rope: vec![1], ..shape() }, &tensors, &short_prompts());
    let more = json!({"no_rope_layers": [1, 0, 1], "use_sliding_window": false, "sliding_window": null});
    let mut foreign = load(&config("smollm3", &more), &tensors).unwrap();
    let off = farthest(&by_foreign(&mut foreign, &short_prompts()).unwrap(), &wanted);
    assert!(off < 1e-3, "{off}");
    // The 5.x form of the same.
    let more = json!({
        "no_rope_layers": [1, 0, 1], "rope_theta": null,
        "rope_parameters": {"rope_type": "default", "rope_theta": 20_000.0},
    });
    let mut foreign = load(&config("smollm3", &more), &tensors).unwrap();
    assert!(farthest(&by_foreign(&mut foreign, &short_prompts()).unwrap(), &wanted) < 1e-3);
}

#[test]
fn a_score_does_not_depend_on_what_was_scored_before() {
    for model_type in ["phi3", "olmo2", "smollm3"] {
        let tiny = Tiny::new("llama", 20_000.0);
        in_any_order(&mut load(&config(model_type, &json!({})), &tensors(&tiny, model_type)).unwrap());
    }
}

#[test]
fn a_window_bounds_the_context() {
    let tiny = Tiny::new("llama", 20_000.0);
    let config = config("phi3", &json!({"sliding_window": 200}));
    assert_eq!(load(&config, &tensors(&tiny, "phi3")).unwrap().context(), 200);
}

#[test]
fn what_is_wrong_or_not_supported_is_named() {
    let tiny = Tiny::new("llama", 20_000.0);
    let whole = tensors(&tiny, "phi3");
    let refused = |more: Value| load(&config("phi3", &more), &whole).unwrap_err();
    for (more, parts) in [
        (json!({"model_type": "mamba"}), ["`model_type` is \"mamba\"", "smollm3"]),
        (json!({"rope_scaling": {"type": "longrope", "short_factor": [1.0]}}), ["`rope_scaling`", "longrope"]),
        (json!({"rope_parameters": {"rope_type": "yarn"}}), ["`rope_parameters`", "yarn"]),
        (json!({"architectures": ["Phi3ForSequenceClassification"]}), ["`architectures`", "Phi3ForSequence"]),
        (json!({"quantization_config": {"bits": 4}}), ["`quantization_config`", "bits"]),
        (json!({"clip_qkv": 8.0}), ["`clip_qkv`", "8.0"]),
        (json!({"head_dim": 32}), ["`head_dim`", "32"]),
        (json!({"num_attention_heads": 0}), ["`num_attention_heads`", "0"]),
        (json!({"num_key_value_heads": 3}), ["num_attention_heads", "3 key-value heads"]),
        (json!({"num_hidden_layers": 1_000_000}), ["`num_hidden_layers`", "1024"]),
        (json!({"num_hidden_layers": 4}), ["model.layers.3.", "is missing"]),
        (json!({"vocab_size": 100}), ["model.embed_tokens.weight", "[100, 64]"]),
        (json!({"rms_norm_eps": "small"}), ["`rms_norm_eps`", "small"]),
        (json!({"vocab_size": null}), ["`vocab_size`", "missing"]),
    ] {
        let message = refused(more);
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    }
    let mut less = whole.clone();
    less.remove("model.layers.1.self_attn.qkv_proj.weight");
    let message = load(&config("phi3", &json!({})), &less).unwrap_err();
    assert!(message.contains("model.layers.1.self_attn.qkv_proj.weight") && message.contains("missing"), "{message}");
}
