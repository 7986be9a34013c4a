//! What reading calls may take: memory for the values of their arguments, and bytes that reading them leniently may look at.
//! In: values as they are made, or a JSON text. Out: whether they still fit. A few bytes of JSON can become hundreds as
//! values. Reads nothing.

use std::cell::Cell;

use memchr::memchr2;
use serde_json::Value;

use super::ErrorCode;
use super::codes::Fault;

/// Bytes of memory that an element of a list takes, with the places that a list has in reserve.
const ELEMENT_BYTES: usize = 2 * size_of::<Value>();
/// Of a list with an element, beside this: it begins with four places.
const LIST_BYTES: usize = 2 * size_of::<Value>();
/// Of an entry of an object: its key and its hash, too.
const ENTRY_BYTES: usize = ELEMENT_BYTES + 2 * (size_of::<String>() + size_of::<usize>());
/// Of an object with an entry, beside this.
const OBJECT_BYTES: usize = 320;

/// What the calls of a trajectory may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes of memory for values, beside their texts. A turn that is read in both modes may take it twice for a moment.
    values: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { values: 32 << 20 }
    }
}

/// What reading one text may still take.
pub(super) struct Budget {
    whole: Room,
    left: Cell<Room>,
    /// Whether something did not fit since this was last asked.
    exceeded: Cell<bool>,
    /// Bytes that lenient reading may still look at. Strict JSON stops at the first marker outside a string, so two
    /// attempts at most ever read the same byte; comments break that.
    fuel: Cell<usize>,
}

impl Budget {
    /// For a text of this many bytes.
    pub(super) fn new(room: Room, text_bytes: usize) -> Self {
        let fuel = Cell::new(text_bytes.saturating_mul(4).saturating_add(4096));
        Self { whole: room, left: Cell::new(room), exceeded: Cell::new(false), fuel }
    }

    /// What is left.
    pub(super) fn room(&self) -> Room {
        self.left.get()
    }

    /// Gives back what was taken since this was left: what it was taken for is not kept.
    pub(super) fn rewind(&self, room: Room) {
        self.left.set(room);
    }

    /// Does work whose values are kept only where it succeeds.
    pub(super) fn if_kept<T, E>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let room = self.room();
        work().inspect_err(|_| self.rewind(room))
    }

    /// Gives everything back.
    pub(super) fn rewind_all(&self) {
        self.left.set(self.whole);
    }

    /// Whether something did not fit since this was last asked.
    pub(super) fn take_exceeded(&self) -> bool {
        self.exceeded.take()
    }

    /// Whether lenient reading may look at more.
    pub(super) fn has_fuel(&self) -> bool {
        self.fuel.get() > 0
    }

    /// Counts bytes that lenient reading has looked at.
    pub(super) fn burn(&self, bytes: usize) {
        self.fuel.set(self.fuel.get().saturating_sub(bytes));
    }

    /// Counts the next element of a list that has so many.
    pub(super) fn element(&self, before: usize) -> Option<()> {
        self.take(if before == 0 { LIST_BYTES + ELEMENT_BYTES } else { ELEMENT_BYTES })
    }

    /// Counts the next entry of an object that has so many.
    pub(super) fn entry(&self, before: usize) -> Option<()> {
        self.take(if before == 0 { OBJECT_BYTES + ENTRY_BYTES } else { ENTRY_BYTES })
    }

    fn take(&self, bytes: usize) -> Option<()> {
        let left = self.left.get().values.checked_sub(bytes);
        match left {
            Some(values) => self.left.set(Room { values }),
            None => self.exceeded.set(true),
        }
        left.map(|_| ())
    }
}

/// What does not fit.
pub(super) const TOO_MANY: &str =
    "the arguments of the trajectory's calls hold more values than there is memory for; write fewer, or a text";

/// The fault of a value that does not fit.
pub(super) fn too_many(at: usize) -> Fault {
    Fault::new(ErrorCode::TooManyValues, at, TOO_MANY)
}

/// The key that `serde_json` reserves: what `Value`'s own reader finds under it is a text of JSON that it reads, too.
const RESERVED_KEY: &str = "$serde_json::private::RawValue";

/// Bytes of memory that the first value of `json` takes beside its texts, as `Value`'s own reader makes it; `None` where
/// that is more than `limit`. No more, if it is no JSON, than what reading would have made of it.
pub(crate) fn values_bytes(json: &str, limit: usize) -> Option<usize> {
    let (text, json, mut values, mut depth, mut at) = (json, json.as_bytes(), 0_usize, 0_usize, 0);
    // The latest string, and whether it is one that is read as JSON.
    let (mut string, mut is_json) = (0..0, false);
    while let Some(byte) = json.get(at) {
        at += 1;
        match byte {
            b'{' => (values, depth) = (values + OBJECT_BYTES, depth + 1),
            b'[' => (values, depth) = (values + LIST_BYTES + ELEMENT_BYTES, depth + 1),
            b',' => values += ELEMENT_BYTES,
            b':' => {
                values += ENTRY_BYTES;
                is_json = is_reserved(text.get(std::mem::take(&mut string)).unwrap_or_default());
                continue;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                string = at - 1..past_string(json, at);
                at = string.end;
                if is_json {
                    values = values.saturating_add(string.len().saturating_mul(LIST_BYTES + ELEMENT_BYTES));
                }
            }
            b' ' | b'\t' | b'\n' | b'\r' => continue,
            b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'E' => {}
            // No JSON: reading stops here, too.
            _ => break,
        }
        is_json = false;
        if depth == 0 || values > limit {
            break;
        }
    }
    (values <= limit).then_some(values)
}

/// Whether a string in its quotes is [`RESERVED_KEY`], however it is escaped.
fn is_reserved(quoted: &str) -> bool {
    quoted.len() > RESERVED_KEY.len()
        && (quoted.contains(RESERVED_KEY) || quoted.contains('\\'))
        && serde_json::from_str::<String>(quoted).is_ok_and(|key| key == RESERVED_KEY)
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
mod tests {
    use super::*;

    #[test]
    fn brackets_commas_and_colons_outside_strings_take_memory() {
        let bytes = |json: &str| values_bytes(json, usize::MAX).unwrap_or_default();
        let object = r#" {"a,:{[": "\"]}\\", "b": 1}"#;
        assert_eq!(bytes(&format!("{object}, {object}")), OBJECT_BYTES + 2 * ENTRY_BYTES + ELEMENT_BYTES);
        assert_eq!(bytes("[1, [], -2.5e+3]!"), 2 * LIST_BYTES + 4 * ELEMENT_BYTES);
        assert_eq!(bytes(r#""text, with: [marks]", 1"#), 0);
        assert_eq!(bytes("[1, <tool_call>[[[["), LIST_BYTES + 2 * ELEMENT_BYTES);
        assert_eq!(bytes(r#"["open, "#), LIST_BYTES + ELEMENT_BYTES);
        let two = 2 * (LIST_BYTES + ELEMENT_BYTES);
        assert_eq!((values_bytes("[[[]]]", two), values_bytes("[[]]", two)), (None, Some(two)));
    }

    #[test]
    fn a_text_that_is_read_as_json_takes_what_its_values_may() {
        let limit = 1 << 20;
        for key in [RESERVED_KEY, r"\u0024serde_json::private::RawValue", r"$serde_json::private::Raw\u0056alue"] {
            let short = format!(r#"[{{"{key}": "[0,0]"}}]"#);
            assert!(values_bytes(&short, limit).is_some(), "{key}");
            // What the library makes of it, and so what must be counted.
            assert_eq!(serde_json::from_str::<Value>(&short).unwrap(), serde_json::json!([[0, 0]]), "{key}");
            let long = format!(r#"[{{"{key}" : "[{}0]"}}]"#, "0,".repeat(limit / 64));
            assert_eq!(values_bytes(&long, limit), None, "{key}");
            assert!(values_bytes(&long.replace("Raw", "raw"), limit).is_some(), "{key}");
        }
    }

    #[test]
    fn what_is_not_kept_is_given_back() {
        let budget = Budget::new(Room { values: LIST_BYTES + 2 * ELEMENT_BYTES }, 0);
        let whole = budget.room();
        assert!(budget.element(0).is_some() && budget.element(1).is_some() && !budget.take_exceeded());
        assert!(budget.element(2).is_none() && budget.take_exceeded() && !budget.take_exceeded());
        budget.rewind(whole);
        assert!(budget.element(0).is_some());
        budget.rewind_all();
        assert_eq!(budget.room(), whole);
    }
}
