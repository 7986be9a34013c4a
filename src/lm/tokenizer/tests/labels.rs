//! The token that a label is, behind different ends of a prompt.

use super::*;

fn label(tokenizer: &Tokenizer, label: &str, prompt_end: &str) -> String {
    tokenizer.id_to_token(tokenizer.label_token(label, prompt_end).unwrap()).unwrap()
}

#[test]
fn a_label_begins_with_a_space_behind_a_word_only() {
    for (prompt_end, wanted) in [
        ("", "Yes"),
        ("<|im_start|>", "Yes"),
        ("<|im_end|>\n<|im_start|>assistant\n", "Yes"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", "Yes"),
        ("Verdict:", "ĠYes"),
        ("Verdict", "ĠYes"),
        ("Verdict: ", "Yes"),
    ] {
        assert_eq!(label(&BYTE_LEVEL, "Yes", prompt_end), wanted, "{prompt_end:?}");
    }
    assert_eq!(label(&METASPACE, "Yes", "<s>[INST]x[/INST]"), "Yes");
    assert_eq!(label(&METASPACE, "Yes", ""), "▁Yes");
    assert_eq!(label(&METASPACE, "Yes", "[/INST]Verdict:"), "▁Yes");
}

#[test]
fn where_one_form_is_several_tokens_the_other_is_taken() {
    assert_eq!(label(&BYTE_LEVEL, "answer", "So:"), "Ġanswer");
    assert_eq!(label(&BYTE_LEVEL, "end", "So:"), "end", "there is no token for it with a space");
    assert_eq!(label(&METASPACE, "right", "\n"), "▁right", "nor for this one without");
}

#[test]
fn only_the_end_of_a_long_prompt_matters() {
    let long = format!("{}Verdict:", "é".repeat(100_000));
    assert_eq!(label(&BYTE_LEVEL, "No", &long), "ĠNo");
}

#[test]
fn a_label_of_several_tokens_is_refused_with_its_tokens() {
    let error = BYTE_LEVEL.label_token("Mismatch", "<|im_start|>assistant\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the label \"Mismatch\" is 8 tokens of tokenizer.json: \"M\" \"i\" \"s\" \"m\" \"a\" \"t\" \"c\" \"h\"; use a shorter \
         label such as Yes, No, A or 1, or the mode `generate`"
    );
    assert!(BYTE_LEVEL.label_token("", "x").is_err());
    assert!(BYTE_LEVEL.label_token("<|im_end|>", "x").is_err(), "a command is no label");
}

#[test]
fn two_labels_need_two_tokens() {
    let tokenizer = &*BYTE_LEVEL;
    let labels = |list: &[&str]| list.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>();
    let wanted = ["Yes", "No", "Match"].map(|label| tokenizer.token_to_id(label).unwrap());
    assert_eq!(tokenizer.label_tokens(&labels(&["Yes", "No", "Match"]), "\n").unwrap(), wanted);
    let same = tokenizer.label_tokens(&labels(&["Yes", "No", " Yes"]), "Verdict:").unwrap_err();
    assert!(matches!(same, TokenizerError::SameToken { .. }), "{same}");
}
