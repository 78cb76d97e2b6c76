//! The command line: defined once (clap), one file a command.
//!
//! The commands but for `serve` are clients: they know the generated client
//! (`crate::proto::v1`) and nothing of the server's rooms.

use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

mod about;
mod add;
mod batch;
mod bench;
mod caches;
mod classes;
mod classify;
mod connect;
mod create;
mod credentials;
mod demo;
mod demo_server;
mod documents;
mod draw;
mod embed;
mod evaluate;
mod examples;
mod failure;
mod files;
mod finetune;
mod finetunes;
mod head;
mod info;
mod labelled;
mod load;
mod making;
mod measure;
mod npz;
mod report;
mod requests;
mod screen;
pub mod serve;
mod token;
mod window;

use failure::{Failure, Outcome};
use screen::Screen;

const EXIT_CODES: &str = "\
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

/// Turns a few labelled pictures into a served image classifier.
///
/// `tipserve serve` is the server, all other commands are its clients.
#[derive(Debug, Parser)]
#[command(name = "tipserve", version, max_term_width = 100)]
#[command(after_long_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

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

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(Box<serve::ServeArgs>),
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
    /// Put a load on a server and measure what comes back.
    Bench(Box<bench::BenchArgs>),
    /// Say what the server serves: version, bundle, device, limits.
    Info,
    /// Make a cache from some pictures, classify others, show what came out.
    Demo(demo::DemoArgs),
    /// Make tokens for a server that wants them (`tipserve serve --tokens`).
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Measurements of this machine, for scripts/gpu-check.
    #[command(hide = true)]
    Measure(Box<measure::MeasureArgs>),
    /// Print a shell's completion script.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let command = match cli.command {
        Command::Serve(args) => return serve::run(*args),
        Command::Completions { shell } => return completions(shell),
        Command::Measure(args) => return measure::run(*args),
        command => command,
    };
    let screen = Screen::new(&cli.global);
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
    let outcome = runtime.block_on(async {
        match command {
            // Has something to do when interrupted: cancel its run.
            Command::Finetune(args) => {
                finetune::run(args, &cli.global, &screen, interrupted()).await
            }
            // Reports what there is so far.
            Command::Bench(args) => bench::run(*args, &cli.global, &screen, interrupted()).await,
            command => tokio::select! {
                outcome = dispatch(command, &cli.global, &screen) => outcome,
                () = interrupted() => Err(Failure::Interrupted),
            },
        }
    });
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
        // main() ran these already.
        Command::Serve(_)
        | Command::Completions { .. }
        | Command::Measure(_)
        | Command::Finetune(_)
        | Command::Bench(_) => Ok(Outcome::Done),
    }
}

/// Resolves at Ctrl-C or SIGTERM. Dropping the command's future then cancels
/// its call on the server and removes what it started.
async fn interrupted() {
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

fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tipserve", &mut script);
    match std::io::Write::write_all(&mut std::io::stdout(), &script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(1),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
