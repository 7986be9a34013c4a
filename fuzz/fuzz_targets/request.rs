//! The body of `POST /reward`.
#![no_main]

use gradus_fuzz::{let_panics_unwind, request, utf8};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let_panics_unwind();
    if let Some(body) = utf8(data, 1 << 16) {
        request::body(body);
    }
});
