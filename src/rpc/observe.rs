//! Every RPC as one thing that is counted, timed, traced and named.
//!
//! [`Observe`] is a layer around all services. It makes a [`Call`] of each
//! request, with its id and span, and carries it along in the task: handlers
//! say how it ended, errors name its id. What no handler saw (a request that a
//! layer refused, that does not decode, or has no handler) is counted too, by
//! the status that it was answered with.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use futures::future::{BoxFuture, Either, FutureExt as _};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tonic::{
    Code, Status,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};
use tower::{Layer, Service};
use tracing::{Instrument as _, Span, field};

use super::error::ApiError;
use crate::telemetry;
use tipserve_api::methods::{self, Method};

/// The metadata that carries a request's id, in requests and answers.
pub const REQUEST_ID: &str = "x-request-id";
/// Longest id that is taken from a client, bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;
/// Services of the infrastructure: probes and tools. A health watch lasts as
/// long as its client, and would count as a request under way for ever.
const INFRASTRUCTURE: &str = "/grpc.";
/// No code yet.
const UNSAID: i32 = -1;

tokio::task_local! {
    /// The call that this task serves.
    static CURRENT: Call;
}

/// One RPC. It is counted once, when its answer's end is sent or, where that
/// is never sent, when the last clone is dropped: then it was cancelled.
#[derive(Clone)]
pub struct Call(Arc<Record>);

struct Record {
    method: &'static str,
    id: HeaderValue,
    span: Span,
    started: Instant,
    code: AtomicI32,
    counted: AtomicBool,
    calls: Calls,
}

/// How many calls are under way.
#[derive(Clone, Default)]
pub struct Calls(Arc<AtomicUsize>);

impl Calls {
    /// Their number now.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Record {
    /// Counts the call, once.
    fn count(&self) {
        if self.counted.swap(true, Ordering::Relaxed) {
            return;
        }
        let code = match self.code.load(Ordering::Relaxed) {
            UNSAID => Code::Cancelled,
            code => Code::from_i32(code),
        };
        let took = self.started.elapsed();
        self.calls.0.fetch_sub(1, Ordering::Relaxed);
        telemetry::request(self.method, code, took);
        self.span.record("code", tipserve_api::code_name(code));
        telemetry::ended(&self.span, code);
        let _entered = self.span.enter();
        tracing::debug!(seconds = took.as_secs_f64(), "ended");
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.count();
    }
}

impl Call {
    /// The call that this task serves; outside of [`Observe`], one that begins
    /// now.
    pub fn current(calls: &Calls) -> Call {
        CURRENT
            .try_with(Call::clone)
            .unwrap_or_else(|_| Call::begin(calls, methods::OTHER, new_id(), Span::none()))
    }

    fn begin(calls: &Calls, method: &'static str, id: HeaderValue, span: Span) -> Call {
        calls.0.fetch_add(1, Ordering::Relaxed);
        Call(Arc::new(Record {
            method,
            id,
            span,
            started: Instant::now(),
            code: AtomicI32::new(UNSAID),
            counted: AtomicBool::new(false),
            calls: calls.clone(),
        }))
    }

    /// Notes how the call ended. The first to know is believed.
    pub fn ended(&self, code: Code) {
        let code = code as i32;
        let _ = self
            .0
            .code
            .compare_exchange(UNSAID, code, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Runs the part of a streaming call that comes before its stream; a
    /// failure ends the call, a stream goes on with its own clone.
    pub async fn answer<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, ApiError>>,
    ) -> Result<tonic::Response<T>, Status> {
        let result = call.await.map_err(Status::from);
        if let Err(status) = &result {
            self.ended(status.code());
            say(status);
        }
        result
    }
}

/// Logs an error that a call ends with: the server's own faults for everybody
/// to see, the callers' for who asks.
pub fn say(status: &Status) {
    let code = tipserve_api::code_name(status.code());
    let message = status.message();
    match status.code() {
        Code::Unknown | Code::Internal | Code::DataLoss => {
            tracing::error!(code, message, "a call failed");
        }
        _ => tracing::debug!(code, message, "refused"),
    }
}

/// Runs a unary call.
pub async fn observed<T>(
    calls: &Calls,
    work: impl Future<Output = Result<tonic::Response<T>, ApiError>>,
) -> Result<tonic::Response<T>, Status> {
    let call = Call::current(calls);
    let result = call.answer(work).await;
    if result.is_ok() {
        call.ended(Code::Ok);
    }
    result
}

/// The id of the request that this task serves.
pub fn request_id() -> Option<String> {
    let id = CURRENT.try_with(|call| call.0.id.clone()).ok()?;
    id.to_str().ok().map(str::to_owned)
}

/// Names the cache that this task's call is about, in its span.
pub fn about(cache: impl std::fmt::Display) {
    let cache = cache.to_string();
    let cache = cache.strip_prefix("caches/").unwrap_or(&cache);
    Span::current().record("cache", field::display(cache));
}

/// A future for a task of its own that goes on with this task's call: its id,
/// its span.
pub fn carried<F: Future>(future: F) -> impl Future<Output = F::Output> {
    match CURRENT.try_with(Call::clone) {
        Ok(call) => {
            let span = call.0.span.clone();
            Either::Left(CURRENT.scope(call, future).instrument(span))
        }
        Err(_) => Either::Right(future),
    }
}

fn new_id() -> HeaderValue {
    let id = format!("{:032x}", rand::random::<u128>());
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
}

/// The id that the client gave, where it can be passed on as it is.
fn given_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(REQUEST_ID)?;
    let bytes = id.as_bytes();
    let fits =
        (1..=MAX_REQUEST_ID_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    fits.then(|| id.clone())
}

/// Observes every RPC of the services within.
#[derive(Clone)]
pub struct Observe {
    calls: Calls,
}

impl Observe {
    /// Counts them here.
    pub fn new(calls: &Calls) -> Observe {
        Observe {
            calls: calls.clone(),
        }
    }

    fn begin<B>(&self, request: &Request<B>) -> Call {
        let path = request.uri().path();
        let method = methods::find(path).map_or(methods::OTHER, Method::label);
        let path = path.trim_start_matches('/');
        let service = path.rsplit_once('/').map_or("", |(service, _)| service);
        let headers = request.headers();
        let id = given_id(headers).unwrap_or_else(new_id);
        let extensions = request.extensions();
        let peer = extensions
            .get::<TcpConnectInfo>()
            .or_else(|| {
                let tls = extensions.get::<TlsConnectInfo<TcpConnectInfo>>()?;
                Some(tls.get_ref())
            })
            .and_then(TcpConnectInfo::remote_addr);
        // Of the highest level, so that every line that is logged at all says
        // which request it is about.
        let span = tracing::error_span!(
            target: "tipserve",
            "rpc",
            otel.name = path,
            otel.kind = "server",
            method,
            request_id = id.to_str().unwrap_or_default(),
            trace_id = field::Empty,
            peer = peer.map(field::display),
            cache = field::Empty,
            code = field::Empty,
        );
        let parent = telemetry::remote_parent(headers);
        if let Some(trace) = telemetry::join(&span, service, method, parent) {
            span.record("trace_id", trace);
        }
        Call::begin(&self.calls, method, id, span)
    }
}

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed {
            observe: self.clone(),
            inner,
        }
    }
}

/// Services whose RPCs are observed.
#[derive(Clone)]
pub struct Observed<S> {
    observe: Observe,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Observed<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    R: 'static,
    S::Error: 'static,
{
    type Response = Response<Answer<R>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.uri().path().starts_with(INFRASTRUCTURE) {
            let answering = self.inner.call(request);
            return async { Ok(answering.await?.map(|body| Answer { call: None, body })) }.boxed();
        }
        let call = self.observe.begin(&request);
        // Made within the call's scope too: a service may do its work here.
        let answering = CURRENT.sync_scope(call.clone(), || {
            let _entered = call.0.span.enter();
            self.inner.call(request)
        });
        let span = call.0.span.clone();
        let scope = call.clone();
        let answered = async move {
            let mut response = answering.await?;
            response.headers_mut().insert(REQUEST_ID, call.0.id.clone());
            // An error without a stream has its status in the headers.
            let call = match status_of(response.headers()) {
                Some(code) => {
                    call.ended(code);
                    call.0.count();
                    None
                }
                None => Some(call),
            };
            Ok(response.map(|body| Answer { call, body }))
        };
        CURRENT.scope(scope, answered).instrument(span).boxed()
    }
}

fn status_of(headers: &HeaderMap) -> Option<Code> {
    let status = headers.get("grpc-status")?;
    Some(Code::from_bytes(status.as_bytes()))
}

pin_project_lite::pin_project! {
    /// An answer on its way, which ends its call.
    pub struct Answer<B> {
        call: Option<Call>,
        #[pin]
        body: B,
    }
}

impl<B: Body> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let Some(call) = this.call else {
            return this.body.poll_frame(context);
        };
        let frame = ready!(CURRENT.sync_scope(call.clone(), || {
            let _entered = call.0.span.enter();
            this.body.poll_frame(context)
        }));
        let ended = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().map(status_of),
            Some(Err(_)) => Some(Some(Code::Unknown)),
            None => Some(None),
        };
        if let Some(code) = ended {
            call.ended(code.unwrap_or(Code::Ok));
            call.0.count();
            *this.call = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
