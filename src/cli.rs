//! The `tipserve` command line: the client's commands ([`tipserve_cli`]), the
//! load generator ([`tipserve_bench`]), and the server.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tipserve_cli::{EXIT_CODES, Global, Local, ManualArgs, command, completions, manual, parse};

use crate::serve;

/// Turns a few labelled pictures into a served image classifier.
///
/// `tipserve serve` is the server; all other commands are its clients.
#[derive(Debug, Parser)]
#[command(name = "tipserve", version, max_term_width = 100)]
#[command(after_long_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(Box<serve::ServeArgs>),
    #[command(flatten)]
    Client(tipserve_cli::Command),
    /// Put a load on a server and measure its answers.
    Bench(Box<tipserve_bench::BenchArgs>),
    /// Print a shell's completion script.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual's page, or write all its pages into a folder.
    Man(ManualArgs),
}

/// The commands that call no server.
const LOCALS: &[Local] = &[
    ("serve", &[]),
    ("completions", &[]),
    ("man", &[]),
    ("pull", &["json", "quiet"]),
    ("token", &["json", "quiet"]),
];

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli: Cli = parse(LOCALS);
    match cli.command {
        Command::Serve(args) => serve::run(*args),
        Command::Client(command) => tipserve_cli::run(command, &cli.global),
        Command::Bench(args) => tipserve_bench::run(*args, &cli.global),
        Command::Completions { shell } => completions(shell, command::<Cli>(LOCALS)),
        Command::Man(args) => manual(&args, command::<Cli>(LOCALS)),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_well_formed() {
        super::command::<super::Cli>(super::LOCALS).debug_assert();
    }
}
