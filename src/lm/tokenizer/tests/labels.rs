//! The tokens that a label is, behind different ends of a prompt.

use super::*;

/// Of each label, its tokens with a bar between them.
fn label_tokens(tokenizer: &Tokenizer, labels: &[&str], prompt_end: &str) -> Result<Vec<String>, TokenizerError> {
    let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
    let ids = tokenizer.label_tokens(&labels, prompt_end)?;
    let written = |ids: Vec<u32>| ids.into_iter().map(|id| tokenizer.id_to_token(id).unwrap()).collect::<Vec<_>>();
    Ok(ids.into_iter().map(|ids| written(ids).join("|")).collect())
}

fn label(tokenizer: &Tokenizer, label: &str, prompt_end: &str) -> String {
    label_tokens(tokenizer, &[label], prompt_end).unwrap().remove(0)
}

#[test]
fn a_label_begins_with_a_space_behind_a_word_and_counts_in_the_other_form_too() {
    for (prompt_end, wanted) in [
        ("", "Yes|ĠYes"),
        ("<|im_start|>", "Yes|ĠYes"),
        ("<|im_end|>\n<|im_start|>assistant\n", "Yes|ĠYes"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", "Yes|ĠYes"),
        ("Verdict:", "ĠYes|Yes"),
        ("Verdict", "ĠYes|Yes"),
        ("Verdict: ", "Yes|ĠYes"),
    ] {
        assert_eq!(label(&BYTE_LEVEL, "Yes", prompt_end), wanted, "{prompt_end:?}");
    }
    assert_eq!(label(&METASPACE, "Yes", "<s>[INST]x[/INST]"), "Yes|▁Yes");
    assert_eq!(label(&METASPACE, "Yes", "[/INST]Verdict:"), "▁Yes|Yes");
    assert_eq!(label(&METASPACE, "Yes", ""), "▁Yes", "both forms are the same token, which counts once");
}

#[test]
fn where_one_form_is_several_tokens_the_other_is_taken() {
    assert_eq!(label(&BYTE_LEVEL, "end", "So:"), "end", "there is no token for it with a space");
    assert_eq!(label(&METASPACE, "right", "\n"), "▁right", "nor for this one without");
}

#[test]
fn all_labels_are_taken_in_the_same_forms() {
    let tokenizer = &*BYTE_LEVEL;
    assert_eq!(label_tokens(tokenizer, &["Yes", "answer"], "So:").unwrap(), ["ĠYes|Yes", "Ġanswer|answer"]);
    assert_eq!(label_tokens(tokenizer, &["Yes", "end"], "So:").unwrap(), ["Yes", "end"], "one has none with a space");
    assert_eq!(label_tokens(&METASPACE, &["Yes", "right"], "\n").unwrap(), ["▁Yes", "▁right"], "nor one without");
    let error = label_tokens(&METASPACE, &["Yes", "right", "A"], "So:").unwrap_err();
    assert_eq!(
        error.to_string(),
        "of the labels, \"A\" are several tokens of tokenizer.json behind a space and \"right\" without one, and all are \
         measured alike; use labels such as Yes, No, A or 1, or the mode `generate`"
    );
}

#[test]
fn only_the_end_of_a_long_prompt_matters() {
    let long = format!("{}Verdict:", "é".repeat(100_000));
    assert_eq!(label(&BYTE_LEVEL, "No", &long), "ĠNo|No");
}

#[test]
fn a_label_of_several_tokens_is_refused_with_its_tokens() {
    let error = label_tokens(&BYTE_LEVEL, &["Yes", "Mismatch"], "<|im_start|>assistant\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the label \"Mismatch\" is 8 tokens of tokenizer.json: \"M\" \"i\" \"s\" \"m\" \"a\" \"t\" \"c\" \"h\"; use a shorter \
         label such as Yes, No, A or 1, or the mode `generate`"
    );
    assert!(label_tokens(&BYTE_LEVEL, &[""], "x").is_err());
    assert!(label_tokens(&BYTE_LEVEL, &["<|im_end|>"], "x").is_err(), "a command is no label");
}

#[test]
fn two_labels_need_two_tokens() {
    assert_eq!(
        label_tokens(&BYTE_LEVEL, &["Yes", "No", "Match"], "\n").unwrap(),
        ["Yes|ĠYes", "No|ĠNo", "Match|ĠMatch"]
    );
    let same = label_tokens(&WORD_LEVEL, &["hello", "world", "Hello"], "").unwrap_err();
    assert!(matches!(same, TokenizerError::SameToken { .. }), "{same}");
}
