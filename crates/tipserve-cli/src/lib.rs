//! tipserve's command line for everything but the server itself.
//!
//! Each command is a gRPC client in a file of its own. Nothing here links
//! libtorch: `tipserve-client` is these commands as a small binary, and the
//! `tipserve` binary adds `serve` and `bench` to them.
//!
//! - [`Command`]: the commands, parsed by clap; [`run`] runs one to its end.
//! - [`Global`]: the flags that every command takes: where the server is, and
//!   how the caller is known to it.
//! - [`Failure`](failure::Failure): why a command failed: its exit code, and
//!   what it prints.
//!
//! ```
//! use clap::Parser;
//! use tipserve_cli::{Command, Global};
//!
//! #[derive(Parser)]
//! struct Cli {
//!     #[command(flatten)]
//!     global: Global,
//!     #[command(subcommand)]
//!     command: Command,
//! }
//!
//! let cli = Cli::try_parse_from(["client", "caches", "list", "--server", "gpu-1"])?;
//! assert_eq!(cli.global.server, "gpu-1");
//! // tipserve_cli::run(cli.command, &cli.global) lists the caches of that server.
//! # Ok::<(), clap::Error>(())
//! ```

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Subcommand;

mod about;
mod add;
mod address;
mod analyze;
mod bundles;
mod caches;
mod class_names;
mod classify;
mod classify_stream;
mod command_line;
pub mod connect;
mod create;
pub mod credentials;
mod demo;
mod documents;
mod drift;
mod embed;
mod evaluate;
mod evaluation_page;
mod examples;
pub mod failure;
pub mod files;
mod finetune;
mod finetunes;
mod folder;
mod global;
mod head;
mod info;
mod inline_address;
mod labelled;
mod lists;
mod manual;
pub mod npz;
mod pull;
mod reader;
mod reject;
mod report;
mod requests;
pub mod screen;
mod source;
mod splits;
mod suggest;
mod tables;
mod terminal;
mod token;
mod transport;
mod unlabelled;
mod upload;
mod version_call;

pub use command_line::{Local, command, parse};
pub use global::Global;
pub use manual::{ManualArgs, manual};

use failure::{Completion, Failure};
use screen::Screen;

/// What the exit codes mean, for the end of a program's long help.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed
  2    the command line is wrong
  3    not found: a cache, version, alias, run, file or folder
  4    done, but some items failed; each is reported
  5    the server cannot be reached, does not answer in time, or is not ready
  6    somebody else changed the cache first (--if-etag); nothing was changed
  130  interrupted (Ctrl-C)

With --json an error is one document {\"error\": {...}} on standard output.
docs/cli.md lists all field names.";

/// The commands, except those that are the server or measure it.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a cache from examples, or a new version of an existing one.
    Create(Box<create::CreateArgs>),
    /// Make a version of a cache from an earlier one: add and remove examples
    /// and classes, without encoding the others again.
    Add(Box<add::AddArgs>),
    /// Classify pictures, or embeddings from an .npz file.
    Classify(classify::ClassifyArgs),
    /// Measure how well one version, or several side by side, classify.
    Evaluate(evaluate::EvaluateArgs),
    /// Say what a version's own examples tell: how accuracy grows, which classes
    /// are confused, which examples are doubtful or the same.
    Analyze(analyze::AnalyzeArgs),
    /// Say how the pictures that a version is asked differ from its examples.
    Drift(drift::DriftArgs),
    /// Say which of many unlabelled pictures to label first.
    Suggest(suggest::SuggestArgs),
    /// Fine-tune a version into a new one, if that is better.
    Finetune(finetune::FineTuneArgs),
    /// Look at and cancel fine-tuning runs.
    #[command(subcommand)]
    Finetunes(finetunes::FineTunesCommand),
    /// List, show, alias, roll back, delete, export and import caches.
    #[command(subcommand)]
    Caches(caches::CachesCommand),
    /// List, load and unload the bundles that the server serves.
    #[command(subcommand)]
    Bundles(bundles::BundlesCommand),
    /// Embed pictures and texts; prints JSON.
    Embed(embed::EmbedArgs),
    /// Show what the server serves: version, bundle, device, limits.
    Info,
    /// Create a cache from some pictures, classify others, show how well it did.
    Demo(demo::DemoArgs),
    /// Fetch a bundle, checked and kept by its content.
    Pull(pull::PullArgs),
    /// Make tokens for a server that asks for them (`tipserve serve --tokens`).
    #[command(subcommand)]
    Token(token::TokenCommand),
}

/// Runs a command to its end; if it fails, standard error says why.
pub fn run(command: Command, global: &Global) -> ExitCode {
    execute(global, async |screen| match command {
        // It has something to do when interrupted: cancel its run.
        Command::Finetune(args) => finetune::run(args, global, screen, interrupted()).await,
        command => tokio::select! {
            outcome = dispatch(command, global, screen) => outcome,
            () = interrupted() => Err(Failure::Interrupted),
        },
    })
}

/// Runs `work` as [`run`] runs a command: on a small runtime; a failure is
/// printed and becomes the exit code.
pub fn execute(
    global: &Global,
    work: impl AsyncFnOnce(&Screen) -> Result<Completion, Failure>,
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
    // A thread that reads a slow file must not delay the exit.
    runtime.shutdown_background();
    match outcome {
        Ok(outcome) => outcome.exit_code(),
        Err(failure) => {
            screen.failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn dispatch(
    command: Command,
    global: &Global,
    screen: &Screen,
) -> Result<Completion, Failure> {
    match command {
        Command::Create(args) => create::run(*args, global, screen).await,
        Command::Add(args) => add::run(*args, global, screen).await,
        Command::Classify(args) => classify::run(args, global, screen).await,
        Command::Evaluate(args) => evaluate::run(args, global, screen).await,
        Command::Analyze(args) => analyze::run(args, global, screen).await,
        Command::Drift(args) => drift::run(args, global, screen).await,
        Command::Suggest(args) => suggest::run(args, global, screen).await,
        Command::Finetunes(command) => finetunes::run(command, global, screen).await,
        Command::Caches(command) => caches::run(command, global, screen).await,
        Command::Bundles(command) => bundles::run(command, global, screen).await,
        Command::Embed(args) => embed::run(args, global, screen).await,
        Command::Info => info::run(global, screen).await,
        Command::Demo(args) => demo::run(args, global, screen).await,
        Command::Pull(args) => pull::run(args, screen).await,
        Command::Token(command) => token::run(&command, screen).map(|()| Completion::Done),
        Command::Finetune(args) => {
            finetune::run(args, global, screen, std::future::pending()).await
        }
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

/// Prints a shell's completion script for a program.
pub fn completions(shell: clap_complete::Shell, mut command: clap::Command) -> ExitCode {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    match std::io::Write::write_all(&mut std::io::stdout(), &script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(1),
    }
}
