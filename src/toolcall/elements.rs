//! The elements of a list that breaks, behind the break: what one lacks, a bracket or a quote, must hide none of those behind it.
//! So neither is followed: an element is told by how a call begins, wherever that stands. In: a text, where it breaks, and what the
//! list is like; out: where elements begin. Reads no values.

use super::budget::{Budget, Room};
use super::call::ReadObject;
use super::cursor::Cursor;
use super::find::find;
use super::json;
use super::pythonic::begins_call;
use super::reasoning::Tags;

/// What the elements of a list are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grammar {
    /// JSON objects with commas between them.
    List,
    /// JSON objects behind a tag that promises them, with blanks or `;` between them.
    Objects,
    /// The same at the start of a message, where others are answers and content.
    BareObjects,
    /// `name(..)` with commas between them.
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

/// Where elements begin from `at` on, where this was to stand, at most one more than are looked at; and where another attempt
/// begins, or the text ends.
pub(super) fn starts(text: &str, shape: Shape, (at, place): (usize, Place), most: usize) -> (Vec<usize>, usize) {
    let mut reader = Reader {
        cursor: Cursor::new(text, at),
        shape,
        before: if shape.grammar == Grammar::BareObjects { b';' } else { b',' },
        object: None,
        starts: Vec::new(),
    };
    match place {
        Place::Element if !matches!(reader.cursor.peek(), None | Some(b',' | b']')) => {
            reader.starts.push(at);
            // A brace there is this element's.
            reader.before = b'{';
        }
        // What lacks its brace, or has text before it.
        Place::Behind => reader.object = Some(at),
        Place::Element | Place::End => {}
    }
    let end = reader.read(most);
    (reader.starts, end)
}

struct Reader<'t> {
    cursor: Cursor<'t>,
    shape: Shape,
    /// The byte before the cursor, blanks left out; of a word any letter.
    before: u8,
    /// Where what may be an element begins: it is one if it has arguments.
    object: Option<usize>,
    starts: Vec<usize>,
}

impl Reader<'_> {
    /// Reads to the next attempt, and gives its place.
    fn read(&mut self, most: usize) -> usize {
        while let Some(byte) = self.cursor.peek().filter(|_| self.starts.len() <= most) {
            match byte {
                _ if self.is_opener(byte) => break,
                _ if self.skip_reasoning(byte) => {}
                b' ' | b'\t' | b'\r' | b'\n' => self.cursor.at += 1,
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | 0x80.. => self.word(),
                b'{' => self.brace(),
                b'}' if matches!(self.shape.grammar, Grammar::List | Grammar::Objects) => {
                    // An element that lacks its brace may follow.
                    self.object = self.object.or(Some(self.cursor.at));
                    self.pass(byte);
                }
                _ => self.pass(byte),
            }
        }
        self.cursor.at
    }

    fn pass(&mut self, byte: u8) {
        self.before = byte;
        self.cursor.at += 1;
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

    /// The `{` at the cursor: it begins an object unless that is a member's value, and a brace too many begins the same one.
    fn brace(&mut self) {
        let at = self.cursor.at;
        let announced = matches!(self.before, b';' | b'}');
        if !matches!(self.before, b':' | b'{') {
            let (start, object) = match self.shape.grammar {
                Grammar::Objects if announced => (Some(at), None),
                Grammar::BareObjects if !announced || self.is_answer() => (None, None),
                Grammar::BareObjects if self.before == b';' => (Some(at), None),
                Grammar::List | Grammar::Objects | Grammar::BareObjects | Grammar::Calls => (None, Some(at)),
            };
            self.starts.extend(start);
            self.object = object;
        }
        self.pass(b'{');
    }

    /// Whether the object at the cursor is whole, and no call (rule L4).
    fn is_answer(&self) -> bool {
        let budget = Budget::new(Room::default(), 0);
        json::read(self.cursor.text, self.cursor.at, ReadObject(&budget))
            .is_ok_and(|(object, _)| !object.is_named_with_arguments())
    }

    /// A word, as JSON or Python has it: the arguments of an object, or a call.
    fn word(&mut self) {
        let start = self.cursor;
        let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.') || !c.is_ascii();
        let rest = start.rest();
        let word = rest.get(..rest.find(|c| !part(c)).unwrap_or(rest.len())).unwrap_or_default();
        // An opener that begins as a word does may stand at its end.
        let at_end = |opener: &&&str| rest.get(..=word.len()).is_some_and(|word| word.ends_with(**opener));
        let opener = self.shape.openers.iter().find(at_end).map_or(0, |opener| opener.len() - 1);
        let word = word.get(..word.len().saturating_sub(opener)).unwrap_or_default();
        self.cursor.at += word.len();
        if self.shape.grammar == Grammar::Calls {
            if matches!(self.before, b',' | b')' | b']') && begins_call(start) {
                self.starts.push(start.at);
            }
        } else if matches!(word, "arguments" | "parameters") && self.is_key() {
            self.starts.extend(self.object.take());
        }
        self.before = b'a';
    }

    /// Whether the word before the cursor is a key: the quotes or the colon may be what is missing.
    fn is_key(&self) -> bool {
        let mut behind = self.cursor;
        let _ = behind.eat_byte(b'"') || behind.eat_byte(b'\'');
        behind.skip_blanks();
        matches!(behind.peek(), Some(b':' | b'=' | b'{'))
    }
}
