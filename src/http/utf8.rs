//! Text whose bytes come in pieces. In: pieces, cut anywhere; out: the text, or where it ceases to be UTF-8.

use simdutf8::compat::from_utf8;

/// A text whose bytes come in pieces, each checked while it is in the cache.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    text: String,
    /// The first bytes of a character that the last piece broke off in; fewer than four.
    broken: Vec<u8>,
}

impl Utf8 {
    /// A text of nothing yet, in this room.
    pub(super) fn begun_in(room: String) -> Self {
        Self { text: room, broken: Vec::new() }
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.text.len() + self.broken.len()
    }

    /// Adds a piece; fails with the place of the first byte that is not UTF-8.
    pub(super) fn push(&mut self, mut piece: &[u8]) -> Result<(), usize> {
        while let (false, Some((first, rest))) = (self.broken.is_empty(), piece.split_first()) {
            self.broken.push(*first);
            piece = rest;
            match from_utf8(&self.broken) {
                Ok(character) => {
                    self.text.push_str(character);
                    self.broken.clear();
                }
                Err(error) if error.error_len().is_some() => return Err(self.text.len()),
                Err(_) => {}
            }
        }
        match from_utf8(piece) {
            Ok(piece) => self.text.push_str(piece),
            Err(error) => {
                let (whole, rest) = piece.split_at(error.valid_up_to());
                self.text.push_str(from_utf8(whole).map_err(|_| self.text.len())?);
                if error.error_len().is_some() {
                    return Err(self.text.len());
                }
                self.broken.extend_from_slice(rest);
            }
        }
        Ok(())
    }

    /// The text; fails where it ends in the middle of a character.
    pub(super) fn finish(self) -> Result<String, usize> {
        if self.broken.is_empty() { Ok(self.text) } else { Err(self.text.len()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(bytes: &[u8], pieces: &[usize]) -> Result<String, usize> {
        let (mut text, mut rest) = (Utf8::default(), bytes);
        for size in pieces {
            let (piece, after) = rest.split_at(rest.len().min(*size));
            text.push(piece)?;
            rest = after;
        }
        text.push(rest)?;
        text.finish()
    }

    proptest! {
        #[test]
        fn a_text_in_pieces_is_the_text(
            text in "[a-zäß€\u{1f600}]{0,40}", pieces in prop::collection::vec(0_usize..9, 0..30),
            bad in prop::option::of((any::<prop::sample::Index>(), any::<u8>())), cut in 0_usize..4,
        ) {
            let mut bytes = text.into_bytes();
            bytes.truncate(bytes.len().saturating_sub(cut));
            if let (Some((at, byte)), false) = (bad, bytes.is_empty()) {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let expected = String::from_utf8(bytes.clone()).map_err(|error| error.utf8_error().valid_up_to());
            prop_assert_eq!(whole(&bytes, &pieces), expected);
        }
    }
}
