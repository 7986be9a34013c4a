//! What Python calls white space, a word character, punctuation and a symbol, for text formulas that Python defined.
//! In: a character; out: yes or no. Knows nothing of tokens. Numbers are `char::is_numeric`, the same set in both.

use super::unicode_tables::{ALPHABETIC_MARK, PUNCTUATION, SYMBOL};

/// White space of `str.split()` and `str.strip()`: Unicode's, and the four ASCII separators U+001C to U+001F.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `\w` of Python's `re`: letters, numbers and the underscore, but not the vowel signs that Unicode calls alphabetic.
pub(super) fn is_word(c: char) -> bool {
    c == '_' || (c.is_alphanumeric() && (c.is_ascii() || !contains(&ALPHABETIC_MARK, c)))
}

/// `\p{P}`.
pub(super) fn is_punctuation(c: char) -> bool {
    contains(&PUNCTUATION, c)
}

/// `\p{S}`.
pub(super) fn is_symbol(c: char) -> bool {
    contains(&SYMBOL, c)
}

fn contains(boundaries: &[u32], c: char) -> bool {
    boundaries.partition_point(|&boundary| boundary <= u32::from(c)) % 2 == 1
}
