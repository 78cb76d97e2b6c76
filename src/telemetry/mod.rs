//! What can be seen of a server: metrics, logs and traces.
//!
//! Metric names follow Prometheus's conventions: base units, `_total` on
//! counters, histograms and never summaries (summaries cannot be added up
//! across replicas), labels from small fixed sets. A server with 10,000 caches
//! must not make 10,000 series: metrics by version distinguish the 64 that were
//! used last ([`versions`]). Traces and logs name them all.

mod auth;
mod build;
mod bundles;
mod connections;
mod logs;
mod metrics;
mod names;
mod observers;
mod process;
mod runs;
mod series;
mod traces;
mod versions;

pub use auth::{auth_reloaded, certificate_ends, handshake_failed, tokens_known};
pub use build::DefaultBundle;
pub use connections::{connection_refused, connections_open};
pub use logs::{LogFormat, install_tracing, report_failure};
pub use metrics::{
    EngineFigures, ResidentFigures, cache_loaded, epoch, install_metrics, item, recognised,
    refresh, refused, render, request, serving, version_created,
};
pub use names::REFUSALS;
pub use observers::{BucketMetrics, EngineMetrics};
pub use process::resident_bytes;
pub use runs::{RunCount, RunEnd};
pub use traces::{Exporter, ExporterError, ended, join, remote_parent};
pub use versions::{drift, version_asked, versions_deleted};
