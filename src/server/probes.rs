//! Metrics and probes over HTTP, on a thread of their own: whatever the
//! services do, a kubelet is answered. A descriptor is kept back for them, so
//! that they are answered when there is no other left, too.

use std::{collections::VecDeque, fs::File, io, sync::Arc, thread::JoinHandle, time::Duration};

use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    routing::get,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{connections::Backoff, protocol::PREFACE};
use crate::{
    rpc::Context,
    telemetry::{self, DefaultBundle, EngineFigures},
};

/// Prometheus's text format, as it names it itself.
const METRICS_TYPE: &str = "text/plain; version=0.0.4";
/// How long a client may take for the headers of a request, the first included.
const HEADERS: Duration = Duration::from_secs(5);
/// Most connections at once; the oldest goes for a new one.
const MOST: usize = 64;

/// The routes `/metrics`, `/healthz` and `/readyz`.
fn router(context: Arc<Context>, metrics: PrometheusHandle) -> Router {
    let scraped = Arc::clone(&context);
    Router::new()
        .route(
            "/metrics",
            get(move || async move {
                let bundles = scraped.catalog.bundles();
                let default = bundles.default_bundle();
                let default = &default.model;
                telemetry::refresh(
                    EngineFigures {
                        default: DefaultBundle {
                            name: default.name.clone(),
                            device: default.device.clone(),
                            dtype: default.precision.name(),
                        },
                        engines: bundles.engines(),
                        embeddings: bundles.embedding_counts(),
                    },
                    scraped.catalog.resident_figures(),
                    scraped.calls.count(),
                );
                ([(CONTENT_TYPE, METRICS_TYPE)], telemetry::render(&metrics))
            }),
        )
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || async move {
                if context.shutdown.is_cancelled() {
                    (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n")
                } else if !context.catalog.bundles().are_healthy() {
                    (StatusCode::SERVICE_UNAVAILABLE, "the device is broken\n")
                } else {
                    (StatusCode::OK, "ready\n")
                }
            }),
        )
}

/// Serves the probes on a thread of their own until `stop` is cancelled.
///
/// # Errors
/// If no thread can be started.
pub(super) fn serve_probes(
    listener: std::net::TcpListener,
    context: Arc<Context>,
    metrics: PrometheusHandle,
    stop: CancellationToken,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let probes = router(context, metrics);
    std::thread::Builder::new()
        .name("probes".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                match TcpListener::from_std(listener) {
                    Ok(listener) => {
                        tokio::select! {
                            () = accept(listener, probes) => {}
                            () = stop.cancelled() => {}
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, "the metrics and probes are not served");
                    }
                }
            });
        })
}

/// A descriptor that is kept for the moment when there is no other.
struct Spare(Option<File>);

impl Spare {
    fn new() -> Spare {
        Spare(File::open("/dev/null").ok())
    }

    /// Gives it up for one connection.
    async fn accept(&mut self, listener: &TcpListener) -> Option<TcpStream> {
        self.0.take()?;
        // Somebody waits: or else there had been no error.
        let accepted = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
        accepted.ok()?.ok().map(|(socket, _)| socket)
    }

    fn refill(&mut self) {
        if self.0.is_none() {
            *self = Spare::new();
        }
    }
}

async fn accept(listener: TcpListener, probes: Router) {
    let mut connections = JoinSet::new();
    let mut oldest: VecDeque<AbortHandle> = VecDeque::new();
    let (mut backoff, mut spare) = (Backoff::default(), Spare::new());
    loop {
        spare.refill();
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        oldest.retain(|connection| !connection.is_finished());
        match accepted {
            Ok((socket, _)) => {
                backoff.reset();
                while oldest.len() >= MOST {
                    if let Some(connection) = oldest.pop_front() {
                        connection.abort();
                    }
                }
                oldest.push_back(connections.spawn(serve(socket, probes.clone(), true)));
            }
            Err(error) => match spare.accept(&listener).await {
                // Before anything else: it gives the descriptor back.
                Some(socket) => {
                    let answering = serve(socket, probes.clone(), false);
                    let _ = tokio::time::timeout(Duration::from_secs(1), answering).await;
                }
                None => backoff.wait(&error).await,
            },
        }
    }
}

/// How long an HTTP/2 connection may last: load balancers that check health in
/// the protocol of the services connect anew for each check.
const H2_AGE: Duration = Duration::from_secs(60);

/// Whether the client speaks HTTP/2, once it has sent enough to tell.
async fn speaks_h2(socket: &TcpStream) -> io::Result<bool> {
    let mut seen = [0; PREFACE.len()];
    loop {
        let count = socket.peek(&mut seen).await?;
        let begun = seen.get(..count).unwrap_or_default();
        if count == 0 || !PREFACE.starts_with(begun) {
            return Ok(false);
        }
        if count == PREFACE.len() {
            return Ok(true);
        }
        // What was peeked at stays readable, so that waiting for more is not
        // to be had from the socket.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn serve(socket: TcpStream, probes: Router, keep_alive: bool) {
    let _ = socket.set_nodelay(true);
    let Ok(Ok(h2)) = tokio::time::timeout(HEADERS, speaks_h2(&socket)).await else {
        return;
    };
    let (socket, probes) = (TokioIo::new(socket), TowerToHyperService::new(probes));
    let served = if h2 {
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(16)
            .serve_connection(socket, probes);
        tokio::time::timeout(H2_AGE, connection)
            .await
            .unwrap_or(Ok(()))
    } else {
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .keep_alive(keep_alive)
            .serve_connection(socket, probes)
            .await
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the probes failed");
    }
}
