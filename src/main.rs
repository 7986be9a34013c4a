//! The `gradus` program: sets the allocator up, hands over to the command line and turns its result into the exit code.

use std::ffi::{c_int, c_long};
use std::process::ExitCode;

// Scoring makes many small, short-lived values on many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long freed memory is kept before the system gets it back, in milliseconds. What a loaded server frees within the
/// second that is the allocator's own choice can be more than what it uses.
const PURGE_DELAY_MS: c_long = 50;

/// `mi_option_purge_delay` in mimalloc's header.
const PURGE_DELAY: c_int = 15;

// The library is linked for its crate, which does not name these.
#[expect(unsafe_code, reason = "the allocator has no other way to set what is measured as the server's memory")]
unsafe extern "C" {
    fn mi_option_set_default(option: c_int, value: c_long);
    #[cfg(test)]
    fn mi_option_get(option: c_int) -> c_long;
}

fn main() -> ExitCode {
    give_back_early();
    gradus::cli::main()
}

/// Sets [`PURGE_DELAY_MS`], unless `MIMALLOC_PURGE_DELAY` in the environment says something else.
#[expect(unsafe_code, reason = "calls the allocator's library")]
fn give_back_early() {
    // SAFETY: a store to an option of the allocator, which every thread may do at any time.
    unsafe { mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) }
}

/// An option that another version of the library numbers otherwise would have another default.
#[test]
#[expect(unsafe_code, reason = "as above")]
fn the_option_is_the_purge_delay() {
    // SAFETY: a load of an option of the allocator.
    let get = || unsafe { mi_option_get(PURGE_DELAY) };
    assert_eq!(get(), 1000);
    give_back_early();
    assert_eq!(get(), PURGE_DELAY_MS);
}
