//! Bounds on messages while they arrive: how large each may be by its method,
//! how long it may take, and how many bytes may be under way at once. What
//! passes a bound is refused before it is buffered, of gRPC and gRPC-web alike.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context as Task, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures::future::BoxFuture;
use http::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::{
    Code, Status,
    body::Body,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};
use tonic_types::StatusExt as _;
use tower::{Layer, Service};

use super::{
    budget::{MessageBudget, MessageBytes},
    error::ApiError,
};
use crate::auth::Caller;
use tipserve_api::methods::{self, Access};

/// Largest message of a method that anybody may call.
pub const MAX_PROBE_MESSAGE_BYTES: usize = 4 << 10;
/// Largest message of a method that carries names and settings, and neither
/// pictures nor embeddings.
pub const MAX_CONTROL_MESSAGE_BYTES: usize = 64 << 10;
/// How long a call of a method that anybody may call may take for its message.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);
/// A message may take a second longer for each of these many bytes: slow
/// networks are served, senders that trickle are not.
const SLOWEST_BYTES_PER_SECOND: usize = 16 << 10;

/// The methods whose messages carry pictures, embeddings or files. All others
/// get small ones.
const BULK: [&str; 9] = [
    "CreateCache",
    "AddExamples",
    "ImportVersion",
    "ClassifyStream",
    "Classify",
    "Embed",
    "Evaluate",
    "ModelInfer",
    "ModelStreamInfer",
];
/// The methods of which a client may send many messages.
const CLIENT_STREAMING: [&str; 7] = [
    "CreateCache",
    "AddExamples",
    "ImportVersion",
    "ClassifyStream",
    "Evaluate",
    "ModelStreamInfer",
    "ServerReflectionInfo",
];

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
    largest: usize,
    patience: Duration,
}

impl MessageLayer {
    /// Messages of at most `largest` bytes, each within `patience` and a second
    /// for every 16 KiB; all that have begun together of `unfinished` bytes.
    pub fn new(largest: usize, unfinished: usize, patience: Duration) -> MessageLayer {
        MessageLayer {
            budget: Arc::new(MessageBudget::new(unfinished, largest)),
            largest,
            patience,
        }
    }

    fn bounds(&self, path: &str) -> Bounds {
        let method = methods::find(path);
        let is = |names: &[&str]| method.is_some_and(|method| names.contains(&method.name));
        let streams = is(&CLIENT_STREAMING);
        let (limit, largest, patience) = match method.map(|method| method.access) {
            Some(Access::Open) => (
                "max_probe_message_bytes",
                MAX_PROBE_MESSAGE_BYTES,
                PROBE_PATIENCE.min(self.patience),
            ),
            _ if is(&BULK) => ("max_message_bytes", self.largest, self.patience),
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
            streams,
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
    type Future = S::Future;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let bounds = self.layer.bounds(request.uri().path());
        let sender = Sender {
            budget: Arc::clone(&self.layer.budget),
            caller: Caller::of(request.extensions()),
            peer: peer_of(&request),
        };
        if let Some(call) = request
            .extensions_mut()
            .remove::<Arc<tipserve_http::Call>>()
        {
            let bounds = Arc::new(HttpBounds { bounds, sender });
            return self
                .inner
                .call(request.map(|body| tipserve_http::messages(call, body, bounds)));
        }
        self.inner.call(request.map(|body| {
            Body::new(BoundedBody {
                body,
                bounds,
                framing: Framing::default(),
                clock: Clock::new(bounds.patience),
                sender,
                granted: None,
                waiting: None,
                failed: false,
            })
        }))
    }
}

/// The address of a request's connection.
fn peer_of<B>(request: &Request<B>) -> Option<SocketAddr> {
    let extensions = request.extensions();
    let tcp = extensions.get::<TcpConnectInfo>().or_else(|| {
        let tls = extensions.get::<TlsConnectInfo<TcpConnectInfo>>()?;
        Some(tls.get_ref())
    });
    tcp.and_then(TcpConnectInfo::remote_addr)
}

/// Who a message's bytes are counted for.
struct Sender {
    budget: Arc<MessageBudget>,
    caller: Caller,
    peer: Option<SocketAddr>,
}

impl Sender {
    fn take(&self, bytes: usize) -> impl Future<Output = MessageBytes> + Send + 'static {
        // Nobody in particular is known by the address.
        let caller = match (self.caller.known_by(), self.peer) {
            ("nothing", Some(peer)) => peer.ip().to_string(),
            _ => self.caller.who(),
        };
        Arc::clone(&self.budget).take(caller, self.peer, bytes)
    }
}

/// The same bounds, for bodies over HTTP that are turned into messages as they
/// arrive.
struct HttpBounds {
    bounds: Bounds,
    sender: Sender,
}

impl tipserve_http::Bounds for HttpBounds {
    fn largest(&self) -> usize {
        self.bounds.largest
    }

    fn patience(&self, received: usize) -> Duration {
        self.bounds.patience + slack(received)
    }

    fn reserve(&self, bytes: usize) -> BoxFuture<'static, Box<dyn Send + Sync>> {
        let bytes = self.sender.take(bytes);
        Box::pin(async move { Box::new(bytes.await) as Box<dyn Send + Sync> })
    }

    fn too_large(&self, bytes: usize) -> Status {
        self.bounds.too_large(bytes)
    }

    fn too_slow(&self, received: usize) -> Status {
        self.bounds.too_slow(received)
    }

    fn no_room(&self) -> Status {
        no_room()
    }
}

/// gRPC's frames ("Length-Prefixed-Message"), as they pass by.
#[derive(Debug, Default)]
struct Framing {
    header: [u8; HEADER],
    have: usize,
    /// Bytes that the message under way still lacks.
    left: usize,
    /// Its bytes in all.
    length: usize,
    /// Whole messages so far.
    messages: u64,
}

/// A flag and a length of four bytes.
const HEADER: usize = 5;

impl Framing {
    /// Looks at bytes that arrived.
    ///
    /// # Errors
    /// The length of a message that is over `largest`.
    fn pass(&mut self, mut bytes: &[u8], largest: usize) -> Result<(), usize> {
        while !bytes.is_empty() {
            if self.have < HEADER {
                let Some(place) = self.header.get_mut(self.have..) else {
                    return Ok(());
                };
                let count = place.len().min(bytes.len());
                let (now, rest) = bytes.split_at(count);
                place.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
                self.have += count;
                bytes = rest;
                if self.have < HEADER {
                    return Ok(());
                }
                let [_, length @ ..] = self.header;
                self.length = u32::from_be_bytes(length) as usize;
                self.left = self.length;
                if self.length > largest {
                    return Err(self.length);
                }
            }
            let count = self.left.min(bytes.len());
            self.left -= count;
            bytes = bytes.get(count..).unwrap_or_default();
            if self.left == 0 {
                self.have = 0;
                self.messages += 1;
            }
        }
        Ok(())
    }

    /// Whether a message has begun and is not there yet.
    fn is_within(&self) -> bool {
        self.have > 0
    }

    /// Bytes of it that are there.
    fn received(&self) -> usize {
        self.length - self.left
    }
}

/// What a message may take longer for the bytes that have come.
fn slack(received: usize) -> Duration {
    Duration::from_secs((received / SLOWEST_BYTES_PER_SECOND) as u64)
}

/// How long a sender has let us wait for its message.
struct Clock {
    patience: Duration,
    waited: Duration,
    since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    fn new(patience: Duration) -> Clock {
        Clock {
            patience,
            waited: Duration::ZERO,
            since: None,
            alarm: None,
        }
    }

    /// Nothing arrives: whether it is too late.
    fn is_over(&mut self, received: usize, task: &mut Task<'_>) -> bool {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let end = since + (self.patience + slack(received)).saturating_sub(self.waited);
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        if alarm.deadline() != end {
            alarm.as_mut().reset(end);
        }
        alarm.as_mut().poll(task).is_ready()
    }

    /// Something has arrived.
    fn stop(&mut self) {
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
    }

    /// A whole message has.
    fn start_again(&mut self) {
        self.since = None;
        self.waited = Duration::ZERO;
    }
}

pin_project_lite::pin_project! {
    /// The body of a request whose messages are bounded.
    struct BoundedBody<B> {
        #[pin]
        body: B,
        bounds: Bounds,
        framing: Framing,
        clock: Clock,
        sender: Sender,
        // Of the message under way, or the one that was handed on last.
        granted: Option<MessageBytes>,
        // The first frame of a message, until it has its bytes.
        waiting: Option<(Bytes, BoxFuture<'static, MessageBytes>)>,
        failed: bool,
    }
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

    fn too_slow(&self, received: usize) -> Status {
        let seconds = self.patience.as_secs();
        let message = format!(
            "a message must arrive within message_seconds = {seconds} s and a second for each {} \
             bytes; {received} bytes of this one came",
            SLOWEST_BYTES_PER_SECOND
        );
        ApiError::new(Code::DeadlineExceeded, "MESSAGE_TIMEOUT", message)
            .fact("limit", "message_seconds")
            .fact("maximum", seconds)
            .into()
    }
}

/// The error that a status of this layer, or of the codec, was made of, once
/// tonic has passed it on.
pub fn refusal(status: &Status) -> Option<ApiError> {
    const REASONS: [&str; 7] = [
        "MESSAGE_TOO_LARGE",
        "MESSAGE_TIMEOUT",
        "QUEUE_FULL",
        // Of bodies over HTTP.
        "JSON_INVALID",
        "FIELD_INVALID",
        "FORM_INVALID",
        "CONTENT_TYPE_UNKNOWN",
    ];
    let details = status.get_error_details();
    let info = details.error_info()?;
    let reason = REASONS.into_iter().find(|reason| *reason == info.reason)?;
    let error = info.metadata.iter().fold(
        ApiError::new(status.code(), reason, status.message()),
        |error, (key, value)| error.fact(key, value),
    );
    let violations = details
        .bad_request()
        .map(|request| &request.field_violations);
    let error = match violations.and_then(|violations| violations.first()) {
        Some(violation) => error.field(&violation.field),
        None => error,
    };
    Some(
        match details.retry_info().and_then(|retry| retry.retry_delay) {
            Some(delay) => error.retry(delay),
            None => error,
        },
    )
}

fn no_room() -> Status {
    ApiError::new(
        Code::ResourceExhausted,
        "QUEUE_FULL",
        "too many messages are arriving at once: the server's limit max_unfinished_bytes is \
         reached",
    )
    .fact("limit", "max_unfinished_bytes")
    .retry(Duration::from_secs(1))
    .into()
}

impl<B> HttpBody for BoundedBody<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        let mut refuse = |status: Status| {
            *this.failed = true;
            Poll::Ready(Some(Err(status)))
        };
        if let Some((_, bytes)) = this.waiting {
            return match bytes.as_mut().poll(task) {
                Poll::Ready(bytes) => {
                    *this.granted = Some(bytes);
                    this.clock.stop();
                    let frame = this.waiting.take().map(|(frame, _)| Ok(Frame::data(frame)));
                    Poll::Ready(frame)
                }
                Poll::Pending if this.clock.is_over(0, task) => refuse(no_room()),
                Poll::Pending => Poll::Pending,
            };
        }
        // What was handed on has been decoded by now.
        if !this.framing.is_within() {
            *this.granted = None;
        }
        let frame = match this.body.as_mut().poll_frame(task) {
            Poll::Pending => {
                let expected =
                    this.framing.is_within() || this.framing.messages == 0 || !this.bounds.streams;
                let received = this.framing.received();
                return if expected && this.clock.is_over(received, task) {
                    refuse(this.bounds.too_slow(received))
                } else {
                    Poll::Pending
                };
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Err(error))) => {
                return refuse(Status::from_error(error.into()));
            }
            Poll::Ready(Some(Ok(frame))) => frame,
        };
        this.clock.stop();
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
        };
        let before = this.framing.messages;
        if let Err(length) = this.framing.pass(data.chunk(), this.bounds.largest) {
            return refuse(this.bounds.too_large(length));
        }
        if this.framing.messages > before {
            this.clock.start_again();
        }
        let began = this.framing.messages > before || this.granted.is_none();
        if this.framing.is_within() && this.framing.left > 0 && began {
            let bytes = Box::pin(this.sender.take(this.framing.length));
            *this.granted = None;
            *this.waiting = Some((data, bytes));
            task.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.failed || (self.waiting.is_none() && self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
