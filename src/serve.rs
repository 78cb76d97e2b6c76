//! `tipserve serve`: the server.

use std::{io::Write as _, path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    auth::Authenticator,
    config::{self, Config, Given},
    server::Server,
    telemetry::{self, Exporter},
};

/// The command line is wrong (see `tipserve --help`).
const USAGE: u8 = 2;
const FAILED: u8 = 1;

/// Flags of `tipserve serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// TOML file with settings, named as the flags with '_' for '-'. Flags and
    /// environment win over it.
    #[arg(long, env = "TIPSERVE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    given: Given,
}

/// Runs the server until SIGTERM or Ctrl-C.
pub fn run(args: ServeArgs) -> ExitCode {
    let settings = match &args.config {
        None => Ok(args.given),
        Some(file) => config::read_file(file).map(|file| args.given.over(file)),
    };
    let config = match settings.and_then(Config::resolve) {
        Ok(config) => config,
        Err(error) => return refuse(&error, USAGE),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&error, FAILED),
    };
    let exporter = {
        // The exporter's connection lives on the runtime.
        let _entered = runtime.enter();
        config.otlp_endpoint.as_deref().map(Exporter::new)
    };
    let exporter = match exporter.transpose() {
        Ok(exporter) => exporter,
        Err(error) => return refuse(&error, USAGE),
    };
    telemetry::install_tracing(config.log_format, exporter.as_ref());
    let code = runtime.block_on(serve(config));
    if let Some(exporter) = exporter {
        exporter.shut_down();
    }
    code
}

async fn serve(config: Config) -> ExitCode {
    let warnings = config
        .guard
        .check_addresses(config.listen, config.metrics_listen)
        .unwrap_or_default();
    let metrics = match telemetry::install_metrics() {
        Ok(metrics) => metrics,
        Err(error) => return refuse(&error, FAILED),
    };
    // Asked for before the server starts, so that no signal is missed.
    let reloads = config.guard.tls.is_some() || config.guard.tokens.is_some();
    let signals = signal(SignalKind::terminate()).and_then(|terminate| {
        let hangup = reloads.then(|| signal(SignalKind::hangup())).transpose()?;
        Ok((terminate, signal(SignalKind::interrupt())?, hangup))
    });
    let (mut terminate, mut interrupt, hangup) = match signals {
        Ok(signals) => signals,
        Err(error) => return refuse(&error, FAILED),
    };
    let server = tokio::select! {
        server = Server::start(config, metrics) => match server {
            Ok(server) => server,
            Err(error) => return refuse(&error, FAILED),
        },
        _ = terminate.recv() => return ExitCode::SUCCESS,
        _ = interrupt.recv() => return ExitCode::SUCCESS,
    };
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    // Whoever started the server may have closed its output.
    let _ = writeln!(
        std::io::stdout(),
        "tipserve: serving on {} (metrics on {})",
        server.address,
        server.metrics_address
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = read_again_at(hangup, server.guard()) => {}
    }
    tracing::info!("shutting down");
    server.shut_down().await;
    ExitCode::SUCCESS
}

/// Reads certificates and tokens again at each SIGHUP; never ends. Where there
/// is nothing to read, the signal keeps its meaning: the terminal is gone.
async fn read_again_at(hangup: Option<Signal>, guard: &Arc<Authenticator>) {
    if let Some(mut hangup) = hangup {
        while hangup.recv().await.is_some() {
            let guard = Arc::clone(guard);
            let _ = tokio::task::spawn_blocking(move || guard.refresh()).await;
        }
    }
    std::future::pending().await
}

fn refuse(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(code)
}
