//! Values that a text has had before. In: a text and a place where a value starts; out: the first one that is equal, if one came
//! before. Tools and system prompts repeat from trajectory to trajectory, and are half of a short one.

/// Places in which values are kept of each kind: texts, of which a body has many that never come again, put no tools out.
const PLACES: usize = 64;
/// Values that a place keeps: lists of tools begin alike that begin with the same tool.
const KEPT: usize = 2;
/// A value is told by its first bytes: as many as it takes to come to a tool's name, behind what every tool begins with.
const HEAD_BYTES: usize = 64;

/// The last values by their first bytes.
pub(super) struct Familiar<'a> {
    kept: [[&'a str; KEPT]; 2 * PLACES],
}

impl Default for Familiar<'_> {
    fn default() -> Self {
        Self { kept: [[""; KEPT]; 2 * PLACES] }
    }
}

impl<'a> Familiar<'a> {
    /// The value that starts here, if it came before: where it came first.
    ///
    /// What is kept ends with its last bracket or quote, so that equal bytes are the whole of it. Comparing takes no longer than
    /// the value is: one that differs does so before its end.
    pub(super) fn equal_at(&self, text: &'a str, at: usize) -> Option<&'a str> {
        let kept = self.kept.get(place(text, at)?)?;
        let rest = text.as_bytes().get(at..)?;
        kept.iter().find(|kept| !kept.is_empty() && rest.starts_with(kept.as_bytes())).copied()
    }

    /// Keeps the value that starts here, if it is long enough.
    pub(super) fn keep(&mut self, text: &'a str, at: usize, value: &'a str) {
        // No number or word: more of it may follow.
        if value.len() < HEAD_BYTES || !value.ends_with([']', '}', '"']) {
            return;
        }
        if let Some(kept) = place(text, at).and_then(|place| self.kept.get_mut(place)) {
            kept.rotate_right(1);
            kept[0] = value;
        }
    }
}

/// Where the value that starts here is kept.
fn place(text: &str, at: usize) -> Option<usize> {
    let head = text.as_bytes().get(at..at + HEAD_BYTES)?;
    let (words, _) = head.as_chunks::<8>();
    let mixed = words.iter().fold(0, |mixed, word| mix(mixed, u64::from_le_bytes(*word)));
    let place = usize::try_from(mixed >> (u64::BITS - PLACES.ilog2())).ok()?;
    Some(if head.starts_with(b"\"") { place + PLACES } else { place })
}

/// Mixes a word into what was mixed so far: cheap, the same every time, and no defence against who aims at collisions.
pub(in crate::http) fn mix(mixed: u64, word: u64) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    (mixed.rotate_left(29) ^ word).wrapping_mul(ODD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_values_are_familiar() {
        let tool = |end: &str| format!("{{\"name\":\"{}\",\"x\":{end}}}", "a".repeat(HEAD_BYTES));
        let text = [tool("1"), tool("1"), tool("2"), tool("12")].concat();
        let length = tool("1").len();
        let mut familiar = Familiar::default();
        assert_eq!(familiar.equal_at(&text, 0), None);
        familiar.keep(&text, 0, &text[..length]);
        let found = [length, 2 * length, 3 * length].map(|at| familiar.equal_at(&text, at));
        assert_eq!(found, [Some(&text[..length]), None, None]);
        assert_eq!(found[0].map(str::as_ptr), Some(text.as_ptr()), "the first one itself");
        assert_eq!(familiar.equal_at(&text, text.len() - 3), None, "too short to be told by its head");
        let digits = "1".repeat(2 * HEAD_BYTES);
        familiar.keep(&digits, 0, &digits[..HEAD_BYTES]);
        assert_eq!(familiar.equal_at(&digits, 0), None, "a number may go on");
        let texts = format!("{0:?}{0:?}", "a".repeat(HEAD_BYTES));
        familiar.keep(&texts, 0, &texts[..texts.len() / 2]);
        assert_eq!(familiar.equal_at(&texts, texts.len() / 2), Some(&texts[..texts.len() / 2]));
    }
}
