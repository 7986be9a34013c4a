//! Where a model directory may keep its template, and what is said when it does not.

use std::fs;

use super::*;

/// A model directory with these files.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn rendered(files: &[(&str, &str)]) -> Result<String, String> {
    let template = ChatTemplate::load(directory(files).path()).map_err(|error| error.to_string())?;
    let message = ChatMessage { role: "user", text: "hi", untrusted: &[] };
    Ok(template.render(&[message], &end(ANSWER)).unwrap().text)
}

const CONFIG: &str = r#"{"chat_template": "{{ bos_token }}config {{ messages[0].content }}", "bos_token": {"content": "<b>"}, "eos_token": "</b>"}"#;
const NAMED: &str = r#"{"chat_template": [{"name": "default", "template": "plain {{ messages[0].content }}"}, {"name": "tool_use", "template": "tools"}]}"#;

#[test]
fn a_template_file_goes_before_the_configuration() {
    assert_eq!(rendered(&[("tokenizer_config.json", CONFIG)]).unwrap(), "<b>config hi");
    assert_eq!(
        rendered(&[
            ("tokenizer_config.json", CONFIG),
            ("chat_template.jinja", "{{ eos_token }}file {{ messages[0].content }}")
        ])
        .unwrap(),
        "</b>file hi"
    );
    assert_eq!(
        rendered(&[("chat_template.json", r#"{"chat_template": "json {{ messages[0].content }}"}"#)]).unwrap(),
        "json hi"
    );
    let map = r#"{"bos_token": "old", "eos_token": "<e>"}"#;
    let files = [("tokenizer_config.json", CONFIG), ("special_tokens_map.json", map)];
    assert_eq!(rendered(&files).unwrap(), "<b>config hi");
}

#[test]
fn of_several_templates_the_default_one_is_taken() {
    assert_eq!(rendered(&[("tokenizer_config.json", NAMED)]).unwrap(), "plain hi");
    let others = NAMED.replace("default", "rag");
    let none = rendered(&[("tokenizer_config.json", &others)]).unwrap_err();
    assert!(none.ends_with("no chat template is named `default`; there is `rag`, `tool_use`"), "{none}");
}

#[test]
fn a_directory_without_a_template_says_what_was_looked_at_and_what_to_do() {
    let missing = rendered(&[("tokenizer_config.json", "{}")]).unwrap_err();
    for part in ["chat_template.jinja", "tokenizer_config.json", "chat_template.json", "put the template"] {
        assert!(missing.contains(part), "{missing}");
    }
    assert!(rendered(&[]).unwrap_err().starts_with("no chat template"));
    let null = [("tokenizer_config.json", r#"{"chat_template": null}"#)];
    assert!(rendered(&null).unwrap_err().starts_with("no chat template"));
}

#[test]
fn a_broken_file_is_named() {
    let cases = [
        ("tokenizer_config.json", "{", "it is no JSON object"),
        ("tokenizer_config.json", "[]", "it is no JSON object"),
        ("tokenizer_config.json", r#"{"chat_template": 3}"#, "must be a string or a list"),
        (
            "tokenizer_config.json",
            r#"{"chat_template": [{"name": "default"}]}"#,
            "needs the strings `name` and `template`",
        ),
        ("chat_template.jinja", "{% for %}", "line 1, column "),
    ];
    for (name, content, said) in cases {
        let error = rendered(&[(name, content)]).unwrap_err();
        assert!(error.contains(&format!("{name}: ")) && error.contains(said), "{error}");
    }
    let directory = directory(&[]);
    fs::write(directory.path().join("chat_template.jinja"), b"\xff").unwrap();
    let error = ChatTemplate::load(directory.path()).unwrap_err().to_string();
    assert!(error.contains("chat_template.jinja: cannot be read"), "{error}");
}
