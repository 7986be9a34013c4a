//! What reading calls may take: memory for the values of their arguments, and bytes that reading them leniently may look at.
//! In: JSON before it is read, or a value's kind as it is made. Out: whether it still fits. A few bytes of JSON can become
//! hundreds as values. Reads nothing.

use std::cell::Cell;

use memchr::memchr2;
use serde_json::Value;

use super::ErrorCode;
use super::codes::Fault;

/// Bytes of memory that an element of a list takes, with the places that a list has in reserve.
const ELEMENT_BYTES: usize = 2 * size_of::<Value>();
/// Of an entry of an object: its key and its hash, too.
const ENTRY_BYTES: usize = ELEMENT_BYTES + 2 * (size_of::<String>() + size_of::<usize>());
/// Of an object with room for its first entries.
const OBJECT_BYTES: usize = 512;

/// What all calls of a trajectory may still take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes of JSON that are read without looking at what they become: few enough, whatever they become.
    unweighed: usize,
    /// Bytes of memory for values of JSON beyond that.
    values: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { unweighed: 128 << 10, values: 32 << 20 }
    }
}

/// What reading one text may still take.
pub(super) struct Budget {
    room: Cell<Room>,
    /// Bytes that lenient reading may still look at. Strict JSON stops at the first marker outside a string, so two
    /// attempts at most ever read the same byte; comments break that.
    fuel: Cell<usize>,
}

impl Budget {
    /// For a text of this many bytes.
    pub(super) fn new(room: Room, text_bytes: usize) -> Self {
        Self { room: Cell::new(room), fuel: Cell::new(text_bytes.saturating_mul(4).saturating_add(4096)) }
    }

    /// What is left for the next text.
    pub(super) fn room(&self) -> Room {
        self.room.get()
    }

    /// Whether lenient reading may look at more.
    pub(super) fn has_fuel(&self) -> bool {
        self.fuel.get() > 0
    }

    /// Counts bytes that lenient reading has looked at.
    pub(super) fn burn(&self, bytes: usize) {
        self.fuel.set(self.fuel.get().saturating_sub(bytes));
    }

    /// Counts an element of a list.
    pub(super) fn element(&self) -> Option<()> {
        self.take(ELEMENT_BYTES)
    }

    /// Counts an entry of an object.
    pub(super) fn entry(&self) -> Option<()> {
        self.take(ENTRY_BYTES)
    }

    /// Counts an object without its entries.
    pub(super) fn object(&self) -> Option<()> {
        self.take(OBJECT_BYTES)
    }

    /// Counts JSON that strict reading is about to read, and after it the bytes that it took.
    pub(super) fn json<T>(
        &self,
        rest: &str,
        at: usize,
        read: impl FnOnce() -> Result<(T, usize), Fault>,
    ) -> Result<(T, usize), Fault> {
        let room = self.room.get();
        if rest.len() <= room.unweighed {
            let (value, end) = read()?;
            self.room.set(Room { unweighed: room.unweighed.saturating_sub(end.saturating_sub(at)), ..room });
            return Ok((value, end));
        }
        let weighed = weigh(rest.as_bytes(), room.values);
        self.take(weighed.values).ok_or_else(|| too_many(at + rest.floor_char_boundary(weighed.end)))?;
        read()
    }

    fn take(&self, bytes: usize) -> Option<()> {
        let room = self.room.get();
        self.room.set(Room { values: room.values.checked_sub(bytes)?, ..room });
        Some(())
    }
}

/// The fault of a value that does not fit.
pub(super) fn too_many(at: usize) -> Fault {
    let what = "the arguments of the trajectory's calls hold too many values; the server keeps about 32 MiB of them";
    Fault::new(ErrorCode::TooManyValues, at, what)
}

/// Whether JSON becomes values of no more than `bytes` of memory, beside their texts.
pub(crate) fn values_fit(json: &str, bytes: usize) -> bool {
    // No byte becomes more than an empty object.
    json.len() <= bytes / OBJECT_BYTES || weigh(json.as_bytes(), bytes).values <= bytes
}

struct Weighed {
    /// Bytes of memory.
    values: usize,
    /// Where the value ends, or where it became too large or is no JSON.
    end: usize,
}

/// What the first value of `json` takes as a [`Value`] beside its texts; stops above `limit`.
fn weigh(json: &[u8], limit: usize) -> Weighed {
    let (mut values, mut depth, mut end) = (0_usize, 0_usize, 0);
    while let Some(byte) = json.get(end) {
        end += 1;
        match byte {
            b'{' => (values, depth) = (values + OBJECT_BYTES, depth + 1),
            b'[' => (values, depth) = (values + ELEMENT_BYTES, depth + 1),
            b',' => values += ELEMENT_BYTES,
            b':' => values += ENTRY_BYTES,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => end = past_string(json, end),
            b' ' | b'\t' | b'\n' | b'\r' => continue,
            b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'E' => {}
            // No JSON: reading stops here, too.
            _ => break,
        }
        if depth == 0 || values > limit {
            break;
        }
    }
    Weighed { values, end }
}

/// Where the string ends whose inside begins at `at`.
fn past_string(json: &[u8], mut at: usize) -> usize {
    while let Some(found) = json.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found + 1;
        if json.get(at - 1) == Some(&b'"') {
            return at;
        }
        at += 1;
    }
    json.len()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn weight(json: &str) -> (usize, usize) {
        let weighed = weigh(json.as_bytes(), usize::MAX);
        (weighed.values, weighed.end)
    }

    #[test]
    fn brackets_commas_and_colons_outside_strings_weigh() {
        let object = r#" {"a,:{[": "\"]}\\", "b": 1}"#;
        assert_eq!(
            weight(&format!("{object}, {object}")),
            (OBJECT_BYTES + 2 * ENTRY_BYTES + ELEMENT_BYTES, object.len())
        );
        assert_eq!(weight("[1, [], -2.5e+3]!"), (4 * ELEMENT_BYTES, 16));
        assert_eq!(weight(r#""text, with: [marks]", 1"#), (0, 21));
        assert_eq!(weight("[1, <tool_call>[[[["), (2 * ELEMENT_BYTES, 5));
        assert_eq!(weight(r#"["open"#), (ELEMENT_BYTES, 6));
        assert_eq!(weigh(b"[[[[[[[[", 3 * ELEMENT_BYTES).end, 4);
    }

    #[test]
    fn short_texts_are_read_unweighed_until_there_are_many() {
        let budget = Budget::new(Room { unweighed: 10, values: 3 * ELEMENT_BYTES }, 0);
        let read = |json: &str| budget.json(json, 0, || Ok(((), json.len()))).map_err(|fault| (fault.code, fault.at));
        assert!(read("[1,2,3,4]").is_ok());
        assert_eq!(budget.room(), Room { unweighed: 1, values: 3 * ELEMENT_BYTES });
        assert!(read("[1,2]").is_ok());
        assert_eq!(budget.room(), Room { unweighed: 1, values: ELEMENT_BYTES });
        assert_eq!(read("[1,2]"), Err((ErrorCode::TooManyValues, 3)));
        assert!(read("[]").is_ok());
    }
}
