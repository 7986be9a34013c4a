//! Reading text step by step. In: a text and a byte offset on a character boundary; out: the pieces at it. Knows no
//! format. Every step takes time linear in what it passes.

use memchr::{memchr2, memchr3};

/// A place in a text; always on a character boundary and never beyond the end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'t> {
    pub(super) text: &'t str,
    pub(super) at: usize,
}

impl<'t> Cursor<'t> {
    pub(super) fn new(text: &'t str, at: usize) -> Self {
        Self { text, at: text.floor_char_boundary(at) }
    }

    pub(super) fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    /// Passes JSON whitespace.
    pub(super) fn skip_blanks(&mut self) {
        self.at = skip_blanks(self.text, self.at);
    }

    /// Passes `literal` if it stands here.
    pub(super) fn eat(&mut self, literal: &str) -> bool {
        let here = self.rest().starts_with(literal);
        if here {
            self.at += literal.len();
        }
        here
    }

    /// Passes one byte if it stands here; only for ASCII.
    pub(super) fn eat_byte(&mut self, byte: u8) -> bool {
        let here = self.peek() == Some(byte);
        if here {
            self.at += 1;
        }
        here
    }

    /// Whether the text ends here or inside `literal`.
    pub(super) fn cut(&self, literal: &str) -> bool {
        literal.starts_with(self.rest())
    }

    /// The text up to the first of two ASCII bytes, which is not passed; `None` (and no move) if neither comes.
    pub(super) fn until2(&mut self, one: u8, two: u8) -> Option<&'t str> {
        let length = memchr2(one, two, self.rest().as_bytes())?;
        self.take(length)
    }

    /// As [`Self::until2`] for three bytes.
    pub(super) fn until3(&mut self, one: u8, two: u8, three: u8) -> Option<&'t str> {
        let length = memchr3(one, two, three, self.rest().as_bytes())?;
        self.take(length)
    }

    /// What stands between the quote here and the next one, which is passed; `None` (and no move) if that does not come. Without
    /// lines nothing behind the end of the line is looked at, not even where it is escaped: the next line may ask again.
    pub(super) fn in_quotes(&mut self, has_lines: bool) -> Option<&'t str> {
        let (quote, rest) = (self.peek()?, self.rest());
        let mut at = 1;
        loop {
            let ahead = rest.as_bytes().get(at..)?;
            at += if has_lines { memchr2(quote, b'\\', ahead) } else { memchr3(quote, b'\\', b'\n', ahead) }?;
            match rest.as_bytes().get(at..)? {
                [b'\n', ..] => return None,
                [b'\\', b'\n', ..] if !has_lines => return None,
                [b'\\', ..] => at += 2,
                _ => break,
            }
        }
        self.at += at + 1;
        rest.get(1..at)
    }

    fn take(&mut self, length: usize) -> Option<&'t str> {
        let piece = self.rest().get(..length)?;
        self.at += length;
        Some(piece)
    }
}

/// The first offset from `at` on that holds no JSON whitespace.
pub(super) fn skip_blanks(text: &str, at: usize) -> usize {
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
}
