//! A schema and arguments grown from the bytes.
#![no_main]

use gradus_fuzz::grow::{self, Bytes};
use gradus_fuzz::{let_panics_unwind, schema};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let_panics_unwind();
    let mut bytes = Bytes(data);
    let schema = grow::schema(&mut bytes);
    let arguments = grow::arguments(&mut bytes);
    schema::check(&schema.to_string(), &arguments);
});
