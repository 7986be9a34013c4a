//! Texts that quote hostile input, cut to a length: whoever sends much must not get it back once per call or per item. In:
//! a message or a JSON Pointer of any length. Out: one that a person can still read.

use std::fmt::{self, Write};

/// Longest message, in bytes, give or take a character.
pub const MAX_MESSAGE_BYTES: usize = 300;

/// Longest pointer that is told whole, in bytes. Of a longer one both ends are told, with `…` between them.
pub const MAX_POINTER_BYTES: usize = 256;

/// Bytes of a cut pointer's end, which names the field; the rest of its room is its beginning's.
const POINTER_END_BYTES: usize = 96;

/// Writes `message` up to [`MAX_MESSAGE_BYTES`]; the rest is never formatted.
pub(in crate::toolcall) fn bounded(message: &impl fmt::Display) -> String {
    let mut writer = Bounded(String::new());
    // The only error is the writer's own, when it is full.
    let _ = write!(writer, "{message}");
    writer.0
}

/// A pointer with the middle left out where it is longer than [`MAX_POINTER_BYTES`].
pub fn bounded_pointer(pointer: &str) -> String {
    const MARK: &str = "…";
    if pointer.len() <= MAX_POINTER_BYTES {
        return pointer.to_owned();
    }
    let beginning = pointer.floor_char_boundary(MAX_POINTER_BYTES - MARK.len() - POINTER_END_BYTES);
    let end = pointer.ceil_char_boundary(pointer.len() - POINTER_END_BYTES);
    [&pointer[..beginning], MARK, &pointer[end..]].concat()
}

struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MAX_MESSAGE_BYTES.saturating_sub(self.0.len());
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        self.0.push('…');
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_pointer_keeps_both_ends() {
        let short = "/a".repeat(MAX_POINTER_BYTES / 2);
        assert_eq!(bounded_pointer(&short), short);
        for filler in ["z", "ä", "€", "\u{1f600}"] {
            let long = format!("/properties/{}/type", filler.repeat(100_000));
            let cut = bounded_pointer(&long);
            assert!(cut.len() <= MAX_POINTER_BYTES && cut.len() > MAX_POINTER_BYTES - 8, "{}", cut.len());
            assert!(cut.starts_with("/properties/") && cut.ends_with("/type") && cut.contains('…'));
        }
    }

    #[test]
    fn a_long_message_keeps_its_beginning() {
        assert_eq!(bounded(&"short"), "short");
        let cut = bounded(&format_args!("{}{}", "ä".repeat(200), "b"));
        assert!(cut.len() <= MAX_MESSAGE_BYTES + '…'.len_utf8() && cut.ends_with('…'));
    }
}
