//! The `gradus` program: hands over to the command line and turns its result into the exit code.

use std::process::ExitCode;

// Scoring makes many small, short-lived values on many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    gradus::cli::main()
}
