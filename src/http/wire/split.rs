//! Finding the items of a request without reading them: where each trajectory starts and ends.
//!
//! In: a body that is probably JSON. Out: the items' texts, and the body with an empty list in their place. Only strings
//! and brackets are looked at: whatever is wrong inside an item shows when the item is read, and whatever is odd outside
//! makes this give up, so that the body is read in the slow, exact way.

use memchr::memchr2;

/// A body taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Split<'a> {
    /// The body with `[]` as its `trajectories`.
    pub envelope: String,
    /// The texts of the items.
    pub items: Vec<&'a str>,
}

impl<'a> Split<'a> {
    /// A body whose items stand at known places, in order and with nothing else in their list; `None` where there are none.
    pub fn of_known(body: &'a str, items: &[std::ops::Range<usize>]) -> Option<Self> {
        let (first, last) = (items.first()?, items.last()?);
        let envelope = [body.get(..first.start)?, body.get(last.end..)?].concat();
        let items = items.iter().map(|range| body.get(range.clone())).collect::<Option<Vec<_>>>()?;
        (items.len() <= super::MAX_TRAJECTORIES).then_some(Split { envelope, items })
    }
}

/// Takes a body apart; `None` where it is odd.
pub fn split(body: &str) -> Option<Split<'_>> {
    let mut cursor = Cursor { bytes: body.as_bytes(), at: 0 };
    cursor.take(b'{')?;
    let mut found: Option<(std::ops::Range<usize>, Vec<&str>)> = None;
    loop {
        cursor.blank();
        let key_start = cursor.at;
        cursor.string()?;
        let key = body.get(key_start..cursor.at)?;
        cursor.take(b':')?;
        cursor.blank();
        let start = cursor.at;
        if key == "\"trajectories\"" && found.is_none() {
            let items = cursor.list(body)?;
            found = Some((start..cursor.at, items));
        } else {
            cursor.value()?;
        }
        match cursor.next()? {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    cursor.blank();
    let (range, items) = found?;
    if cursor.at != body.len() {
        return None;
    }
    let envelope = [body.get(..range.start)?, "[]", body.get(range.end..)?].concat();
    Some(Split { envelope, items })
}

/// A place in a text.
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl Cursor<'_> {
    /// Passes white space.
    pub(super) fn blank(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// The next byte that is not blank.
    pub(super) fn next(&mut self) -> Option<u8> {
        self.blank();
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Passes this byte, and white space before it.
    pub(super) fn take(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    /// Passes a string.
    pub(super) fn string(&mut self) -> Option<()> {
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

    /// Passes a list and returns its elements.
    fn list<'b>(&mut self, body: &'b str) -> Option<Vec<&'b str>> {
        self.take(b'[')?;
        let mut items = Vec::new();
        self.blank();
        if self.bytes.get(self.at) == Some(&b']') {
            self.at += 1;
            return Some(items);
        }
        loop {
            self.blank();
            let start = self.at;
            self.value()?;
            if items.len() == super::MAX_TRAJECTORIES {
                return None;
            }
            items.push(body.get(start..self.at)?);
            match self.next()? {
                b',' => {}
                b']' => return Some(items),
                _ => return None,
            }
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn items_are_found_wherever_the_list_stands() {
        let body = " {\"step\": 3, \"trajectories\" : [ {\"a\": \"}]\\\"\"} , [1,[2]],\"x\" ,null ] , \"tools\":[] } ";
        let found = split(body).unwrap();
        assert_eq!(found.items, ["{\"a\": \"}]\\\"\"}", "[1,[2]]", "\"x\"", "null"]);
        assert_eq!(found.envelope, " {\"step\": 3, \"trajectories\" : [] , \"tools\":[] } ");
        assert_eq!(split("{\"trajectories\":[]}").unwrap().items, Vec::<&str>::new());
    }

    #[test]
    fn odd_bodies_are_left_to_the_slow_way() {
        for body in [
            "",
            "{",
            "[]",
            "{}",
            "{\"trajectories\":{}}",
            "{\"trajectories\":[1,]}",
            "{\"trajectories\":[1]}x",
            "{\"trajectories\":[\"a]}",
        ] {
            assert_eq!(split(body), None, "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_json_is_taken_apart_as_json(text in "[\\[\\]{}\",:\\\\ a1]{0,40}") {
            let _ = split(&text);
            let body = format!("{{\"trajectories\":[{text}]}}");
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(&body) {
                let found = split(&body).unwrap();
                prop_assert_eq!(found.items.len(), value["trajectories"].as_array().unwrap().len());
            }
        }
    }
}
