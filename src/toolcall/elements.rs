//! The elements of a list in broken text, as well as it tells them apart: what one lacks, a bracket or a quote, hides none of those
//! behind it. In: a text, where to begin, and what the list is like; out: where the elements stand. Reads no values, and passes
//! each byte a few times at most.

use std::ops::Range;

use super::broken::{begins_call, is_call, names_call};
use super::budget::{Budget, Room};
use super::call::ReadObject;
use super::cursor::Cursor;
use super::expression::OPERATORS;
use super::find::find;
use super::json;
use super::pythonic::has_named_argument;
use super::reasoning::Tags;
use super::scan::Scan;

/// What the elements of a list are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grammar {
    /// JSON objects, up to a `]`.
    List,
    /// JSON objects behind a tag that promises them.
    Objects,
    /// JSON objects at the start of a message, where others are answers and content.
    BareObjects,
    /// `name(..)`, up to a `]`.
    Calls,
}

/// What a format's lists are like, and what ends a broken one: another attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) grammar: Grammar,
    pub(super) openers: &'static [&'static str],
    pub(super) tags: Tags,
}

/// What was to stand where a list breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// An element.
    Element,
    /// What separates two, or ends the list.
    Behind,
    /// Nothing: the list has ended.
    End,
}

/// What was found.
pub(super) struct Found {
    /// At most one more than are looked at.
    pub(super) elements: Vec<Range<usize>>,
    /// Where the list ends, or another attempt begins.
    pub(super) end: usize,
    /// Whether the last element does not end: its range is empty.
    pub(super) is_open: bool,
}

/// Reads elements from `at` on, where this was to stand.
pub(super) fn read(scan: &Scan<'_, '_>, shape: Shape, at: usize, place: Place) -> Found {
    // What stands between elements, unless it begins with a bracket too many, may be one that lacks its opener.
    let is_piece = place == Place::Behind && !scan.rest(at).starts_with(['}', ')']);
    let mut reader = Reader {
        cursor: Cursor::new(scan.text, at),
        shape,
        most: scan.max_calls,
        elements: Vec::new(),
        is_open: false,
        open: Vec::new(),
        waiting: [0; 3],
        nested: 0,
        ended: place == Place::End,
        before: if shape.grammar == Grammar::BareObjects { b';' } else { b',' },
        piece: is_piece.then_some(at),
        first: place == Place::Element,
        plain: [0; 2],
    };
    let end = reader.read();
    Found { elements: reader.elements, end, is_open: reader.is_open }
}

struct Reader<'t> {
    cursor: Cursor<'t>,
    shape: Shape,
    most: usize,
    elements: Vec<Range<usize>>,
    /// Whether the last element has not ended yet.
    is_open: bool,
    /// What closes the brackets that are open in it, and how many of each kind that are.
    open: Vec<u8>,
    waiting: [usize; 3],
    /// Brackets of lists that are open outside of elements.
    nested: usize,
    /// Whether the list's own end was passed; text behind one of calls breaks it, too.
    ended: bool,
    /// The byte before the cursor, blanks left out.
    before: u8,
    /// Where what stands behind the last element, in a list of calls behind the last comma, begins: with the closer of an element
    /// it may be one that lacks its opener.
    piece: Option<usize>,
    /// Whether the cursor is still in the element that breaks, and that one has no opener: it counts as it is.
    first: bool,
    /// Up to where quotes of each kind open no string: one that is never closed was opened before.
    plain: [usize; 2],
}

impl Reader<'_> {
    /// Reads to the end of the list, or to the next attempt; gives that place.
    fn read(&mut self) -> usize {
        while let Some(byte) = self.cursor.peek().filter(|_| self.elements.len() <= self.most) {
            match byte {
                _ if self.is_opener(byte) => break,
                _ if self.skip_reasoning(byte) => {}
                b'"' | b'\'' => self.quote(byte),
                b'{' if self.shape.grammar != Grammar::Calls => self.brace(),
                b'(' | b')' if self.shape.grammar != Grammar::Calls => self.pass(),
                b'[' if self.open.is_empty() && self.before != b':' => {
                    self.nested += 1;
                    self.pass();
                }
                b'{' | b'[' | b'(' => {
                    self.push(byte);
                    self.pass();
                }
                b'}' | b']' | b')' => {
                    let ends = self.close(byte);
                    self.pass();
                    if ends {
                        break;
                    }
                }
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | 0x80..
                    if self.shape.grammar == Grammar::Calls =>
                {
                    self.word();
                }
                b',' if self.shape.grammar == Grammar::Calls && self.open.is_empty() => {
                    self.pass();
                    self.piece = Some(self.cursor.at).filter(|_| !self.first);
                }
                _ => self.pass(),
            }
        }
        self.cursor.at
    }

    fn pass(&mut self) {
        if let Some(byte) = self.cursor.peek().filter(|byte| !byte.is_ascii_whitespace()) {
            self.before = byte;
        }
        self.cursor.at = self.cursor.text.ceil_char_boundary(self.cursor.at + 1);
    }

    fn is_opener(&self, byte: u8) -> bool {
        let openers = self.shape.openers;
        matches!(byte, b'<' | b'[' | b'f') && openers.iter().any(|opener| self.cursor.rest().starts_with(opener))
    }

    /// Passes reasoning, wherever it stands: that is how calls are looked for behind the break.
    fn skip_reasoning(&mut self, byte: u8) -> bool {
        let rest = self.cursor.rest();
        let closer = match byte {
            b'<' if rest.starts_with("<think>") => "</think>",
            b'[' if self.shape.tags == Tags::ThinkAndBrackets && rest.starts_with("[THINK]") => "[/THINK]",
            _ => return false,
        };
        self.cursor.at += find(rest.as_bytes(), closer).map_or(rest.len(), |at| at + closer.len());
        true
    }

    fn push(&mut self, opener: u8) {
        let closer = match opener {
            b'{' => b'}',
            b'[' => b']',
            _ => b')',
        };
        self.open.push(closer);
        self.waiting[kind(closer)] += 1;
    }

    fn pop(&mut self) -> Option<u8> {
        let closer = self.open.pop()?;
        self.waiting[kind(closer)] -= 1;
        Some(closer)
    }

    /// Begins an element at `start`, whose bracket stands at the cursor. One that is open lacks its end.
    fn begin(&mut self, start: usize) {
        self.end(start);
        self.close_all();
        self.elements.push(start..start);
        (self.is_open, self.piece, self.first) = (true, None, false);
    }

    fn end(&mut self, at: usize) {
        if std::mem::take(&mut self.is_open)
            && let Some(last) = self.elements.last_mut()
        {
            let written = self.cursor.text.get(last.start..at).unwrap_or_default();
            last.end = last.start + written.trim_end_matches(is_separator).len();
            self.piece = Some(last.end).filter(|_| self.shape.grammar != Grammar::Calls);
        }
    }

    /// Closes a bracket, and those in it that were not. Whether the list ends.
    fn close(&mut self, closer: u8) -> bool {
        if closer == b'}' && self.open.ends_with(b"}}]") && self.is_followed_in_list() {
            return false;
        }
        if self.waiting[kind(closer)] > 0 {
            while self.pop().is_some_and(|popped| popped != closer) {}
            if self.open.is_empty() {
                self.end(self.cursor.at + 1);
            }
            return false;
        }
        if self.open.is_empty() && closer == if self.shape.grammar == Grammar::Calls { b')' } else { b'}' } {
            self.end_without_opener();
        }
        // Another one that closes nothing is a mistake in its element.
        if closer != b']' || !self.open.is_empty() || self.nested > 0 {
            self.nested -= usize::from(closer == b']' && self.open.is_empty());
            return false;
        }
        // The end of a list in an element whose opener is missing looks the same, but more of the element follows.
        let mut behind = self.cursor;
        behind.at += 1;
        behind.skip_blanks();
        self.ended = !matches!(behind.peek(), Some(b',' | b'}' | b']'));
        self.ended && self.shape.grammar == Grammar::List
    }

    /// Records what ends here and has no opener, if it is an element.
    fn end_without_opener(&mut self) {
        let end = self.cursor.at + 1;
        let (piece, first) = (self.piece.replace(end), std::mem::take(&mut self.first));
        let Some(start) = piece.filter(|_| !first) else { return };
        let written = self.cursor.text.get(start..end).unwrap_or_default();
        let keys = ["arguments", "parameters"];
        if self.shape.grammar == Grammar::Calls
            || (written.contains("name") && keys.iter().any(|key| written.contains(key)))
        {
            let element = written.trim_start_matches(is_separator);
            self.elements.push(end - element.len()..end);
        }
    }

    /// Whether the list in an element goes on behind the brace at the cursor, or ends: an object of it lacks its opener.
    fn is_followed_in_list(&self) -> bool {
        let mut behind = self.cursor;
        behind.at += 1;
        behind.skip_blanks();
        let separated = behind.eat_byte(b',');
        behind.skip_blanks();
        behind.peek() == Some(if separated { b'{' } else { b']' }) && !names_call(behind)
    }

    /// The `{` at the cursor: it begins an element, unless it is a value in one.
    fn brace(&mut self) {
        let is_value = self.before == b':';
        match self.open.last() {
            // A brace too many opens the same object.
            Some(b'}') if self.before == b'{' => return self.pass(),
            // Where a key should stand, the object before it was not closed.
            Some(b'}') if matches!(self.before, b',' | b';' | b'}' | b']') => {
                self.pop();
                if names_call(self.cursor) {
                    self.close_all();
                }
            }
            // No JSON has a `;` in it.
            Some(_) if self.before == b';' || (!is_value && is_call(self.cursor)) => self.close_all(),
            // No member of a call is a list.
            Some(_) if self.open == b"}]" && names_call(self.cursor) => self.close_all(),
            _ => {}
        }
        if self.open.is_empty() && !is_value {
            self.end(self.cursor.at);
            if self.is_announced() {
                self.begin(self.cursor.at);
            }
        }
        self.push(b'{');
        self.pass();
    }

    fn close_all(&mut self) {
        self.open.clear();
        self.waiting = [0; 3];
    }

    /// Whether an object outside of others is an element; in a bare list, as where it does not break (rules L2 to L4).
    fn is_announced(&self) -> bool {
        let is_answer = || {
            let budget = Budget::new(Room::default(), 0);
            json::read(self.cursor.text, self.cursor.at, ReadObject(&budget))
                .is_ok_and(|(object, _)| !object.is_named_with_arguments())
        };
        self.shape.grammar != Grammar::BareObjects
            || ((self.before == b';' || (self.before == b'}' && begins_call(self.cursor))) && !is_answer())
    }

    /// A name or a number of Python. A name with a `(` begins an element, unless it is a value in one.
    fn word(&mut self) {
        let start = self.cursor;
        let rest = start.rest();
        let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.') || !c.is_ascii();
        let word = rest.get(..rest.find(|c| !part(c)).unwrap_or(rest.len())).unwrap_or_default();
        self.cursor.at += word.len();
        let mut ahead = self.cursor;
        ahead.skip_blanks();
        let is_name = !word.starts_with(|c: char| c == '.' || c.is_ascii_digit()) && !OPERATORS.contains(&word);
        if is_name && ahead.peek() == Some(b'(') {
            let begins = match self.open.last() {
                None => !self.ended || matches!(self.before, b',' | b'[' | b']'),
                Some(b']') => self.before == b',' && has_named_argument(start),
                Some(_) => self.before == b',',
            };
            if begins {
                self.begin(start.at);
            }
            self.cursor = ahead;
            self.push(b'(');
            return self.pass();
        }
        let is_prefix = word.len() <= 2 && word.bytes().all(|byte| b"rRbBuUfF".contains(&byte));
        if !(is_prefix && matches!(self.cursor.peek(), Some(b'"' | b'\''))) {
            self.before = b'a';
        }
    }

    /// A quote: it opens a string where a value or a key may stand. Which one closes it what stands around tells: a comma, a
    /// colon or a bracket behind it. One that opens another string says that the first one was not closed; all in it is read
    /// again, without it.
    fn quote(&mut self, quote: u8) {
        let start = self.cursor;
        let plain = usize::from(quote == b'\'');
        if start.at < self.plain[plain] || !self.opens_string(self.before) {
            return self.pass();
        }
        let calls = self.shape.grammar == Grammar::Calls;
        let triple = calls && start.rest().as_bytes().starts_with(&[quote; 3]);
        let mut before = quote;
        self.cursor.at += if triple { 3 } else { 1 };
        while let Some(byte) = self.cursor.peek() {
            match byte {
                _ if self.is_opener(byte) => break,
                _ if self.skip_reasoning(byte) => continue,
                b'\n' if calls && !triple => break,
                b'\\' if self.escapes() => self.cursor.at += 1,
                _ if triple && self.cursor.rest().as_bytes().starts_with(&[quote; 3]) => {
                    self.cursor.at += 2;
                    return self.pass();
                }
                _ if byte == quote && triple => {}
                _ if byte == quote && self.closes_string(before) => return self.pass(),
                _ if byte == quote && self.opens_string(before) => break,
                _ => {}
            }
            if !byte.is_ascii_whitespace() {
                before = byte;
            }
            self.cursor.at = self.cursor.text.ceil_char_boundary(self.cursor.at + 1);
        }
        self.plain[plain] = self.cursor.at;
        self.cursor = start;
        self.pass();
    }

    /// Whether the backslash at the cursor makes data of what would end a string; another one hides no marker behind it.
    fn escapes(&self) -> bool {
        matches!(self.cursor.rest().as_bytes().get(1), Some(b'"' | b'\'' | b'\\'))
    }

    fn opens_string(&self, before: u8) -> bool {
        let calls = self.shape.grammar == Grammar::Calls;
        precedes_value(before, calls) || (calls && matches!(before, b'"' | b'\''))
    }

    /// Whether what stands around the quote at the cursor ends a string.
    fn closes_string(&self, before: u8) -> bool {
        let mut behind = self.cursor;
        behind.at += 1;
        behind.skip_blanks();
        let calls = self.shape.grammar == Grammar::Calls;
        match behind.peek() {
            None | Some(b',' | b':' | b'}' | b']') => true,
            Some(b')' | b'+') => calls,
            // Another string, or this quote opens an empty one.
            Some(b'"' | b'\'') => calls && !precedes_value(before, calls),
            Some(_) => false,
        }
    }
}

fn precedes_value(before: u8, calls: bool) -> bool {
    matches!(before, b'{' | b'[' | b',' | b':' | b';') || (calls && matches!(before, b'(' | b'=' | b'+'))
}

fn is_separator(c: char) -> bool {
    matches!(c, ',' | ';') || c.is_whitespace()
}

fn kind(closer: u8) -> usize {
    match closer {
        b'}' => 0,
        b']' => 1,
        _ => 2,
    }
}
