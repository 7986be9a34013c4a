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
    without(text, blank, |rest, part| rest.strip_suffix(part))
}

/// The same, where `strip` takes a part off the end.
fn without<'t>(text: &'t str, blank: &[&str], strip: impl Fn(&'t str, &str) -> Option<&'t str>) -> &'t str {
    let (mut kept, mut rest) = (text, text);
    loop {
        // Every token ends in one of these.
        let may_end = [">", "]", "["].iter().any(|end| strip(rest, end).is_some());
        let token = || TURN_ENDS.iter().chain(&PADDING).find_map(|token| strip(rest, token));
        if let Some(shorter) = may_end.then(token).flatten() {
            (kept, rest) = (shorter, shorter);
        } else if let Some(shorter) = blank.iter().find_map(|blank| strip(rest, blank)) {
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

/// The same of what stands between the quotes. A token may be written with escapes, as Python writes those of DeepSeek.
pub(crate) fn without_trailing_tokens(inside: &str) -> &str {
    /// Bytes of the longest token with all of it escaped, and of white space behind it.
    const NEAR: usize = 256;
    let kept = without_trailing(inside, &["\\n", "\\r", "\\t", " "]);
    let end = kept.get(kept.ceil_char_boundary(kept.len().saturating_sub(NEAR))..).unwrap_or_default();
    if !end.contains("\\u") {
        return kept;
    }
    let strip = |rest, part: &str| part.chars().rev().try_fold(rest, strip_character);
    without(kept, &["\n", "\r", "\t", " "], strip)
}

/// Raw JSON text without this character at its end, however it is written there.
fn strip_character(raw: &str, character: char) -> Option<&str> {
    // Behind an odd number of backslashes nothing begins: the last of them has it.
    let is_whole = |rest: &&str| (rest.len() - rest.trim_end_matches('\\').len()).is_multiple_of(2);
    let plain = || raw.strip_suffix(character).filter(is_whole);
    let short = || {
        let letter = match character {
            '\n' => 'n',
            '\r' => 'r',
            '\t' => 't',
            '/' => '/',
            _ => return None,
        };
        raw.strip_suffix(letter)?.strip_suffix('\\').filter(is_whole)
    };
    let number = || {
        let (rest, escape) = raw.split_at_checked(raw.len().checked_sub(6)?)?;
        let number = u32::from_str_radix(escape.strip_prefix("\\u")?, 16).ok()?;
        Some(rest).filter(|_| number == u32::from(character)).filter(is_whole)
    };
    // A digit may be the last of an escape's number.
    number().or_else(plain).or_else(short)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    /// As any client may write it: Python escapes what is not ASCII, others what HTML has a meaning for.
    fn spelt(text: &str, escaped: &[bool]) -> String {
        let unit = |unit: &mut u16| format!("\\u{unit:04x}");
        let escape = |c: char| c.encode_utf16(&mut [0; 2]).iter_mut().map(unit).collect::<String>();
        let plain = |c: char| json(&c.to_string()).trim_matches('"').to_owned();
        let chars = text.chars().zip(escaped.iter().cycle());
        chars.map(|(c, escaped)| if *escaped || c == '"' { escape(c) } else { plain(c) }).collect()
    }

    #[test]
    fn tokens_go_however_they_are_written() {
        for token in TURN_ENDS.iter().chain(&PADDING) {
            let text = format!("Paris{token}\n {token}\t");
            for escaped in [&[false][..], &[true], &[true, false], &[false, true, true]] {
                let raw = spelt(&text, escaped);
                let found: String = serde_json::from_str(&format!("\"{}\"", without_trailing_tokens(&raw))).unwrap();
                assert_eq!(found, "Paris", "{raw}");
            }
        }
        assert_eq!(without_trailing_tokens("a<pad\\u003E"), "a");
        assert_eq!(without_trailing_tokens(r"a\\\u003c\/s>"), r"a\\");
        for kept in ["a<pad\\\\u003e", "a\\u003e", "\\u4e16", "a<pad\\u003e\\u0062", "\\u00e9<pad", "u003e", "é\\u003"]
        {
            assert_eq!(without_trailing_tokens(kept), kept);
        }
    }

    proptest! {
        #[test]
        fn how_a_text_is_written_changes_nothing(
            text in r"([a-cé\u{1F600}\\u<>\[\]\n ]|<pad>|</s>|<｜▁pad▁｜>|\[PAD\]){0,8}",
            escaped in prop::collection::vec(any::<bool>(), 1..9),
        ) {
            let raw = spelt(&text, &escaped);
            let found: String = serde_json::from_str(&format!("\"{}\"", without_trailing_tokens(&raw))).unwrap();
            prop_assert_eq!(found, without_trailing(&text, &["\n", "\r", "\t", " "]));
        }
    }
}
