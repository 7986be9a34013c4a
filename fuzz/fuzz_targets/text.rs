//! An answer on the first line, references on the others; the first byte chooses case, smoothing and order.
#![no_main]

use gradus_fuzz::{choice_and_text, text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some((choice, lines)) = choice_and_text(data) {
        text::lines(choice, lines);
    }
});
