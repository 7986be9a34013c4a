//! From tokens back to text.

use super::*;

#[test]
fn special_tokens_are_shown_or_skipped() {
    let tokenizer = &*BYTE_LEVEL;
    let ids = tokenizer.encode_trusted("<think>Yes</think>No<|im_end|>").unwrap();
    assert_eq!(tokenizer.decode(&ids, SpecialText::Shown).unwrap(), "<think>Yes</think>No<|im_end|>");
    assert_eq!(tokenizer.decode(&ids, SpecialText::Skipped).unwrap(), "<think>Yes</think>No");
    assert_eq!(tokenizer.decode(&[9_999_999], SpecialText::Shown).unwrap(), "", "an id that there is not");
}

#[test]
fn an_unfinished_character_is_broken() {
    let ids = BYTE_LEVEL.encode_trusted("Yes😀").unwrap();
    assert_eq!(BYTE_LEVEL.decode(&ids[..3], SpecialText::Shown).unwrap(), "Yes\u{FFFD}");
    let ids = METASPACE.encode_trusted("Yes ü No").unwrap();
    assert_eq!(METASPACE.decode(&ids, SpecialText::Shown).unwrap(), "Yes ü No");
}
