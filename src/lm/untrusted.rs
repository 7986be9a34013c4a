//! Text in which somebody else's words are told apart from ours, and the way to bring it through a template.
//!
//! In: trusted text, untrusted text. Out: [`Rendered`], whose byte ranges say which is which; the tokenizer reads special
//! tokens in the trusted part only. A template never meets untrusted text: it sees one private-use character in its place
//! ([`Placeholders`]), which cannot be cut, split or compared, and the text is put back once the template is done, escaped
//! where the template made JSON of it.
//! Knows no template engine and no tokenizer.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ops::{Range, RangeInclusive};

/// Text with the byte ranges that an untrusted party wrote.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Byte ranges of `text`, on character boundaries, in order, apart from each other and not empty.
    pub untrusted: Vec<Range<usize>>,
}

/// Why untrusted text could not be brought through a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UntrustedError {
    /// Ranges that do not describe the text.
    #[error(
        "{start}..{end} is no untrusted range of a text of {len} bytes; give ranges on character boundaries, in order and \
         apart"
    )]
    Range {
        /// Its first byte.
        start: usize,
        /// The byte after its last.
        end: usize,
        /// Bytes of the text.
        len: usize,
    },
    /// More pieces than there are private-use characters.
    #[error("{0} pieces of untrusted text are too many for one prompt; send a shorter conversation")]
    TooManyPieces(usize),
    /// Trusted text with the character that marks JSON.
    #[error("the template, or what it is given, holds the noncharacter U+FFFFF; take it out")]
    Mark,
    /// The text would not fit.
    #[error("the rendered text has more than {limit} bytes; shorten the conversation or the template")]
    TooLong {
        /// Most bytes.
        limit: usize,
    },
}

impl Rendered {
    /// Text that is all ours.
    pub fn trusted(text: impl Into<String>) -> Self {
        Self { text: text.into(), untrusted: Vec::new() }
    }

    /// Appends text of ours.
    pub fn push_trusted(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Appends text of somebody else's.
    pub fn push_untrusted(&mut self, text: &str) {
        let start = self.text.len();
        self.text.push_str(text);
        match self.untrusted.last_mut() {
            _ if text.is_empty() => {}
            Some(last) if last.end == start => last.end = self.text.len(),
            _ => self.untrusted.push(start..self.text.len()),
        }
    }

    /// Appends text piece by piece.
    pub fn push_pieces(&mut self, pieces: &[Piece<'_>]) {
        for piece in pieces {
            match piece.origin {
                Origin::Trusted => self.push_trusted(piece.text),
                Origin::Untrusted => self.push_untrusted(piece.text),
            }
        }
    }

    /// What stands behind the last untrusted text.
    pub fn trusted_end(&self) -> &str {
        let start = self.untrusted.last().map_or(0, |range| range.end);
        self.text.get(start..).unwrap_or_default()
    }

    /// The text in its pieces, in order: whose it is, and where it starts.
    ///
    /// # Errors
    /// When the ranges do not describe the text: nothing may then be taken for trusted.
    pub fn pieces(&self) -> Result<Vec<Piece<'_>>, UntrustedError> {
        pieces(&self.text, &self.untrusted)
    }
}

/// Who wrote a piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The rubric, the chat template, or this program.
    Trusted,
    /// A trajectory.
    Untrusted,
}

/// A stretch of text with one origin; not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Whose it is.
    pub origin: Origin,
    /// Its first byte in the whole text.
    pub start: usize,
    /// The text.
    pub text: &'a str,
}

/// A text cut at its untrusted ranges.
///
/// # Errors
/// When the ranges do not describe the text.
pub fn pieces<'a>(text: &'a str, untrusted: &[Range<usize>]) -> Result<Vec<Piece<'a>>, UntrustedError> {
    let mut pieces = Vec::with_capacity(2 * untrusted.len() + 1);
    let mut done = 0;
    for range in untrusted {
        let wrong = || UntrustedError::Range { start: range.start, end: range.end, len: text.len() };
        let before = text.get(done..range.start).ok_or_else(wrong)?;
        let inside = text.get(range.clone()).ok_or_else(wrong)?;
        pieces.push(Piece { origin: Origin::Trusted, start: done, text: before });
        pieces.push(Piece { origin: Origin::Untrusted, start: range.start, text: inside });
        done = range.end;
    }
    pieces.push(Piece { origin: Origin::Trusted, start: done, text: text.get(done..).unwrap_or_default() });
    pieces.retain(|piece| !piece.text.is_empty());
    Ok(pieces)
}

/// The private-use planes: characters that mean nothing to anybody, 131,068 of them.
const PRIVATE_USE: [RangeInclusive<char>; 2] = ['\u{F0000}'..='\u{FFFFD}', '\u{100000}'..='\u{10FFFD}'];

/// Stands before a placeholder once for each time that the template wrote it into a JSON string. A noncharacter, which is for
/// such use inside programs: what a template sees must not hold it.
const IN_JSON: char = '\u{FFFFF}';

/// JSON of a template's making: the texts that its placeholders stand for are to be escaped, too.
pub(super) fn escaped_in_json(json: String) -> String {
    if !json.contains(is_private_use) {
        return json;
    }
    let mut marked = String::with_capacity(json.len() + IN_JSON.len_utf8());
    for c in json.chars() {
        if is_private_use(c) {
            marked.push(IN_JSON);
        }
        marked.push(c);
    }
    marked
}

/// Stands in for untrusted text while a template is at work.
#[derive(Debug)]
pub struct Placeholders<'a> {
    taken: BTreeSet<char>,
    texts: HashMap<char, &'a str>,
    next: char,
    /// Whether the template sees [`IN_JSON`], which would then be taken for a mark of its own.
    sees_mark: bool,
}

impl<'a> Placeholders<'a> {
    /// Placeholders that occur in none of the texts that the template can see.
    pub fn absent_from<'t>(seen: impl IntoIterator<Item = &'t str>) -> Self {
        let mut sees_mark = false;
        let seen = seen.into_iter().flat_map(str::chars).inspect(|c| sees_mark |= *c == IN_JSON);
        let taken = seen.filter(|c| is_private_use(*c)).collect();
        Self { taken, texts: HashMap::new(), next: *PRIVATE_USE[0].start(), sees_mark }
    }

    /// A character that occurs nowhere yet.
    ///
    /// # Errors
    /// When none is left, or the template sees what marks JSON.
    pub fn fresh(&mut self) -> Result<char, UntrustedError> {
        if self.sees_mark {
            return Err(UntrustedError::Mark);
        }
        let found = (self.next..=char::MAX)
            .find(|c| is_private_use(*c) && !self.taken.contains(c))
            .ok_or(UntrustedError::TooManyPieces(self.texts.len()))?;
        self.taken.insert(found);
        self.next = found;
        Ok(found)
    }

    /// The character that stands for this text; none for the empty text.
    ///
    /// # Errors
    /// When no character is left.
    pub fn hide(&mut self, text: &'a str) -> Result<Option<char>, UntrustedError> {
        if text.is_empty() { Ok(None) } else { self.stand_in(text).map(Some) }
    }

    /// The character that stands for this text, the empty one included: where it is placed can then be told.
    ///
    /// # Errors
    /// When no character is left.
    pub fn stand_in(&mut self, text: &'a str) -> Result<char, UntrustedError> {
        let placeholder = self.fresh()?;
        self.texts.insert(placeholder, text);
        Ok(placeholder)
    }

    /// The placeholders in what a template made, in order: those whose texts are shown.
    pub fn placed<'r>(&'r self, rendered: &'r str) -> impl Iterator<Item = char> + 'r {
        rendered.chars().filter(|c| self.texts.contains_key(c))
    }

    /// Puts the texts back, wherever and however often the template placed them.
    ///
    /// # Errors
    /// When the result has more than `limit` bytes.
    pub fn resolve(&self, rendered: &str, limit: usize) -> Result<Rendered, UntrustedError> {
        let mut out = Rendered::default();
        let mut done = 0;
        for (at, c) in rendered.char_indices().filter(|(_, c)| is_private_use(*c)) {
            let marked = rendered.get(done..at).unwrap_or_default();
            let before = marked.trim_end_matches(IN_JSON);
            let depth = (marked.len() - before.len()) / IN_JSON.len_utf8();
            out.push_trusted(before);
            done = at;
            let Some(text) = self.texts.get(&c) else { continue };
            // Checked before the text is copied: a template can name a long value many times.
            let room = limit.saturating_sub(out.text.len());
            out.push_untrusted(&in_json(text, depth, room).ok_or(UntrustedError::TooLong { limit })?);
            done = at + c.len_utf8();
        }
        out.push_trusted(rendered.get(done..).unwrap_or_default());
        if out.text.len() > limit { Err(UntrustedError::TooLong { limit }) } else { Ok(out) }
    }
}

/// A text as it stands in a JSON string, in a string inside that one for `depth` 2, and so on; none where it is longer than
/// `most` bytes.
fn in_json(text: &str, depth: usize, most: usize) -> Option<Cow<'_, str>> {
    let mut escaped = Cow::Borrowed(text);
    for _ in 0..depth {
        if escaped.len() > most {
            return None;
        }
        let quoted = serde_json::to_string(&*escaped).ok()?;
        escaped = Cow::Owned(quoted.strip_prefix('"')?.strip_suffix('"')?.to_owned());
    }
    (escaped.len() <= most).then_some(escaped)
}

fn is_private_use(c: char) -> bool {
    PRIVATE_USE.iter().any(|plane| plane.contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_range_and_nothing_is_no_range() {
        let mut text = Rendered::trusted("a");
        text.push_untrusted("");
        text.push_untrusted("b");
        text.push_untrusted("c");
        text.push_trusted("d");
        assert_eq!(text, Rendered { text: "abcd".to_owned(), untrusted: vec![Range { start: 1, end: 3 }] });
        let pieces: Vec<_> = text.pieces().unwrap().iter().map(|piece| (piece.start, piece.text)).collect();
        assert_eq!(pieces, [(0, "a"), (1, "bc"), (3, "d")]);
    }

    #[test]
    fn ranges_that_describe_no_text_are_refused() {
        let cases: [&[(usize, usize)]; 5] = [&[(0, 9)], &[(2, 1)], &[(1, 2), (0, 1)], &[(0, 2), (1, 3)], &[(3, 4)]];
        for case in cases {
            let ranges: Vec<_> = case.iter().map(|(start, end)| *start..*end).collect();
            assert!(pieces("abé", &ranges).is_err(), "{case:?}");
        }
    }

    #[test]
    fn a_placeholder_never_occurs_in_what_the_template_sees() {
        let mut placeholders = Placeholders::absent_from(["\u{F0000} \u{F0002}", "\u{F0003}"]);
        let one = placeholders.hide("one").unwrap().unwrap();
        let two = placeholders.hide("two \u{F0001}").unwrap().unwrap();
        assert_eq!((one, two), ('\u{F0001}', '\u{F0004}'));
        // The first text's character inside the second text is text: nothing is put back twice.
        let rendered = placeholders.resolve(&format!("<{one}|{two}|{one}\u{F0000}>"), 100).unwrap();
        assert_eq!(rendered.text, "<one|two \u{F0001}|one\u{F0000}>");
        let marked: Vec<_> = rendered.untrusted.iter().map(|range| &rendered.text[range.clone()]).collect();
        assert_eq!(marked, ["one", "two \u{F0001}", "one"]);
    }

    #[test]
    fn a_template_cannot_multiply_a_text_past_the_limit() {
        let mut placeholders = Placeholders::absent_from([]);
        let text = "x".repeat(1000);
        let many = placeholders.hide(&text).unwrap().unwrap().to_string().repeat(1000);
        assert_eq!(placeholders.resolve(&many, 999_999), Err(UntrustedError::TooLong { limit: 999_999 }));
        assert_eq!(placeholders.resolve(&many, 1_000_000).unwrap().untrusted.len(), 1);
    }

    #[test]
    fn a_mark_of_json_in_what_the_template_sees_is_refused() {
        let mut placeholders = Placeholders::absent_from(["a\u{FFFFF}b"]);
        assert_eq!(placeholders.hide(""), Ok(None), "nothing is there to be marked");
        assert_eq!(placeholders.hide("x"), Err(UntrustedError::Mark));
        // In what is untrusted it is text.
        let mut placeholders = Placeholders::absent_from([]);
        let one = placeholders.hide("\u{FFFFF}\"").unwrap().unwrap();
        assert_eq!(placeholders.resolve(&format!("{one}{one}"), 100).unwrap().text, "\u{FFFFF}\"".repeat(2));
    }

    #[test]
    fn when_every_private_character_is_taken_it_says_so() {
        let all: String = PRIVATE_USE.into_iter().flatten().collect();
        let mut placeholders = Placeholders::absent_from([all.as_str()]);
        assert_eq!(placeholders.hide("x"), Err(UntrustedError::TooManyPieces(0)));
    }
}
