//! A body taken apart: its items, and what stands around them.
//!
//! In: a body that is probably JSON. Out: the items, read in passing where they are as usual, and the body with an empty
//! list in their place. Whatever is wrong inside an item shows when it is read; whatever is odd outside makes this give
//! up, so that the body is read in the slow, exact way.

use std::ops::Range;

use memchr::memchr2;

use super::request::Given;
use super::walk::Walk;

/// A body taken apart.
#[derive(Debug)]
pub struct Split<'a> {
    /// The body with `[]` as its `trajectories`.
    pub envelope: String,
    /// The items.
    pub items: Vec<Given<'a>>,
}

impl<'a> Split<'a> {
    /// Takes a body apart; `None` where it is odd.
    pub fn of(body: &'a str) -> Option<Self> {
        let mut walk = Walk::new(body);
        let mut found: Option<(Range<usize>, Vec<Given<'a>>)> = None;
        walk.object(|walk, key| {
            if key != "trajectories" || found.is_some() {
                return walk.value().map(drop);
            }
            let (start, mut items) = (walk.start(), Vec::new());
            walk.list(|walk| {
                items.push(Given::next(walk)?);
                (items.len() <= super::MAX_TRAJECTORIES).then_some(())
            })?;
            found = Some((start..start + walk.since(start)?.len(), items));
            Some(())
        })?;
        let (list, items) = found.filter(|_| walk.is_done())?;
        let envelope = [body.get(..list.start)?, "[]", body.get(list.end..)?].concat();
        Some(Self { envelope, items })
    }

    /// A body whose items stand at known places, in order and with nothing else in their list; `None` where there are none.
    pub fn of_known(body: &'a str, items: &[Range<usize>]) -> Option<Self> {
        let (first, last) = (items.first()?, items.last()?);
        let envelope = [body.get(..first.start)?, body.get(last.end..)?].concat();
        let items = items.iter().map(|range| body.get(range.clone()).map(Given::of)).collect::<Option<Vec<_>>>()?;
        (items.len() <= super::MAX_TRAJECTORIES).then_some(Self { envelope, items })
    }
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
    use proptest::prelude::*;

    use super::*;

    fn raw<'a>(split: &Split<'a>) -> Vec<&'a str> {
        split.items.iter().map(|item| item.raw).collect()
    }

    #[test]
    fn items_are_found_wherever_the_list_stands() {
        let body = " {\"step\": 3, \"trajectories\" : [ {\"a\": \"}]\\\"\"} , [1,[2]],\"x\" ,null ] , \"tools\":[] } ";
        let found = Split::of(body).unwrap();
        assert_eq!(raw(&found), ["{\"a\": \"}]\\\"\"}", "[1,[2]]", "\"x\"", "null"]);
        assert_eq!(found.envelope, " {\"step\": 3, \"trajectories\" : [] , \"tools\":[] } ");
        assert!(Split::of("{\"trajectories\":[]}").unwrap().items.is_empty());
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
            "{\"step\":01,\"trajectories\":[1]}",
        ] {
            assert!(Split::of(body).is_none(), "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_json_is_taken_apart_as_json(text in "[\\[\\]{}\",:\\\\ a1]{0,40}") {
            let _ = Split::of(&text);
            let body = format!("{{\"trajectories\":[{text}]}}");
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(&body) {
                let found = Split::of(&body).unwrap();
                prop_assert_eq!(found.items.len(), value["trajectories"].as_array().unwrap().len());
            }
        }
    }
}
