//! Model directories that are not whole: the server does not start, and says which file, key or tensor is at fault.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::*;

/// A copy of the small judge, to be broken.
struct Model(tempfile::TempDir);

impl Model {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        for file in
            ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
        {
            std::fs::copy(package("tests/small_judge").join(file), home.path().join(file)).unwrap();
        }
        Self(home)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// Changes a JSON file.
    fn edit(&self, file: &str, edit: impl FnOnce(&mut serde_json::Map<String, Value>)) {
        let mut value: Value = serde_json::from_str(&std::fs::read_to_string(self.path(file)).unwrap()).unwrap();
        edit(value.as_object_mut().unwrap());
        std::fs::write(self.path(file), value.to_string()).unwrap();
    }

    fn remove(&self, file: &str) {
        std::fs::remove_file(self.path(file)).unwrap();
    }
}

/// Starts a server with this judge; it must fail, and say all of this.
#[track_caller]
fn assert_refused(model: &Path, says: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gradus"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GRADUS_")) {
        command.env_remove(name);
    }
    command.args(["serve", "--listen", "127.0.0.1:0", "--store", "none", "--judge"]).arg(model);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One byte of output is the address of a server that should not be.
    let mut first = [0];
    let serves = child.stdout.take().unwrap().read(&mut first).unwrap() > 0;
    if serves {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!serves, "it serves; log:\n{error}");
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(!error.contains("panicked"), "{error}");
    for part in [&["judge \"default\""], says].concat() {
        assert!(error.contains(part), "no {part:?} in {error:?}");
    }
}

#[test]
fn the_copy_itself_is_whole() {
    let model = Model::new();
    let server = Server::start(&["--judge", model.0.path().to_str().unwrap()]);
    assert_eq!(server.get("/readyz").ok()["status"], "ok");
}

#[test]
fn no_directory() {
    let model = Model::new();
    assert_refused(&model.path("elsewhere"), &["elsewhere"]);
}

#[test]
fn a_shard_that_the_index_names_and_that_is_not_there() {
    let model = Model::new();
    std::fs::rename(model.path("model.safetensors"), model.path("model-00001-of-00002.safetensors")).unwrap();
    let index = json!({"weight_map": {
        "model.embed_tokens.weight": "model-00001-of-00002.safetensors",
        "model.norm.weight": "model-00002-of-00002.safetensors",
    }});
    std::fs::write(model.path("model.safetensors.index.json"), index.to_string()).unwrap();
    assert_refused(model.0.path(), &["model-00002-of-00002.safetensors"]);
}

#[test]
fn no_weights_at_all() {
    let model = Model::new();
    model.remove("model.safetensors");
    assert_refused(model.0.path(), &["safetensors"]);
}

#[test]
fn a_tensor_of_another_shape() {
    let model = Model::new();
    model.edit("config.json", |config| _ = config.insert("intermediate_size".to_owned(), json!(512)));
    assert_refused(model.0.path(), &["model.safetensors", "model.layers.0.mlp", "[256, 128]", "[512, 128]"]);
}

#[test]
fn a_tensor_that_is_missing() {
    let model = Model::new();
    model.edit("config.json", |config| _ = config.insert("num_hidden_layers".to_owned(), json!(6)));
    assert_refused(model.0.path(), &["model.layers.5.", "is missing"]);
}

#[test]
fn weights_that_were_cut_off() {
    let model = Model::new();
    let whole = std::fs::read(model.path("model.safetensors")).unwrap();
    for length in [0, 4, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(model.path("model.safetensors"), &whole[..length]).unwrap();
        assert_refused(model.0.path(), &["model.safetensors"]);
    }
}

#[test]
fn weights_whose_header_is_noise() {
    let model = Model::new();
    for head in [[0xff; 8], [16, 0, 0, 0, 0, 0, 0, 0]] {
        let mut bytes = head.to_vec();
        bytes.extend([b'{'; 64]);
        std::fs::write(model.path("model.safetensors"), bytes).unwrap();
        assert_refused(model.0.path(), &["model.safetensors"]);
    }
}

#[test]
fn no_tokenizer() {
    let model = Model::new();
    model.remove("tokenizer.json");
    assert_refused(model.0.path(), &["tokenizer.json"]);
}

#[test]
fn a_tokenizer_that_is_none() {
    let model = Model::new();
    std::fs::write(model.path("tokenizer.json"), "{\"model\": 7}").unwrap();
    assert_refused(model.0.path(), &["tokenizer.json"]);
}

#[test]
fn a_tokenizer_without_a_chat_template() {
    let model = Model::new();
    model.edit("tokenizer_config.json", |config| _ = config.remove("chat_template"));
    assert_refused(model.0.path(), &["no chat template", "tokenizer_config.json", "chat_template.jinja"]);
}

#[test]
fn a_chat_template_that_is_broken() {
    let model = Model::new();
    std::fs::write(model.path("chat_template.jinja"), "{% for message in messages %}\n{{ message.content }\n").unwrap();
    assert_refused(model.0.path(), &["chat_template.jinja", "line 2"]);
}

#[test]
fn a_model_of_another_family() {
    let model = Model::new();
    model.edit("config.json", |config| _ = config.insert("model_type".to_owned(), json!("mamba")));
    assert_refused(model.0.path(), &["config.json", "`model_type`", "\"mamba\"", "qwen3"]);
}

#[test]
fn a_reward_model_of_steps() {
    let model = Model::new();
    let architecture = json!(["Qwen2ForProcessRewardModel"]);
    model.edit("config.json", |config| _ = config.insert("architectures".to_owned(), architecture));
    let says = ["config.json", "`architectures`", "a process reward model", "ForSequenceClassification"];
    assert_refused(model.0.path(), &says);
}

#[test]
fn a_configuration_without_a_key_that_is_needed() {
    for key in [
        "model_type",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
        "max_position_embeddings",
    ] {
        let model = Model::new();
        model.edit("config.json", |config| _ = config.remove(key).unwrap());
        assert_refused(model.0.path(), &["config.json", &format!("`{key}`"), "missing"]);
    }
}

#[test]
fn a_configuration_whose_numbers_cannot_be() {
    for (key, value) in [
        ("num_attention_heads", json!(0)),
        ("num_key_value_heads", json!(3)),
        ("hidden_size", json!("128")),
        ("head_dim", json!(31)),
        ("vocab_size", json!(-1)),
        ("layer_types", json!(["full_attention"])),
        ("hidden_act", json!("relu")),
        ("quantization_config", json!({"bits": 4})),
    ] {
        let model = Model::new();
        model.edit("config.json", |config| _ = config.insert(key.to_owned(), value));
        assert_refused(model.0.path(), &["config.json", &format!("`{key}`")]);
    }
}
