//! Decoding token by token: whole characters, and in the end the same text.

use super::*;

/// What each token brings, and the rest.
fn streamed(tokenizer: &Tokenizer, ids: &[u32], special: SpecialText) -> Vec<String> {
    let mut stream = tokenizer.stream(special);
    let mut parts: Vec<_> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    parts.push(stream.finish().unwrap());
    parts
}

#[test]
fn a_character_of_four_tokens_comes_with_the_last() {
    let tokenizer = &*BYTE_LEVEL;
    let ids = tokenizer.encode_trusted("é😀 Yes").unwrap();
    assert_eq!(streamed(tokenizer, &ids, SpecialText::Shown), ["", "é", "", "", "", "😀", " Yes", ""]);
    let fallback = &*METASPACE;
    let ids = fallback.encode_trusted("Yes ü No").unwrap();
    assert_eq!(streamed(fallback, &ids, SpecialText::Shown).concat(), "Yes ü No");
}

#[test]
fn an_unfinished_character_comes_out_at_the_end_as_broken() {
    let tokenizer = &*BYTE_LEVEL;
    let ids = tokenizer.encode_trusted("Yes😀").unwrap();
    assert_eq!(streamed(tokenizer, &ids[..3], SpecialText::Shown), ["Yes", "", "", "\u{FFFD}"]);
}

#[test]
fn broken_bytes_hold_nothing_back_for_long() {
    let tokenizer = &*BYTE_LEVEL;
    let lead = tokenizer.encode_trusted("😀").unwrap()[0];
    let mut ids = vec![lead; 1000];
    ids.extend(tokenizer.encode_trusted("😀No").unwrap());
    let parts = streamed(tokenizer, &ids, SpecialText::Shown);
    assert_eq!(parts[100], "\u{FFFD}");
    assert!(parts.concat().ends_with("\u{FFFD}😀No"), "and break no character that follows");
}

#[test]
fn special_tokens_are_shown_or_skipped() {
    let tokenizer = &*BYTE_LEVEL;
    let ids = tokenizer.encode_trusted("<think>Yes</think>No<|im_end|>").unwrap();
    let shown = streamed(tokenizer, &ids, SpecialText::Shown).concat();
    assert_eq!(shown, "<think>Yes</think>No<|im_end|>");
    assert_eq!(streamed(tokenizer, &ids, SpecialText::Skipped).concat(), "<think>Yes</think>No");
    assert_eq!(tokenizer.decode(&[9_999_999], SpecialText::Shown).unwrap(), "", "an id that there is not");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// A text of whole characters is streamed without a broken one, and is the same in the end.
    #[test]
    fn a_text_survives_streaming(text in "[a-z <>|é\u{1F600}\u{10FFFF}\n]{0,24}") {
        for tokenizer in [&*BYTE_LEVEL, &METASPACE] {
            let ids = tokenizer.encode_prompt(&prompt(&["", &text])).unwrap();
            let parts = streamed(tokenizer, &ids, SpecialText::Shown);
            prop_assert!(parts.iter().all(|part| !part.contains(char::REPLACEMENT_CHARACTER)));
            prop_assert_eq!(parts.concat(), tokenizer.decode(&ids, SpecialText::Shown).unwrap());
        }
    }

    /// Any tokens at all are streamed, with nothing left over.
    #[test]
    fn any_tokens_can_be_streamed(ids in prop::collection::vec(0_u32..300, 0..40)) {
        let tokenizer = &*BYTE_LEVEL;
        let ascii = |text: &str| text.chars().filter(char::is_ascii).collect::<String>();
        let parts = streamed(tokenizer, &ids, SpecialText::Shown).concat();
        prop_assert_eq!(ascii(&parts), ascii(&tokenizer.decode(&ids, SpecialText::Shown).unwrap()));
    }
}
