//! The `tipserve` binary: parse the command line, run one command.

use std::process::ExitCode;

fn main() -> ExitCode {
    tipserve::cli::main()
}
