//! The JSON of a message's `tool_calls`.
#![no_main]

use gradus_fuzz::{calls, utf8};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(json) = utf8(data, 1 << 16) {
        calls::native(json);
    }
});
