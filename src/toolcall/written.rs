//! What was written in a list that breaks: none of it is a call, and each element is an attempt (rule G4), or to break a list
//! would pay. In: a text and where its list breaks; out: the elements, as well as broken text tells them apart: what one
//! lacks, a bracket or a quote, hides none of those behind it. Reads no values, and takes each byte a few times at most.

use std::ops::Range;

use super::broken::{begins_call, is_call, names_call};
use super::budget::{Budget, Room};
use super::call::ReadObject;
use super::codes::Fault;
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

/// Where a list breaks, and why.
#[derive(Debug)]
pub(super) struct Break {
    pub(super) fault: Fault,
    /// The elements before it, which were read.
    pub(super) whole: Vec<Range<usize>>,
    pub(super) at: usize,
    pub(super) place: Place,
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

/// Records each element of a list that breaks as a malformed attempt, the first one from `start` on; one attempt for a list
/// without any.
pub(super) fn record(scan: &mut Scan<'_, '_>, start: usize, shape: Shape, broken: Break) {
    let fault = broken.fault.clone();
    let stop = scan.text.floor_char_boundary(fault.at.max(broken.at));
    let mut elements = elements(scan, shape, broken);
    if elements.is_empty() {
        elements.push(start..stop);
    }
    push(scan, start, elements, fault);
}

/// Records these elements as malformed attempts, the first one from `start` on.
pub(super) fn push(scan: &mut Scan<'_, '_>, start: usize, elements: Vec<Range<usize>>, fault: Fault) {
    let Some(end) = elements.last().map(|last| last.end) else { return };
    let malformed = fault.named(None);
    let mut from = Some(start);
    for element in elements {
        scan.push(from.take().unwrap_or(element.start)..element.end, Vec::new(), Err(malformed.clone()));
    }
    scan.wrap(start..end);
}

/// The elements of a list that breaks, at most one more than are looked at.
pub(super) fn elements(scan: &Scan<'_, '_>, shape: Shape, broken: Break) -> Vec<Range<usize>> {
    let Break { fault, whole: mut elements, at, place } = broken;
    let mut reader = Reader::new(scan, shape, at);
    reader.ended = place == Place::End;
    let end = reader.read();
    let is_open = reader.is_open;
    let mut behind = reader.elements;
    let stop = scan.text.floor_char_boundary(fault.at.clamp(at, end.max(at)));
    if let Some(last) = behind.last_mut().filter(|_| is_open) {
        // Nothing says where it ends; of the one that breaks, what was read.
        last.end = if last.start == at { stop } else { end };
    }
    let next = behind.first().map_or(usize::MAX, |first| first.start);
    let stands = !matches!(scan.text.as_bytes().get(at), None | Some(b',' | b']'));
    if place == Place::Element && next > at && stands {
        elements.push(at..stop.min(next));
    }
    elements.extend(behind);
    elements
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
    /// Up to where quotes of each kind open no string: one that is never closed was opened before.
    plain: [usize; 2],
}

impl<'t> Reader<'t> {
    fn new(scan: &Scan<'t, '_>, shape: Shape, at: usize) -> Self {
        Self {
            cursor: Cursor::new(scan.text, at),
            shape,
            most: scan.max_calls,
            elements: Vec::new(),
            is_open: false,
            open: Vec::new(),
            waiting: [0; 3],
            nested: 0,
            ended: false,
            before: b',',
            plain: [0; 2],
        }
    }

    /// Reads to the end of the list, or to the next attempt; gives that place.
    fn read(&mut self) -> usize {
        while let Some(byte) = self.cursor.peek().filter(|_| self.elements.len() <= self.most) {
            match byte {
                _ if self.is_opener(byte) => break,
                _ if self.skip_reasoning(byte) => {}
                b'"' | b'\'' => self.quote(byte),
                b'{' if self.shape.grammar != Grammar::Calls => self.brace(),
                b'(' | b')' if self.shape.grammar != Grammar::Calls => self.pass(),
                b'[' if self.open.is_empty() => {
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
        (self.open, self.waiting) = (Vec::new(), [0; 3]);
        self.elements.push(start..start);
        self.is_open = true;
    }

    fn end(&mut self, at: usize) {
        if std::mem::take(&mut self.is_open)
            && let Some(last) = self.elements.last_mut()
        {
            let written = self.cursor.text.get(last.start..at).unwrap_or_default();
            last.end = last.start + written.trim_end_matches(|c: char| c == ',' || c == ';' || c.is_whitespace()).len();
        }
    }

    /// Closes a bracket, and those in it that were not. Whether the list ends.
    fn close(&mut self, closer: u8) -> bool {
        if self.waiting[kind(closer)] > 0 {
            while self.pop().is_some_and(|popped| popped != closer) {}
            if self.open.is_empty() {
                self.end(self.cursor.at + 1);
            }
            return false;
        }
        // One that closes nothing in an element is a mistake in it.
        if closer != b']' || !self.open.is_empty() || self.nested > 0 {
            self.nested -= usize::from(closer == b']' && self.open.is_empty());
            return false;
        }
        self.ended = true;
        self.shape.grammar == Grammar::List
    }

    /// The `{` at the cursor: it begins an element, unless it is a value in one.
    fn brace(&mut self) {
        let is_value = self.before == b':';
        let begins = match self.open.last() {
            None => !is_value && self.is_announced(),
            // A brace too many opens the same object.
            Some(b'}') if self.before == b'{' => return self.pass(),
            // Where a key should stand, the object before it was not closed.
            Some(b'}') if matches!(self.before, b',' | b';' | b'}' | b']') => {
                self.pop();
                self.open.is_empty() || names_call(self.cursor)
            }
            Some(_) => !is_value && is_call(self.cursor),
        };
        if begins {
            self.begin(self.cursor.at);
        }
        self.push(b'{');
        self.pass();
    }

    /// Whether an object outside of others is an element; in a bare list, as where it does not break (rules L2 to L4).
    fn is_announced(&self) -> bool {
        let is_answer = || {
            let budget = Budget::new(Room::default(), 0);
            json::read(self.cursor.text, self.cursor.at, ReadObject(&budget))
                .is_ok_and(|(object, _)| !object.is_named_with_arguments())
        };
        self.shape.grammar != Grammar::BareObjects
            || ((self.before == b';' || begins_call(self.cursor)) && !is_answer())
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
                b'\\' => self.cursor.at += 1,
                _ if byte == quote && triple => {
                    if self.cursor.eat(if quote == b'"' { "\"\"\"" } else { "'''" }) {
                        self.before = quote;
                        return;
                    }
                }
                _ if byte == quote && self.closes_string() => return self.pass(),
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

    fn opens_string(&self, before: u8) -> bool {
        let calls = self.shape.grammar == Grammar::Calls;
        matches!(before, b'{' | b'[' | b',' | b':') || (calls && matches!(before, b'(' | b'=' | b'+' | b'"' | b'\''))
    }

    /// Whether what stands behind the quote at the cursor follows a string.
    fn closes_string(&self) -> bool {
        let mut behind = self.cursor;
        behind.at += 1;
        behind.skip_blanks();
        let calls = self.shape.grammar == Grammar::Calls;
        match behind.peek() {
            None | Some(b',' | b':' | b'}' | b']') => true,
            Some(b')' | b'+' | b'"' | b'\'') => calls,
            Some(_) => false,
        }
    }
}

fn kind(closer: u8) -> usize {
    match closer {
        b'}' => 0,
        b']' => 1,
        _ => 2,
    }
}
