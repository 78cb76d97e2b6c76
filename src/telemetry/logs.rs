//! Logs, and the subscriber that also feeds the traces' exporter.

use std::io::IsTerminal as _;

use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::filter_fn, fmt, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use super::traces::Exporter;
use crate::auth::audit;

/// How logs look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
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

/// Starts logging to standard error, and tracing where there is an exporter.
/// `RUST_LOG` filters the logs alone; default `info`.
pub fn install_tracing(format: LogFormat, exporter: Option<&Exporter>) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let filter = with_audit(filter);
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
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
}

/// Our own spans and events; not those of the libraries, among them the
/// exporter's.
fn is_traced(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("tipserve") && *metadata.level() <= Level::INFO
}
