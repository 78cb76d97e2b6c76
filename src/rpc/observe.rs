//! Every RPC as one thing that is counted, timed, traced and named.
//!
//! [`Observe`] is a layer around all services. It makes a [`Call`] of each
//! request, with its id and span, and carries it along in the task: handlers
//! say how it ended, errors name its id. What no handler saw (a request that a
//! layer refused, that does not decode, or has no handler) is counted too, by
//! the status that it was answered with.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::future::{BoxFuture, FutureExt as _};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tonic::{
    Code, Status,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};
use tower::{Layer, Service};
use tracing::{Instrument as _, field};

pub use super::call::{Call, Calls, about, carried, request_id};
use super::{
    call::{CURRENT, new_id},
    error::ApiError,
};
use crate::telemetry;
use tipserve_api::methods::{self, Method};

/// The metadata that carries a request's id, in requests and answers.
pub const REQUEST_ID: &str = "x-request-id";
/// Longest id that is taken from a client, bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;
/// Services of the infrastructure: probes and tools. A health watch lasts as
/// long as its client, and would count as a request under way for ever.
const INFRASTRUCTURE: &str = "/grpc.";
impl Call {
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

/// Logs an error that a call ends with: the server's own faults as errors, the
/// callers' at debug level.
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

/// Runs a unary call's work as the call under way, and counts how it ends.
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

/// The id that the client gave, if it can be passed on as it is.
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
    /// A layer that counts calls in `calls`.
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
        // At the highest level, so that every logged line says which request it
        // is about.
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
            let _entered = call.span().enter();
            self.inner.call(request)
        });
        let span = call.span().clone();
        let scope = call.clone();
        let answered = async move {
            let mut response = answering.await?;
            response.headers_mut().insert(REQUEST_ID, call.id().clone());
            // An error without a stream has its status in the headers.
            let call = match status_of(response.headers()) {
                Some(code) => {
                    call.ended(code);
                    call.count();
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
            let _entered = call.span().enter();
            this.body.poll_frame(context)
        }));
        let ended = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().map(status_of),
            Some(Err(_)) => Some(Some(Code::Unknown)),
            None => Some(None),
        };
        if let Some(code) = ended {
            call.ended(code.unwrap_or(Code::Ok));
            call.count();
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
