//! Logs, and the subscriber that also feeds the traces' exporter.
//!
//! Lines are written by a thread of their own: if nobody reads standard
//! error, or a disk is slow, lines are dropped and counted, and serving goes on.

use std::{
    io::{IsTerminal as _, Write as _},
    panic::PanicHookInfo,
    sync::OnceLock,
};

use tracing::{Level, Metadata};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::filter_fn, fmt, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use super::traces::Exporter;
use crate::auth::audit;
use tipserve_api::environment::variable;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines of text, for people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// The filter, with audit lines let through unless it names them itself.
fn with_audit(filter: EnvFilter) -> EnvFilter {
    let named = filter.to_string().contains(audit::TARGET);
    match format!("{}=info", audit::TARGET).parse() {
        Ok(directive) if !named => filter.add_directive(directive),
        _ => filter,
    }
}

/// Lines that may wait to be written.
const WAITING_LINES: usize = 4096;
/// Most characters of a panic's message in a line.
const MAX_PANIC_CHARS: usize = 500;

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines that were dropped because they could not be written in time.
pub(super) fn dropped_lines() -> u64 {
    DROPPED
        .get()
        .map_or(0, |counter| counter.dropped_lines() as u64)
}

/// Starts logging to standard error, and tracing if there is an exporter.
/// `RUST_LOG` filters the logs alone; default `info`. Panics are logged as one
/// line, too. What waits to be written is written when the guard is dropped,
/// for a second at most.
pub fn install_tracing(format: LogFormat, exporter: Option<&Exporter>) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING_LINES)
        .thread_name("logs")
        .finish(std::io::stderr());
    // A second installation keeps the first one's.
    let _ = DROPPED.set(writer.error_counter());
    let filter = with_audit(filter());
    let lines = fmt::layer()
        .with_writer(writer)
        .with_ansi(std::io::stderr().is_terminal());
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Human => lines.with_target(false).with_filter(filter).boxed(),
        LogFormat::Json => lines
            .json()
            .with_span_list(false)
            .with_filter(filter)
            .boxed(),
    };
    let traces = exporter.map(|exporter| exporter.layer().with_filter(filter_fn(is_traced)));
    // A second installation (tests in one process) changes nothing.
    let _ = tracing_subscriber::registry()
        .with(lines)
        .with(traces)
        .try_init();
    std::panic::set_hook(Box::new(log_panic));
    guard
}

/// Writes why the server ends, at once and in the log's format, whatever
/// `RUST_LOG` lets through.
pub fn report_failure(error: &dyn std::error::Error, format: LogFormat) {
    match format {
        LogFormat::Human => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
        }
        LogFormat::Json => {
            let line = fmt()
                .json()
                .with_span_list(false)
                .with_max_level(Level::ERROR)
                .with_writer(std::io::stderr)
                .finish();
            tracing::subscriber::with_default(line, || {
                tracing::error!(target: "tipserve::serve", "{error}");
            });
        }
    }
}

/// The filter of `RUST_LOG`, of which a blank one means errors alone to
/// `EnvFilter`, and here the default.
fn filter() -> EnvFilter {
    variable(EnvFilter::DEFAULT_ENV)
        .and_then(|directives| EnvFilter::try_new(directives).ok())
        .unwrap_or_else(|| EnvFilter::new("info"))
}

/// One line for a panic, in the log's format and without a backtrace:
/// `RUST_BACKTRACE` asks for one, at its own place.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message: String = text
        .unwrap_or("no message")
        .chars()
        .take(MAX_PANIC_CHARS)
        .collect();
    let location = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    tracing::error!(
        target: "tipserve::panic",
        thread = thread.name(),
        location,
        reason = %message.escape_debug(),
        "a thread panicked"
    );
}

/// Our own spans and events; not those of the libraries, among them the
/// exporter's.
fn is_traced(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("tipserve") && *metadata.level() <= Level::INFO
}
