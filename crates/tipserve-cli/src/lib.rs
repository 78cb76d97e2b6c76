//! tipserve's command line for everything but the server itself.
//!
//! Each command is a gRPC client in a file of its own. Nothing here links
//! libtorch: `tipserve-client` is these commands as a small binary, and the
//! `tipserve` binary adds `serve` and `bench` to them.
//!
//! - [`Command`]: the commands, parsed by clap. [`run`] runs one to its end.
//! - [`Global`]: what every command takes: where the server listens, and how
//!   the caller is known to it.
//! - [`failure::Failure`]: why a command failed; its exit code and its text.

use std::process::ExitCode;

use clap::{Args, Subcommand};

mod about;
mod add;
mod batch;
mod caches;
mod classes;
mod classify;
pub mod connect;
mod create;
pub mod credentials;
mod demo;
mod demo_server;
mod documents;
mod draw;
mod embed;
mod evaluate;
mod examples;
pub mod failure;
pub mod files;
mod finetune;
mod finetunes;
mod head;
mod info;
mod labelled;
pub mod load;
mod making;
pub mod npz;
mod report;
mod requests;
pub mod screen;
mod token;
mod window;

use failure::{Failure, Outcome};
use screen::Screen;

/// What the exit codes mean, for the end of a program's long help.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed
  2    the command line is wrong
  3    not found: a cache, version, alias, run, file or folder
  4    done, but some items failed; each is reported
  5    the server cannot be reached, or is not ready
  6    somebody else changed the cache first (--if-etag); nothing was changed
  130  interrupted (Ctrl-C)

With --json an error is one document {\"error\": {...}} on standard output; all
field names are in docs/cli.md.";

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Where the server listens: "host:port", "http://host:port", or "https://host:port" for TLS.
    #[arg(
        long,
        global = true,
        env = "TIPSERVE_SERVER",
        default_value = "http://127.0.0.1:50051",
        value_name = "ADDRESS"
    )]
    pub server: String,

    /// Print JSON (docs/cli.md lists the fields) instead of text.
    #[arg(long, global = true)]
    pub json: bool,

    /// Neither progress bars nor remarks on standard error; errors only.
    #[arg(short, long, global = true)]
    pub quiet: bool,

    /// Who calls, and whom it trusts.
    #[command(flatten)]
    pub credentials: credentials::Credentials,
}

/// The commands, but for those that are the server or measure it.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a cache (a new version of it, where it is there) from examples.
    Create(Box<create::CreateArgs>),
    /// Make a version of a cache from an earlier one: add and remove examples
    /// and classes, without encoding again what is there.
    Add(Box<add::AddArgs>),
    /// Classify pictures, or embeddings from an .npz file.
    Classify(classify::ClassifyArgs),
    /// Measure how well one version, or several side by side, classify.
    Evaluate(evaluate::EvaluateArgs),
    /// Train a cache's keys (Tip-Adapter-F) and store them as a new version.
    Finetune(finetune::FineTuneArgs),
    /// Look at and cancel fine-tuning runs.
    #[command(subcommand)]
    Finetunes(finetunes::FineTunesCommand),
    /// List, show, alias, roll back, delete, export and import caches.
    #[command(subcommand)]
    Caches(caches::CachesCommand),
    /// Embed pictures and texts; prints JSON.
    Embed(embed::EmbedArgs),
    /// Say what the server serves: version, bundle, device, limits.
    Info,
    /// Make a cache from some pictures, classify others, show what came out.
    Demo(demo::DemoArgs),
    /// Make tokens for a server that wants them (`tipserve serve --tokens`).
    #[command(subcommand)]
    Token(token::TokenCommand),
}

/// Runs a command, and says on standard error why it failed if it did.
pub fn run(command: Command, global: &Global) -> ExitCode {
    execute(global, async |screen| match command {
        // Has something to do when interrupted: cancel its run.
        Command::Finetune(args) => finetune::run(args, global, screen, interrupted()).await,
        command => tokio::select! {
            outcome = dispatch(command, global, screen) => outcome,
            () = interrupted() => Err(Failure::Interrupted),
        },
    })
}

/// Runs `work` as a command is run: on a small runtime, with its failure said on
/// standard error and turned into an exit code.
pub fn execute(
    global: &Global,
    work: impl AsyncFnOnce(&Screen) -> Result<Outcome, Failure>,
) -> ExitCode {
    let screen = Screen::new(global);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::from(1);
        }
    };
    let outcome = runtime.block_on(work(&screen));
    // A thread that reads a slow file must not hold up the exit.
    runtime.shutdown_background();
    match outcome {
        Ok(outcome) => outcome.exit_code(),
        Err(failure) => {
            screen.failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn dispatch(command: Command, global: &Global, screen: &Screen) -> Result<Outcome, Failure> {
    match command {
        Command::Create(args) => create::run(*args, global, screen).await,
        Command::Add(args) => add::run(*args, global, screen).await,
        Command::Classify(args) => classify::run(args, global, screen).await,
        Command::Evaluate(args) => evaluate::run(args, global, screen).await,
        Command::Finetunes(command) => finetunes::run(command, global, screen).await,
        Command::Caches(command) => caches::run(command, global, screen).await,
        Command::Embed(args) => embed::run(args, global, screen).await,
        Command::Info => info::run(global, screen).await,
        Command::Demo(args) => demo::run(args, global, screen).await,
        Command::Token(command) => token::run(&command, screen).map(|()| Outcome::Done),
        // Run by `run`, which also tells it of interruptions.
        Command::Finetune(_) => Ok(Outcome::Done),
    }
}

/// Resolves at Ctrl-C or SIGTERM. Dropping the command's future then cancels
/// its call on the server and removes what it started.
pub async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

/// Prints a shell's completion script for `command`.
pub fn completions(shell: clap_complete::Shell, mut command: clap::Command) -> ExitCode {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    match std::io::Write::write_all(&mut std::io::stdout(), &script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(1),
    }
}
