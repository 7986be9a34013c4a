//! Going through JSON once: values that are read on the way, and values that are only passed, checked to be JSON. In: a
//! text. Out: its values, borrowed.
//!
//! Whatever is unusual makes this give up with a `None` that says nothing: then `serde_json` reads the text, and says what
//! is wrong with it, if anything is. Where this does not give up, it takes what `serde_json` takes.

use std::borrow::Cow;

use super::apart::Cursor;
use super::escapes::{decode, special};
use super::familiar::Familiar;

/// Levels of brackets that are passed; deeper values are left to `serde_json`.
const MAX_DEPTH: u32 = 64;

/// A place in a text.
pub(super) struct Walk<'a> {
    text: &'a str,
    at: usize,
    familiar: Familiar<'a>,
}

impl<'a> Walk<'a> {
    /// The first value of a text.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, familiar: Familiar::default() }
    }

    /// Where the next value starts.
    pub(super) fn start(&mut self) -> usize {
        self.blank();
        self.at
    }

    /// Goes on at a place.
    pub(super) fn resume_at(&mut self, place: usize) {
        self.at = place;
    }

    /// What was passed since a place.
    pub(super) fn since(&self, start: usize) -> Option<&'a str> {
        self.text.get(start..self.at)
    }

    /// Passes the value at a place by its brackets only: what is in it is somebody else's to check.
    pub(super) fn pass_from(&mut self, start: usize) -> Option<()> {
        let mut cursor = Cursor { bytes: self.text.as_bytes(), at: start };
        cursor.value()?;
        self.at = cursor.at;
        Some(())
    }

    /// Whether nothing but white space is left.
    pub(super) fn is_done(&mut self) -> bool {
        self.blank();
        self.at == self.text.len()
    }

    /// Passes an object whose keys have no escapes; `field` is to pass each value.
    pub(super) fn object(&mut self, mut field: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.members([b'{', b'}'], |walk| {
            let key = walk.plain_string()?;
            walk.take(b':')?;
            field(walk, key)
        })
    }

    /// Passes a list; `element` is to pass each value.
    pub(super) fn list(&mut self, element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.members([b'[', b']'], element)
    }

    fn members(&mut self, [start, end]: [u8; 2], mut member: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(start)?;
        if self.take(end).is_some() {
            return Some(());
        }
        loop {
            member(self)?;
            match self.next()? {
                b',' => {}
                found => return (found == end).then_some(()),
            }
        }
    }

    /// Passes a value.
    pub(super) fn value(&mut self) -> Option<&'a str> {
        let start = self.start();
        match self.peek()? {
            b'{' | b'[' => self.nested()?,
            _ => self.leaf()?,
        }
        self.since(start)
    }

    /// Passes a value that may have come before, as the prompts of a group do, or whose elements may, as tools do: equal text
    /// is compared, not looked into. Gives the first of equal ones.
    pub(super) fn familiar_value(&mut self) -> Option<&'a str> {
        if !self.is_list() {
            return self.familiar_element();
        }
        let start = self.at;
        if let Some(equal) = self.pass_familiar() {
            return Some(equal);
        }
        self.list(|walk| walk.familiar_element().map(drop))?;
        let list = self.since(start)?;
        self.familiar.keep(self.text, start, list);
        Some(list)
    }

    /// The same for a value that is looked into, if it is, as a whole.
    fn familiar_element(&mut self) -> Option<&'a str> {
        let start = self.start();
        if let Some(equal) = self.pass_familiar() {
            return Some(equal);
        }
        let value = self.value()?;
        self.familiar.keep(self.text, start, value);
        Some(value)
    }

    fn pass_familiar(&mut self) -> Option<&'a str> {
        let equal = self.familiar.equal_at(self.text, self.at)?;
        self.at += equal.len();
        Some(equal)
    }

    /// Reads a string.
    pub(super) fn string(&mut self) -> Option<Cow<'a, str>> {
        self.take(b'"')?;
        let (text, end) = decode(self.text, self.at)?;
        self.at = end;
        Some(text)
    }

    /// Whether a string comes next.
    pub(super) fn is_string(&mut self) -> bool {
        self.blank();
        self.peek() == Some(b'"')
    }

    /// Whether a list comes next.
    pub(super) fn is_list(&mut self) -> bool {
        self.blank();
        self.peek() == Some(b'[')
    }

    /// Reads a string without escapes; with some, it is somewhere in it.
    fn plain_string(&mut self) -> Option<&'a str> {
        self.take(b'"')?;
        let start = self.at;
        self.at = special(self.text.as_bytes(), start)?;
        let text = self.text.get(start..self.at)?;
        self.take_here(b'"')?;
        Some(text)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes white space.
    fn blank(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// The next byte that is not blank.
    fn next(&mut self) -> Option<u8> {
        self.blank();
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// Passes this byte, and white space before it; otherwise only the white space.
    fn take(&mut self, wanted: u8) -> Option<()> {
        self.blank();
        self.take_here(wanted)
    }

    fn take_here(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    /// Passes an object or a list. One bit per level says which of them it is.
    fn nested(&mut self) -> Option<()> {
        let (mut objects, mut depth) = (0_u64, 0_u32);
        loop {
            let byte = self.peek()?;
            match byte {
                b'{' | b'[' if depth == MAX_DEPTH => return None,
                b'{' => {
                    self.at += 1;
                    (objects, depth) = (objects << 1 | 1, depth + 1);
                    self.blank();
                    if self.peek()? != b'}' {
                        self.pass_key()?;
                        continue;
                    }
                }
                b'[' => {
                    self.at += 1;
                    (objects, depth) = (objects << 1, depth + 1);
                    self.blank();
                    if self.peek()? != b']' {
                        continue;
                    }
                }
                _ => self.leaf()?,
            }
            // Behind a value: the next one of the same level, or the end of as many levels as end here.
            loop {
                let object = objects & 1 == 1;
                match self.next()? {
                    b',' => {
                        self.blank();
                        if object {
                            self.pass_key()?;
                        }
                        break;
                    }
                    b'}' if object => {}
                    b']' if !object => {}
                    _ => return None,
                }
                (objects, depth) = (objects >> 1, depth - 1);
                if depth == 0 {
                    return Some(());
                }
            }
        }
    }

    /// Passes a key and its colon, up to the value.
    fn pass_key(&mut self) -> Option<()> {
        self.take_here(b'"')?;
        self.string_rest()?;
        self.take(b':')?;
        self.blank();
        Some(())
    }

    /// Passes a string, a number or a word.
    fn leaf(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => {
                self.at += 1;
                self.string_rest()
            }
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.text.as_bytes().get(self.at..)?.starts_with(word.as_bytes()).then(|| self.at += word.len())
    }

    /// Passes a string whose opening quote was passed.
    fn string_rest(&mut self) -> Option<()> {
        let bytes = self.text.as_bytes();
        loop {
            let found = special(bytes, self.at)?;
            match bytes.get(found)? {
                b'"' => {
                    self.at = found + 1;
                    return Some(());
                }
                b'\\' => {
                    self.at = found + 2;
                    match bytes.get(found + 1)? {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        b'u' => {
                            bytes.get(self.at..self.at + 4)?.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                            self.at += 4;
                        }
                        _ => return None,
                    }
                }
                _ => return None,
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.take_here(b'-');
        if self.take_here(b'0').is_none() {
            self.digits()?;
        }
        if self.take_here(b'.').is_some() {
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// Passes digits, at least one.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

/// A value that was passed, unless it is `null`.
pub(super) fn present(value: &str) -> Option<&str> {
    Some(value).filter(|value| *value != "null")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn passes(text: &str) -> bool {
        let mut walk = Walk::new(text);
        walk.value().is_some() && walk.is_done()
    }

    fn is_json(text: &str) -> bool {
        serde_json::from_str::<IgnoredAny>(text).is_ok()
    }

    #[test]
    fn what_is_passed_is_json() {
        for text in [
            "0",
            "-0",
            "1.5e+7",
            "1e400",
            "-",
            "01",
            "1.",
            ".5",
            "1e",
            "+1",
            "- 1",
            "true",
            "tru",
            "nullx",
            "null",
            "",
            " ",
            "\"a\"",
            "\"a",
            "\"\\x\"",
            "\"\\u00e4\"",
            "\"\\u00g4\"",
            "\"\\u12\"",
            "\"\\\"\"",
            "\"\t\"",
            "\"\\ud800\"",
            "\"\u{7f}\u{80}ä\"",
            "{}",
            "[]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\":1,}",
            "{\"a\" : [ ] }",
            "{\"a\"}",
            "{a:1}",
            "{\"a\":1]",
            "[1}",
            "[[]",
            "[]]",
            " [ 1 , { \"b\" : null } ] ",
            "{\"a\\n\":\"\\\\\"}",
            "[\"0123456\\\"89\",\"01234567\"]",
            "{\"1234567\":12345678}",
            "[1,2],",
            "{,}",
            "[null,true,false]",
        ] {
            assert_eq!(passes(text), is_json(text), "{text}");
        }
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(passes(&deep(64)));
        assert!(!passes(&deep(65)), "left to serde_json");
    }

    #[test]
    fn objects_lists_and_strings_are_read() {
        let mut walk = Walk::new(r#" { "a" : "x" , "b":["\u00e4\"", null , 3], "c":null,"d":{"e":[]}} "#);
        let mut seen = Vec::new();
        let read = walk.object(|walk, key| {
            match key {
                "a" => seen.push(walk.string()?.into_owned()),
                "b" => walk.list(|walk| {
                    let is_string = walk.is_string();
                    seen.push(if is_string {
                        walk.string()?.into_owned()
                    } else {
                        format!("{:?}", present(walk.value()?))
                    });
                    Some(())
                })?,
                _ => seen.push(format!("{key} {:?}", present(walk.value()?))),
            }
            Some(())
        });
        assert!(read.is_some() && walk.is_done());
        assert_eq!(seen, ["x", "ä\"", "None", "Some(\"3\")", "c None", "d Some(\"{\\\"e\\\":[]}\")"]);
        assert!(Walk::new(r#"{"\u0061":1}"#).object(|walk, _| walk.value().map(drop)).is_none(), "an escaped key");
        assert!(Walk::new(r#""\ud800""#).string().is_none());
    }

    proptest! {
        #[test]
        fn a_text_is_passed_if_and_only_if_it_is_json(text in r#"[\[\]{}",:\\ a1eE.+nu\-\t0-]{0,24}"#) {
            prop_assert_eq!(passes(&text), is_json(&text));
            let quoted = format!("[\"{text}\"]");
            prop_assert_eq!(passes(&quoted), is_json(&quoted));
            let listed = format!("{{\"a\":[{text}]}}");
            prop_assert_eq!(passes(&listed), is_json(&listed));
        }
    }
}
