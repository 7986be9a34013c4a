//! JSON strings: where one stops standing for itself, and what its escapes stand for. In: a text and a place in it; out: the
//! string that starts there, borrowed where it has no escapes. Whatever `serde_json` refuses gives a `None` that says nothing.

use std::borrow::Cow;

/// Bytes beyond the first escape that a decoded string gets room for at once.
const ROOM_BYTES: usize = 512;

/// Reads the string whose first byte, behind the quote, is at `start`; also gives the place behind its closing quote.
pub(super) fn decode(text: &str, start: usize) -> Option<(Cow<'_, str>, usize)> {
    let bytes = text.as_bytes();
    let mut found = special(bytes, start)?;
    if bytes.get(found) == Some(&b'"') {
        return Some((Cow::Borrowed(text.get(start..found)?), found + 1));
    }
    let mut decoded = String::with_capacity((found - start + ROOM_BYTES).min(text.len() - start));
    let mut plain = start;
    loop {
        decoded.push_str(text.get(plain..found)?);
        match bytes.get(found)? {
            b'"' => return Some((Cow::Owned(decoded), found + 1)),
            b'\\' => plain = escape(text, found + 1, &mut decoded)?,
            _ => return None,
        }
        found = special(bytes, plain)?;
    }
}

/// Adds what the escape stands for whose letter is at `at`; the place behind it.
fn escape(text: &str, at: usize, decoded: &mut String) -> Option<usize> {
    decoded.push(match text.as_bytes().get(at)? {
        plain @ (b'"' | b'\\' | b'/') => char::from(*plain),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let first = unit(text, at + 1)?;
            if let Some(character) = char::from_u32(first) {
                decoded.push(character);
                return Some(at + 5);
            }
            // Half of a pair: the other half must follow.
            let second = text.get(at + 5..at + 7).filter(|next| *next == "\\u").and_then(|_| unit(text, at + 7))?;
            let pair = [first, second].map(|unit| u16::try_from(unit).unwrap_or(0));
            decoded.push(char::decode_utf16(pair).next()?.ok()?);
            return Some(at + 11);
        }
        _ => return None,
    });
    Some(at + 1)
}

/// The number that four hexadecimal digits are.
fn unit(text: &str, at: usize) -> Option<u32> {
    let digits = text.as_bytes().get(at..at + 4)?;
    digits.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
}

/// The first byte from here that does not stand for itself in a string: a quote, a backslash or a control character. Looks at
/// eight at a time; sixteen, in a vector, were no faster.
pub(super) fn special(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let (words, tail) = rest.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        if let Some(found) = special_of(*word) {
            return Some(from + index * 8 + found);
        }
    }
    if tail.is_empty() {
        return None;
    }
    if let Some(last) = rest.last_chunk::<8>() {
        // Of these eight the first ones were looked at before, and found to be none.
        return special_of(*last).map(|found| bytes.len() - 8 + found);
    }
    let found = tail.iter().position(|byte| matches!(byte, ..0x20 | b'"' | b'\\'))?;
    Some(from + found)
}

/// The first of eight bytes that does not stand for itself.
fn special_of(word: [u8; 8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ONES << 7;
    let word = u64::from_le_bytes(word);
    // A byte's high bit is set where it is below 0x21 with its second bit flipped, as a quote and control characters are and a
    // blank is not, or zero once a backslash is taken from it; and, above the lowest such byte, where it need not.
    let quote_or_control = (word ^ (ONES * 0x02)).wrapping_sub(ONES * 0x21);
    let backslash = (word ^ (ONES * 0x5c)).wrapping_sub(ONES);
    let found = (quote_or_control | backslash) & !word & HIGH;
    (found != 0).then(|| found.trailing_zeros() as usize / 8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_byte_is_told_apart_at_every_place() {
        for byte in 0..=u8::MAX {
            for place in 0..35 {
                let mut bytes = [b' '; 35];
                bytes[place] = byte;
                let expected = matches!(byte, 0..0x20 | b'"' | b'\\').then_some(place);
                assert_eq!(special(&bytes, 0), expected, "{byte} at {place}");
                bytes[34] = b'"';
                assert_eq!(special(&bytes, 0), expected.or(Some(34)), "{byte} at {place}, and a quote");
            }
        }
    }

    proptest! {
        #[test]
        fn a_string_is_read_as_serde_reads_it(
            text in r#"([a-zä€]{0,12}|\\n|\\"|\\u00e4|\\u00E4|\\ud83d\\ude00|\\ud83d\\u0041|\\ud83d|\\ude00|\\u12|\\u+123|\\/|\\b|\\x|\x01){0,6}"#,
        ) {
            let quoted = format!("\"{text}\" ");
            let read = decode(&quoted, 1);
            let end = quoted.len() - 1;
            let expected = serde_json::from_str::<String>(&quoted).ok().map(|text| (Cow::Owned(text), end));
            // What ends before the end is another string than the one that was written.
            prop_assert_eq!(read.filter(|(_, at)| *at == end || expected.is_some()), expected);
        }
    }
}
