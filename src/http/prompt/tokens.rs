//! Tokens that a chat template or a batch puts around a text. In: a text, or raw JSON of one. Out: the text without them.

use std::borrow::Cow;

use crate::trajectory::TURN_ENDS;

/// Tokens that fill up a batch, or end a whole answer; what trainers decode with them still on.
const PADDING: [&str; 8] =
    ["<|return|>", "<|finetune_right_pad_id|>", "<|vision_pad|>", "<|pad|>", "<｜▁pad▁｜>", "[PAD]", "<pad>", "<unk>"];

/// Tokens that begin a text.
pub(super) const LEADING_TOKENS: [&str; 8] = [
    "<|begin_of_text|>",
    "<|startoftext|>",
    "<｜begin▁of▁sentence｜>",
    "<|endoftext|>",
    "[gMASK]",
    "<sop>",
    "<bos>",
    "<s>",
];

/// The text without the end and padding tokens that it ends with, and the white space between them. `blank` says what is
/// white space: in raw JSON that is `\n` in two characters.
pub(super) fn without_trailing<'t>(text: &'t str, blank: &[&str]) -> &'t str {
    let (mut kept, mut rest) = (text, text);
    loop {
        // Every token ends in one of these.
        let may_end = rest.ends_with(['>', ']']);
        let token = || TURN_ENDS.iter().chain(&PADDING).find_map(|token| rest.strip_suffix(token));
        if let Some(shorter) = may_end.then(token).flatten() {
            (kept, rest) = (shorter, shorter);
        } else if let Some(shorter) = blank.iter().find_map(|blank| rest.strip_suffix(blank)) {
            rest = shorter;
        } else {
            return kept;
        }
    }
}

/// A raw JSON string without the end and padding tokens at its end; anything else as it is.
pub(crate) fn strip_trailing_tokens(raw: &str) -> Cow<'_, str> {
    let Some(inside) = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) else { return Cow::Borrowed(raw) };
    let kept = without_trailing_tokens(inside);
    if kept.len() == inside.len() { Cow::Borrowed(raw) } else { Cow::Owned(format!("\"{kept}\"")) }
}

/// The same of what stands between the quotes.
pub(crate) fn without_trailing_tokens(inside: &str) -> &str {
    without_trailing(inside, &["\\n", "\\r", "\\t", " "])
}

#[cfg(test)]
mod tests {
    use super::super::tests::json;
    use super::*;

    #[test]
    fn end_and_padding_tokens_go() {
        let strip = |text: &str| serde_json::from_str::<String>(&strip_trailing_tokens(&json(text))).unwrap();
        assert_eq!(strip("Paris<|im_end|>\n<|endoftext|><|endoftext|>"), "Paris");
        assert_eq!(strip("Paris</s><pad><pad>"), "Paris");
        assert_eq!(strip("Paris\n"), "Paris\n");
        assert_eq!(strip("a\\n"), "a\\n");
        assert_eq!(strip("<|im_end|>"), "");
        assert_eq!(strip_trailing_tokens("7"), "7");
    }
}
