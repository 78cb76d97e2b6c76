//! Bounds on messages while they arrive: how large each may be by its method,
//! how long it may take, and how many bytes may be in flight at once. A message
//! over a bound is refused before it is buffered, over gRPC and gRPC-web alike.

mod body;
mod clock;
mod framing;
mod http_bounds;
mod inflated;

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context as Task, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, header::CONTENT_ENCODING};
use http_body::Body as HttpBody;
use tonic::{
    Code, Status,
    body::Body,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};
use tower::{Layer, Service};

use super::{
    budget::MessageBudget,
    compression::{Encoding, GRPC_ENCODING, HTTP_WINDOW, InflatedBody},
    error::ApiError,
};
use crate::auth::Caller;
use body::{BoundedBody, KeptBytes, Sender};
use clock::SLOWEST_BYTES_PER_SECOND;
use http_bounds::HttpBounds;
use inflated::InflatedMessages;
use tipserve_api::methods::{self, Access};

/// Largest message of a method that anybody may call.
pub const MAX_PROBE_MESSAGE_BYTES: usize = 4 << 10;
/// Largest message of a method that carries names and settings, and neither
/// pictures nor embeddings.
pub const MAX_CONTROL_MESSAGE_BYTES: usize = 64 << 10;
/// How long the message of a method that anybody may call may take.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// What a method's messages may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    limit: &'static str,
    largest: usize,
    streams: bool,
    patience: Duration,
}

/// Bounds on the messages of all services within.
#[derive(Clone)]
pub struct MessageLayer {
    budget: Arc<MessageBudget>,
    /// Of the windows that zstd keeps of bodies over HTTP.
    windows: Arc<MessageBudget>,
    largest: usize,
    patience: Duration,
}

impl MessageLayer {
    /// Messages of at most `largest` bytes, each within `patience` and a second
    /// for every 16 KiB; all that have begun together of `unfinished` bytes.
    pub fn new(largest: usize, unfinished: usize, patience: Duration) -> MessageLayer {
        MessageLayer {
            budget: Arc::new(MessageBudget::new(unfinished, largest)),
            windows: Arc::new(MessageBudget::new(unfinished, HTTP_WINDOW)),
            largest,
            patience,
        }
    }

    /// Whether the one message of a method keeps its bytes until it is
    /// answered: its items wait for admission one by one, or it waits for the
    /// space of its answer. (Items of a stream wait before its next message is
    /// read, and Classify's is refused.)
    fn keeps(&self, path: &str) -> bool {
        methods::find(path).is_some_and(|method| {
            let items = method.content && !method.streams && method.name != "Classify";
            items || method.has_large_answer()
        })
    }

    fn bounds(&self, path: &str) -> Bounds {
        let method = methods::find(path);
        let (limit, largest, patience) = match method.map(|method| method.access) {
            Some(Access::Open) => (
                "max_probe_message_bytes",
                MAX_PROBE_MESSAGE_BYTES,
                PROBE_PATIENCE.min(self.patience),
            ),
            _ if method.is_some_and(|method| method.content) => {
                ("max_message_bytes", self.largest, self.patience)
            }
            _ => (
                "max_control_message_bytes",
                MAX_CONTROL_MESSAGE_BYTES,
                self.patience,
            ),
        };
        let (limit, largest) = if largest > self.largest {
            ("max_message_bytes", self.largest)
        } else {
            (limit, largest)
        };
        Bounds {
            limit,
            largest,
            streams: method.is_some_and(|method| method.streams),
            patience,
        }
    }
}

impl<S> Layer<S> for MessageLayer {
    type Service = BoundedMessages<S>;

    fn layer(&self, inner: S) -> BoundedMessages<S> {
        BoundedMessages {
            inner,
            layer: self.clone(),
        }
    }
}

/// Services whose messages are bounded.
#[derive(Clone)]
pub struct BoundedMessages<S> {
    inner: S,
    layer: MessageLayer,
}

impl<S, B> Service<Request<B>> for BoundedMessages<S>
where
    S: Service<Request<Body>>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = WithBytes<S::Future>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let bounds = self.layer.bounds(request.uri().path());
        let mut sender = Sender {
            copies: 1,
            kept: self
                .layer
                .keeps(request.uri().path())
                .then(KeptBytes::default),
            budget: Arc::clone(&self.layer.budget),
            caller: Caller::of(request.extensions()),
            peer: peer_of(&request),
        };
        let kept = sender.kept.clone();
        // A body over HTTP becomes messages here, where its caller is known.
        if let Some(call) = request
            .extensions_mut()
            .remove::<Arc<tipserve_http::Call>>()
        {
            let encoding = encoding(&mut request, CONTENT_ENCODING.as_str());
            let window = Sender {
                budget: Arc::clone(&self.layer.windows),
                kept: None,
                ..sender.clone()
            };
            let bounds = Arc::new(HttpBounds { bounds, sender });
            let request = request.map(|body| match encoding {
                Some(encoding) => {
                    let window = Box::new(move || window.take_now(HTTP_WINDOW));
                    let body = InflatedBody::new(body, encoding, window);
                    tipserve_http::messages(call, body, bounds)
                }
                None => tipserve_http::messages(call, body, bounds),
            });
            let answer = self.inner.call(request);
            return WithBytes { answer, kept };
        }
        let encoding = encoding(&mut request, GRPC_ENCODING);
        if encoding == Some(Encoding::Zstd) {
            sender.copies = 2;
        }
        let answer = self.inner.call(request.map(|body| {
            let body = BoundedBody::new(body, bounds, sender.clone());
            match encoding {
                Some(encoding) => Body::new(InflatedMessages::new(body, encoding, bounds, sender)),
                None => Body::new(body),
            }
        }));
        WithBytes { answer, kept }
    }
}

pin_project_lite::pin_project! {
    /// The answer to a call, and the bytes of its message until then.
    pub struct WithBytes<F> {
        #[pin]
        answer: F,
        kept: Option<KeptBytes>,
    }
}

impl<F: Future> Future for WithBytes<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = std::task::ready!(this.answer.poll(task));
        *this.kept = None;
        Poll::Ready(answer)
    }
}

/// How a request is compressed. Behind this layer it is not, nor says so.
fn encoding<B>(request: &mut Request<B>, header: &str) -> Option<Encoding> {
    let name = request.headers_mut().remove(header)?;
    Encoding::of(name.as_bytes())
}

/// The address of a request's connection.
pub(super) fn peer_of<B>(request: &Request<B>) -> Option<SocketAddr> {
    let extensions = request.extensions();
    let tcp = extensions.get::<TcpConnectInfo>().or_else(|| {
        let tls = extensions.get::<TlsConnectInfo<TcpConnectInfo>>()?;
        Some(tls.get_ref())
    });
    tcp.and_then(TcpConnectInfo::remote_addr)
}

/// What a caller's share of a budget goes by. Those of a socket file share one.
pub(super) fn counted_as(caller: &Caller) -> String {
    caller.quota().unwrap_or_default()
}

impl Bounds {
    fn too_large(&self, length: usize) -> Status {
        let problem = ApiError::new(
            Code::OutOfRange,
            "MESSAGE_TOO_LARGE",
            format!(
                "the message has {length} bytes, over the server's limit {} = {}",
                self.limit, self.largest
            ),
        );
        problem
            .fact("limit", self.limit)
            .fact("value", length)
            .fact("maximum", self.largest)
            .into()
    }

    fn too_large_inflated(&self) -> Status {
        let (limit, largest) = (self.limit, self.largest);
        let message = format!(
            "the message inflates to more than the server's limit {limit} = {largest} bytes"
        );
        ApiError::new(Code::OutOfRange, "MESSAGE_TOO_LARGE", message)
            .fact("limit", limit)
            .fact("maximum", largest)
            .into()
    }

    fn too_slow(&self, received: usize) -> Status {
        let seconds = self.patience.as_secs();
        let message = format!(
            "a message must arrive within message_seconds = {seconds} s and a second for each \
             {SLOWEST_BYTES_PER_SECOND} bytes; {received} bytes of this one came",
        );
        ApiError::new(Code::DeadlineExceeded, "MESSAGE_TIMEOUT", message)
            .fact("limit", "message_seconds")
            .fact("maximum", seconds)
            .into()
    }
}

#[cfg(test)]
mod tests;
