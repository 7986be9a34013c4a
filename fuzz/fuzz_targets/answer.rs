//! A final turn: the first byte chooses the format, which says what is hidden; every place is tried.
#![no_main]

use gradus_fuzz::{calls, choice_and_text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some((choice, text)) = choice_and_text(data) {
        calls::answers(calls::format(choice), text);
    }
});
