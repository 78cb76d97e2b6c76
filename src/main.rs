//! The `tipserve` binary: parse the command line, run one command.

use std::process::ExitCode;

/// Of the whole process: it takes the place of C's `malloc` too, which libtorch calls. glibc's
/// returns the tensors of a large batch to the system and takes them again page by page, a fifth
/// of the time of some encoders (`docs/performance.md`).
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tipserve::cli::main()
}
