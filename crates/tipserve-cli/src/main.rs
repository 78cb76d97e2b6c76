//! `tipserve-client`: tipserve's commands without its server, so that calling
//! one needs no libtorch.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tipserve_cli::{
    Command, EXIT_CODES, Global, Local, ManualArgs, command, completions, manual, parse, run,
};

/// Calls a tipserve server.
#[derive(Debug, Parser)]
#[command(name = "tipserve-client", version, max_term_width = 100)]
#[command(after_long_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Commands,
}

#[derive(Debug, Subcommand)]
enum Commands {
    #[command(flatten)]
    Client(Command),
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
    ("completions", &[]),
    ("man", &[]),
    ("pull", &["json", "quiet"]),
    ("token", &["json", "quiet"]),
];

fn main() -> ExitCode {
    let cli: Cli = parse(LOCALS);
    match cli.command {
        Commands::Client(command) => run(command, &cli.global),
        Commands::Completions { shell } => completions(shell, command::<Cli>(LOCALS)),
        Commands::Man(args) => manual(&args, command::<Cli>(LOCALS)),
    }
}
