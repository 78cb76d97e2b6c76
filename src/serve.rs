//! `tipserve serve`: the server.

use std::{io::Write as _, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    auth::Authenticator,
    config::{self, Config, Given},
    server::Server,
    telemetry::{self, Exporter, LogFormat},
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
    // Failures are told in the log's format, as far as it is known by then.
    let format = args.given.log_format.unwrap_or_default();
    let given = match &args.config {
        None => args.given,
        Some(file) => match config::read_file(file) {
            Ok(file) => args.given.over(file),
            Err(error) => return refuse(&error, format, USAGE),
        },
    };
    let format = given.log_format.unwrap_or_default();
    let config = match Config::resolve(given) {
        Ok(config) => config,
        Err(error) => return refuse(&error, format, USAGE),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&error, format, FAILED),
    };
    let exporter = {
        // The exporter's connection lives on the runtime.
        let _entered = runtime.enter();
        config.otlp_endpoint.as_deref().map(Exporter::new)
    };
    let exporter = match exporter.transpose() {
        Ok(exporter) => exporter,
        Err(error) => return refuse(&error, format, USAGE),
    };
    let logs = telemetry::install_tracing(config.log_format, exporter.as_ref());
    let code = runtime.block_on(serve(config));
    if let Some(exporter) = exporter {
        exporter.shut_down();
    }
    drop(logs);
    end(code)
}

/// Ends the process at once. A thread may still compute, or wait for a disk
/// that does not answer; it must neither hold the process up, as dropping the
/// runtime would, nor see libtorch's statics destroyed, as returning would.
fn end(code: u8) -> ExitCode {
    let _ = std::io::stdout().flush();
    // SAFETY: takes a number and does not return; what Rust or C++ would still
    // do at exit is left undone on purpose.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(i32::from(code))
    }
}

/// Ends the process when the time for a shutdown is over, whatever hangs.
fn end_within(limit: Duration) {
    let limit = limit.max(Duration::from_secs(1));
    let watchdog = std::thread::Builder::new().name("shutdown".to_owned());
    let spawned = watchdog.spawn(move || {
        std::thread::sleep(limit);
        end(0)
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "nothing will end the shutdown if something hangs");
    }
}

async fn serve(config: Config) -> u8 {
    let format = config.log_format;
    let failed = |error: &dyn std::error::Error| {
        telemetry::report_failure(error, format);
        FAILED
    };
    let warnings = config
        .auth
        .check_addresses(config.listen.tcp(), config.metrics_listen)
        .unwrap_or_default();
    let metrics = match telemetry::install_metrics() {
        Ok(metrics) => metrics,
        Err(error) => return failed(&error),
    };
    let limit = config.shutdown;
    // Asked for before the server starts, so that no signal is missed. SIGHUP
    // is handled even if there is nothing to read again: by default it would
    // end the process.
    let signals = signal(SignalKind::terminate()).and_then(|terminate| {
        let hangup = signal(SignalKind::hangup())?;
        Ok((terminate, signal(SignalKind::interrupt())?, hangup))
    });
    let (mut terminate, mut interrupt, hangup) = match signals {
        Ok(signals) => signals,
        Err(error) => return failed(&error),
    };
    let server = tokio::select! {
        server = Server::start(config, metrics) => match server {
            Ok(server) => server,
            Err(error) => return failed(&error),
        },
        _ = terminate.recv() => return 0,
        _ = interrupt.recv() => return 0,
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
        () = read_again_at(hangup, server.auth()) => {}
    }
    tracing::info!("shutting down");
    end_within(limit);
    server.shut_down().await;
    0
}

/// Reads certificates and tokens again at each SIGHUP; never ends.
async fn read_again_at(mut hangup: Signal, auth: &Arc<Authenticator>) {
    while hangup.recv().await.is_some() {
        if !auth.is_reloadable() {
            tracing::info!("SIGHUP: there are neither certificates nor tokens to read again");
        }
        let auth = Arc::clone(auth);
        let _ = tokio::task::spawn_blocking(move || auth.refresh()).await;
    }
    std::future::pending::<()>().await;
}

fn refuse(error: &dyn std::error::Error, format: LogFormat, code: u8) -> ExitCode {
    telemetry::report_failure(error, format);
    ExitCode::from(code)
}
