//! Traces: OpenTelemetry spans, sent to a collector over OTLP where one is
//! named, and W3C trace context.
//!
//! An RPC is a span, and so is a batch (the engine makes it), with a link to the
//! span of each RPC that it served.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use http::HeaderMap;
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::{TraceContextExt as _, TracerProvider as _},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider},
};
use thiserror::Error;
use tipserve_api::environment::variable;
use tracing::Span;
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt as _};
use tracing_subscriber::registry::LookupSpan;

/// Whether spans are exported: without that nothing is noted for them.
static EXPORTING: AtomicBool = AtomicBool::new(false);

const NAME: &str = "tipserve";

/// The last spans may take so long to be sent.
const FLUSH: Duration = Duration::from_secs(5);

/// Why spans cannot be exported.
#[derive(Debug, Error)]
#[error("cannot export traces to {endpoint}: {reason}")]
pub struct ExporterError {
    endpoint: String,
    reason: String,
}

/// Sends spans to a collector, from a thread of its own. Where the collector
/// is slow or gone, spans are dropped; nothing waits for it.
pub struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// An exporter to `endpoint` (an `http://` or `https://` URL of an OTLP
    /// collector that speaks gRPC). Sampler, service name, resource, headers,
    /// timeouts and queue are set by OpenTelemetry's own variables. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// An endpoint that is no URL.
    pub fn new(endpoint: &str) -> Result<Exporter, ExporterError> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .map_err(|error| ExporterError {
                endpoint: endpoint.to_owned(),
                reason: error.to_string(),
            })?;
        let mut resource = Resource::builder();
        if variable("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(NAME);
        }
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.with_attribute(version).build())
            .build();
        EXPORTING.store(true, Ordering::Relaxed);
        Ok(Exporter { provider })
    }

    /// What turns tracing's spans into OpenTelemetry's.
    pub(super) fn layer<S>(&self) -> OpenTelemetryLayer<S, SdkTracer>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer(NAME))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false)
    }

    /// Sends what there is, as far as that can be done in some seconds. Blocks.
    pub fn shut_down(&self) {
        EXPORTING.store(false, Ordering::Relaxed);
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// The caller's span, from the W3C headers `traceparent` and `tracestate`.
pub fn remote_parent(headers: &HeaderMap) -> Option<Context> {
    headers.get("traceparent")?;
    let context =
        TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
    context.span().span_context().is_valid().then_some(context)
}

struct Inject<'a>(&'a mut HeaderMap);

impl Injector for Inject<'_> {
    fn set(&mut self, key: &str, value: String) {
        let name = http::HeaderName::from_bytes(key.as_bytes());
        if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_str(&value)) {
            self.0.insert(name, value);
        }
    }
}

/// Makes a request to another server part of the current span's trace.
pub fn inject(headers: &mut HeaderMap) {
    if EXPORTING.load(Ordering::Relaxed) {
        let context = Span::current().context();
        TraceContextPropagator::new().inject_context(&context, &mut Inject(headers));
    }
}

/// Joins a span to the caller's trace, and says what the span is in
/// OpenTelemetry's terms. Returns the trace's id.
pub fn join(span: &Span, service: &str, method: &str, parent: Option<Context>) -> Option<String> {
    let named = parent
        .as_ref()
        .map(|parent| parent.span().span_context().trace_id());
    if !EXPORTING.load(Ordering::Relaxed) {
        return named.map(|id| id.to_string());
    }
    if let Some(parent) = parent {
        // Fails only for a span that has begun in OpenTelemetry's eyes.
        let _ = span.set_parent(parent);
    }
    span.set_attribute("rpc.system.name", "grpc");
    span.set_attribute("rpc.system", "grpc");
    span.set_attribute("rpc.service", service.to_owned());
    span.set_attribute("rpc.method", method.to_owned());
    let id = span.context().span().span_context().trace_id();
    (id != opentelemetry::TraceId::INVALID).then(|| id.to_string())
}

/// Notes in a span how its RPC ended.
pub fn ended(span: &Span, code: tonic::Code) {
    use opentelemetry::trace::Status;
    use tonic::Code;
    if !EXPORTING.load(Ordering::Relaxed) {
        return;
    }
    span.set_attribute("rpc.grpc.status_code", i64::from(code as i32));
    // Of a server's span only these are errors, say the semantic conventions.
    if matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    ) {
        span.set_status(Status::error(tipserve_api::code_name(code)));
    }
}
