//! What `config.json` says, and what is refused in it.

use serde_json::json;

use super::*;

/// A small model with some more keys.
fn read(more: &Value) -> Result<ModelConfig, LmError> {
    let mut config = json!({
        "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 2, "max_position_embeddings": 131_072, "vocab_size": 16, "rope_theta": 10_000.0,
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ModelConfig::from_json(&config.to_string())
}

#[test]
fn a_window_is_for_the_layers_from_its_first_on_where_it_is_used() {
    let windows = |used: bool, first: Value| {
        let keys = json!({"sliding_window": 8, "use_sliding_window": used, "max_window_layers": first});
        read(&keys).map(|config| config.windows)
    };
    for first in [json!(0), json!(3), json!(4), json!(null)] {
        assert_eq!(windows(false, first).unwrap(), [None; 4]);
    }
    assert_eq!(windows(true, json!(0)).unwrap(), [Some(8); 4]);
    assert_eq!(windows(true, json!(3)).unwrap(), [None, None, None, Some(8)]);
    let error = windows(true, json!(-1)).unwrap_err().to_string();
    assert!(error.contains("max_window_layers"), "{error}");
    let unnamed = json!({"sliding_window": 8, "use_sliding_window": true, "num_hidden_layers": 29});
    assert_eq!(read(&unnamed).unwrap().windows[27..], [None, Some(8)]);
}

#[test]
fn what_would_change_the_numbers_and_is_not_done_is_refused_by_name() {
    for keys in [
        json!({"partial_rotary_factor": 0.5}),
        json!({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}),
    ] {
        let error = read(&keys).unwrap_err().to_string();
        assert!(error.contains("`partial_rotary_factor` is not 1"), "{error}");
    }
    let yarn = |key: &str, value: Value| {
        let mut rope = json!({"rope_type": "yarn", "factor": 4.0});
        rope[key] = value;
        read(&json!({"rope_scaling": rope})).map(|config| config.rope_scaling)
    };
    for key in ["mscale", "mscale_all_dim", "truncate"] {
        let error = yarn(key, json!("x")).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}` is \"x\"")), "{error}");
    }
    assert!(yarn("truncate", json!(false)).is_ok());
}
