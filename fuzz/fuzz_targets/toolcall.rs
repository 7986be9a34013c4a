//! A policy's turn: the first byte chooses the format (`A` is auto, the others in the order of `ToolFormat::ALL`).
#![no_main]

use gradus_fuzz::{calls, choice_and_text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some((choice, text)) = choice_and_text(data) {
        calls::turn(calls::format(choice), text);
    }
});
