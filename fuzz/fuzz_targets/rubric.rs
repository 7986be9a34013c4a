//! The text of a rubric file.
#![no_main]

use gradus_fuzz::{let_panics_unwind, rubric, utf8};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let_panics_unwind();
    if let Some(text) = utf8(data, 1 << 15) {
        rubric::file(text);
    }
});
