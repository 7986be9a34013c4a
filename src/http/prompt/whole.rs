//! A whole conversation as one templated text: where its prompt ends. In: a raw JSON string and the prompts that are known.
//! Out: the prompt's turns and key, and where the response begins.

use super::{KnownPrompts, PromptKey, PromptTurn, Search, segments, turn};

/// A whole templated conversation, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Divided {
    /// The turns before the response.
    pub prompt: Vec<PromptTurn>,
    /// Where the response begins, in bytes.
    pub response: usize,
    /// The prompt's key.
    pub key: PromptKey,
    /// Whether more text could not change that.
    pub settled: bool,
}

/// Finds where in a whole templated conversation the prompt ends. `None` where no marker says who speaks.
fn divide(text: &str, known: &dyn KnownPrompts) -> Option<Divided> {
    let (mut search, mut before) = (Search::among(known), Vec::new());
    for segment in segments(text) {
        let (at, turn) = (segment.1, turn(segment));
        if search.arrive(turn.role, (before.len(), at)) {
            break;
        }
        if !turn.text.is_empty() {
            search.pass(&turn);
            before.push(turn);
        }
    }
    let (key, (turns, response)) = search.found?;
    before.truncate(turns);
    Some(Divided { prompt: before, response, key, settled: search.settled })
}

/// Bytes of raw JSON that are first looked at for the prompt's end; four times as many where they are not enough.
const FIRST_LOOK: usize = 512;

/// [`divide`] of a raw JSON string, of which no more is decoded than it takes. `response` is a byte of the raw text inside
/// the quotes. `Err` where it is no text.
///
/// # Errors
/// What the decoder says.
pub(crate) fn divide_raw(raw: &str, known: &dyn KnownPrompts) -> Result<Option<Divided>, serde_json::Error> {
    let inside = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')).unwrap_or_default();
    let mut look = FIRST_LOOK;
    loop {
        let part = cut(inside, look);
        let text = match part {
            Some(part) => serde_json::from_str::<String>(&["\"", part, "\""].concat()),
            None => serde_json::from_str::<String>(raw),
        }?;
        let divided = divide(&text, known);
        // A response that begins where the look ends is none: the marker before it may be cut in two.
        let holds = |divided: &Divided| divided.settled && divided.response < text.len();
        if part.is_none() || divided.as_ref().is_some_and(holds) {
            return Ok(divided.map(|found| Divided { response: raw_offset(inside, found.response), ..found }));
        }
        look *= 4;
    }
}

/// About so many first bytes of raw JSON text, without half an escape at the end; `None` where that is not less than all.
fn cut(inside: &str, bytes: usize) -> Option<&str> {
    /// Longest escape: a pair of surrogates.
    const LONGEST: usize = 12;
    if bytes >= inside.len() {
        return None;
    }
    let mut end = inside.floor_char_boundary(bytes);
    // Where the last bytes have no backslash, none of them belongs to an escape.
    while let Some(found) = memchr::memrchr(b'\\', inside.as_bytes().get(end.saturating_sub(LONGEST)..end)?) {
        end = end.saturating_sub(LONGEST) + found;
        if end == 0 {
            return None;
        }
    }
    inside.get(..end).filter(|part| !part.is_empty())
}

/// Where in a raw JSON string (without its quotes) the text's byte at `decoded` stands.
fn raw_offset(raw: &str, decoded: usize) -> usize {
    let bytes = raw.as_bytes();
    let (mut at, mut passed) = (0, 0);
    while passed < decoded {
        let plain = memchr::memchr(b'\\', bytes.get(at..).unwrap_or_default()).unwrap_or(usize::MAX);
        if plain >= decoded - passed {
            return at + (decoded - passed);
        }
        (at, passed) = (at + plain, passed + plain);
        let unit = |at: usize| raw.get(at + 2..at + 6).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let (length, made) = match (bytes.get(at + 1), unit(at)) {
            (Some(b'u'), Some(0..=0x7F)) => (6, 1),
            (Some(b'u'), Some(0x80..=0x7FF)) => (6, 2),
            (Some(b'u'), Some(0xD800..=0xDBFF)) => (12, 4),
            (Some(b'u'), _) => (6, 3),
            _ => (2, 1),
        };
        (at, passed) = (at + length, passed + made);
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::key_of;
    use super::super::tests::{CHATML, LLAMA, json};
    use super::*;

    /// Knows these.
    struct Known(Vec<PromptKey>);

    impl KnownPrompts for Known {
        fn knows(&self, key: PromptKey) -> bool {
            self.0.contains(&key)
        }

        fn most_turns(&self) -> usize {
            if self.0.is_empty() { 0 } else { 9 }
        }
    }

    const NOBODY: Known = Known(Vec::new());

    proptest! {
        #[test]
        fn a_byte_of_the_text_is_found_in_its_raw_json(before in any::<String>(), after in any::<String>(), ascii in any::<bool>()) {
            let text = format!("{before}{after}");
            let mut raw = json(&text);
            if ascii {
                // As Python writes it by default.
                let unit = |unit: &mut u16| format!("\\u{unit:04x}");
                let units = |c: char| c.encode_utf16(&mut [0; 2]).iter_mut().map(unit).collect::<Vec<_>>().concat();
                raw = raw.chars().map(|c| if c.is_ascii() { c.to_string() } else { units(c) }).collect();
            }
            let offset = raw_offset(&raw[1..raw.len() - 1], before.len());
            let found: String = serde_json::from_str(&format!("\"{}", &raw[1 + offset..])).unwrap();
            prop_assert_eq!(found, after);
        }
    }

    #[test]
    fn a_whole_conversation_is_divided_where_the_assistant_begins() {
        let text = format!("{CHATML}<answer>Paris</answer><|im_end|>");
        let found = divide(&text, &NOBODY).unwrap();
        assert_eq!(&text[found.response..], "<answer>Paris</answer><|im_end|>");
        assert_eq!(Some(found.key), key_of(&json(CHATML)));
        assert_eq!(divide("no marker at all", &NOBODY), None);
        let text = format!("{LLAMA}Paris");
        let found = divide(&text, &NOBODY).unwrap();
        assert_eq!(text[found.response..].trim(), "Paris");
        assert_eq!(Some(found.key), key_of(&json(LLAMA)));
    }

    #[test]
    fn a_long_text_is_decoded_as_far_as_it_takes() {
        let text = format!("{CHATML}{}\n\"\u{e9}\"", "word \u{1F600}\n".repeat(4000));
        for raw in [json(&text), json(&text).replace('\u{1F600}', "\\ud83d\\ude00")] {
            let whole = divide(&text, &NOBODY).unwrap();
            let found = divide_raw(&raw, &NOBODY).unwrap().unwrap();
            assert_eq!((&found.prompt, found.key), (&whole.prompt, whole.key));
            let rest: String = serde_json::from_str(&format!("\"{}", &raw[1 + found.response..])).unwrap();
            assert_eq!(rest, text[whole.response..]);
        }
        let long_prompt = format!("<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\nyes", "q\n".repeat(9000));
        let raw = json(&long_prompt);
        assert!(raw[1 + divide_raw(&raw, &NOBODY).unwrap().unwrap().response..].starts_with("yes"));
        assert!(divide_raw("7", &NOBODY).is_err());
        assert_eq!(divide_raw(&json(&"no markers\n".repeat(999)), &NOBODY).unwrap(), None);
    }

    #[test]
    fn the_longest_known_prompt_wins() {
        let longer = format!("{CHATML}Paris<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n");
        let text = format!("{longer}Yes<|im_end|>");
        assert!(text[divide(&text, &NOBODY).unwrap().response..].starts_with("Paris"));
        let wanted = key_of(&json(&longer)).unwrap();
        assert_eq!(&text[divide(&text, &Known(vec![wanted])).unwrap().response..], "Yes<|im_end|>");
    }
}
