//! A text taken apart in one pass: where the values of an object or a list stand, and those inside them. In: a text that is
//! probably JSON. Out: the places of its values. Only strings and brackets are looked at: whoever gets a value reads it, and
//! says what is wrong with it.

use memchr::memchr2;

/// A value of a text, by the places of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Noted {
    /// Where its key starts and ends, without the quotes; empty where it is no field.
    pub key: (usize, usize),
    /// Where it starts and ends.
    pub value: (usize, usize),
    /// How many noted values it is: itself, and those inside it, which come right after it.
    pub span: usize,
}

/// Why a text was not taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// It is no JSON.
    Odd,
    /// It has more than [`MAX_NOTED`] values.
    TooMany,
}

/// Most values that are noted of a text: a value may be two bytes long, and its note is many more.
pub(crate) const MAX_NOTED: usize = 1 << 20;

/// Takes a text apart: the value that it is, and all values inside it down to `depth` levels, in one pass and in order.
/// Whatever lies deeper is passed over, not read.
///
/// # Errors
/// Where it has brackets that do not match, a key that is none, or too many values.
pub(crate) fn take_apart(text: &str, depth: usize) -> Result<Vec<Noted>, NotTaken> {
    let mut cursor = Cursor { bytes: text.as_bytes(), at: 0 };
    let mut noted = Vec::with_capacity(16);
    cursor.blank();
    let taken = cursor.note((0, 0), depth, &mut noted);
    cursor.blank();
    match taken {
        _ if noted.len() >= MAX_NOTED => Err(NotTaken::TooMany),
        Some(()) if cursor.at == text.len() => Ok(noted),
        _ => Err(NotTaken::Odd),
    }
}

/// A place in a text.
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl Cursor<'_> {
    /// Passes white space.
    fn blank(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// The next byte that is not blank.
    fn next(&mut self) -> Option<u8> {
        self.blank();
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Passes this byte, and white space before it.
    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    /// Passes a string.
    fn string(&mut self) -> Option<()> {
        self.take(b'"')?;
        self.string_rest()
    }

    /// Passes a string whose opening quote was passed.
    fn string_rest(&mut self) -> Option<()> {
        loop {
            let found = self.at + memchr2(b'"', b'\\', self.bytes.get(self.at..)?)?;
            self.at = found + 1;
            if self.bytes.get(found) == Some(&b'"') {
                return Some(());
            }
            self.at += 1;
        }
    }

    /// Passes a value.
    pub(super) fn value(&mut self) -> Option<()> {
        match *self.bytes.get(self.at)? {
            b'"' => self.string(),
            b'{' | b'[' => self.nested(),
            _ => {
                let start = self.at;
                while let Some(byte) = self.bytes.get(self.at) {
                    if matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r') {
                        break;
                    }
                    self.at += 1;
                }
                (self.at > start).then_some(())
            }
        }
    }

    /// Passes an object or a list. Brackets are counted, not matched: reading the item does that.
    fn nested(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => self.string_rest()?,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(());
                    }
                }
                _ => {}
            }
        }
    }

    /// Passes a value and notes it, and what is inside it down to `depth` levels.
    fn note(&mut self, key: (usize, usize), depth: usize, noted: &mut Vec<Noted>) -> Option<()> {
        if noted.len() >= MAX_NOTED {
            return None;
        }
        let (start, place) = (self.at, noted.len());
        noted.push(Noted { key, value: (start, start), span: 1 });
        match self.bytes.get(start)? {
            b'{' if depth > 0 => self.note_members(b'}', depth - 1, noted)?,
            b'[' if depth > 0 => self.note_members(b']', depth - 1, noted)?,
            _ => self.value()?,
        }
        let span = noted.len() - place;
        let this = noted.get_mut(place)?;
        (this.value.1, this.span) = (self.at, span);
        Some(())
    }

    /// Notes the fields of an object, or the elements of a list, by the bracket that ends it.
    fn note_members(&mut self, end: u8, depth: usize, noted: &mut Vec<Noted>) -> Option<()> {
        self.at += 1;
        self.blank();
        if self.bytes.get(self.at) == Some(&end) {
            self.at += 1;
            return Some(());
        }
        loop {
            self.blank();
            let mut key = (0, 0);
            if end == b'}' {
                let start = self.at;
                self.string()?;
                key = (start + 1, self.at - 1);
                self.take(b':')?;
                self.blank();
            }
            self.note(key, depth, noted)?;
            match self.next()? {
                b',' => {}
                found => return (found == end).then_some(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Keys and values as text, with the spans.
    fn texts<'a>(text: &'a str, noted: &[Noted]) -> Vec<(&'a str, &'a str, usize)> {
        noted.iter().map(|n| (&text[n.key.0..n.key.1], &text[n.value.0..n.value.1], n.span)).collect()
    }

    #[test]
    fn values_are_noted_down_to_a_depth() {
        let text = r#" {"a" : {"b":[1,"}"]} , "c":["x\"" , [ ]] , "\u0064":1.50, "e":{} } "#;
        let found = take_apart(text, 2).unwrap();
        let wanted = [
            ("", text.trim(), 8),
            ("a", r#"{"b":[1,"}"]}"#, 2),
            ("b", r#"[1,"}"]"#, 1),
            ("c", r#"["x\"" , [ ]]"#, 3),
            ("", r#""x\"""#, 1),
            ("", "[ ]", 1),
            (r"\u0064", "1.50", 1),
            ("e", "{}", 1),
        ];
        assert_eq!(texts(text, &found), wanted);
        assert_eq!(texts("7", &take_apart("7", 1).unwrap()), [("", "7", 1)]);
        for odd in ["", "{\"a\":1", "{\"a\":1}x", "{\"a\":}", "{1:2}", "[1,]", "[1}"] {
            assert_eq!(take_apart(odd, 3), Err(NotTaken::Odd), "{odd}");
        }
        let many = format!("[{}1]", "1,".repeat(MAX_NOTED));
        assert_eq!(take_apart(&many, 1), Err(NotTaken::TooMany));
        assert_eq!(take_apart(&many, 0).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn no_text_panics_and_the_values_of_json_are_json(text in "[\\[\\]{}\",:\\\\ a1]{0,40}", depth in 0_usize..5) {
            let _ = take_apart(&text, depth);
            let body = format!("{{\"a\":[{text}]}}");
            if serde_json::from_str::<serde::de::IgnoredAny>(&body).is_ok() {
                for noted in take_apart(&body, depth).unwrap() {
                    let value = &body[noted.value.0..noted.value.1];
                    prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(value).is_ok(), "{value}");
                }
            }
        }
    }
}
