//! Metrics and probes over HTTP.

use std::sync::Arc;

use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use crate::{rpc::Context, telemetry};

/// Prometheus's text format, as it names it itself.
const METRICS_TYPE: &str = "text/plain; version=0.0.4";

/// `/metrics`, `/healthz` and `/readyz`, until the task is aborted.
pub(super) async fn serve_probes(
    listener: TcpListener,
    context: Arc<Context>,
    metrics: PrometheusHandle,
) {
    let scraped = Arc::clone(&context);
    let probes = Router::new()
        .route(
            "/metrics",
            get(move || async move {
                telemetry::refresh(
                    &scraped.engine,
                    scraped.catalog.resident_figures(),
                    scraped.calls.count(),
                );
                ([(CONTENT_TYPE, METRICS_TYPE)], metrics.render())
            }),
        )
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || async move {
                if context.shutdown.is_cancelled() {
                    (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n")
                } else if !context.engine.is_healthy() {
                    (StatusCode::SERVICE_UNAVAILABLE, "the device is broken\n")
                } else {
                    (StatusCode::OK, "ready\n")
                }
            }),
        );
    if let Err(error) = axum::serve(listener, probes).await {
        tracing::error!(%error, "the metrics and probes are no longer served");
    }
}
