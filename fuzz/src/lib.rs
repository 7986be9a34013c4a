//! What the fuzz targets share: the laws that hold for every input. In: text that a policy, a client or an author might
//! send; out: nothing, or a panic that says which law broke. Knows no fuzzer.

pub mod calls;
pub mod grow;
#[path = "../../tests/scoring/no_judge.rs"]
mod no_judge;
pub mod request;
pub mod rubric;
pub mod schema;
pub mod text;

use std::sync::Once;

/// Lets panics unwind to whoever catches them: the library guards its calls into the schema validator, and the fuzzer
/// still ends on a panic that nobody catches.
pub fn let_panics_unwind() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))));
}

/// Text of at most `bytes`, cut at a character; `None` if it is no UTF-8.
pub fn utf8(data: &[u8], bytes: usize) -> Option<&str> {
    let text = std::str::from_utf8(data).ok()?;
    text.get(..text.floor_char_boundary(bytes))
}

/// The first byte, and the text behind it.
pub fn choice_and_text(data: &[u8]) -> Option<(usize, &str)> {
    let (choice, rest) = data.split_first()?;
    // Seeds are text files that start with a letter, `A` for the first choice.
    Some((usize::from(choice.wrapping_sub(b'A')), utf8(rest, 1 << 16)?))
}
