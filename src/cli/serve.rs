//! `tipserve serve`: the server.

use std::process::ExitCode;

use clap::Args;

/// Flags of `tipserve serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {}

/// Runs the server until it is told to stop.
pub fn run(_args: ServeArgs) -> ExitCode {
    eprintln!("error: this build has no server");
    ExitCode::from(1)
}
