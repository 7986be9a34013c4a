//! A schema on the first line, arguments on the rest.
#![no_main]

use gradus_fuzz::{let_panics_unwind, schema, utf8};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let_panics_unwind();
    let Some((schema, arguments)) = utf8(data, 1 << 15).and_then(|text| text.split_once('\n')) else { return };
    let arguments = serde_json::from_str(arguments).unwrap_or_else(|_| serde_json::json!({"a": 1}));
    schema::check(schema, &arguments);
});
