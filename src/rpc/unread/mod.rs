//! Bounds answers that nobody reads.
//!
//! A peer that sends requests and never reads makes the server hold its answers
//! for as long as the connection lives: a small request for a large page costs
//! the peer nothing. Whether it keeps its HTTP/2 window shut or leaves its
//! socket full, everything unread is therefore counted until the transport has
//! written it: gRPC, gRPC-web and HTTP together, and results of streams before
//! they are encoded. If that exceeds the budget, the oldest answers of the
//! address and connection with the most are dropped and their calls end; a
//! connection of which only the transport holds bytes is closed. Peers that
//! read their answers hold little. Files that the server holds anyway are not
//! counted: they are the same bytes, however often they are asked for.
//!
//! What it takes to make an answer has a budget of its own, see
//! [`AnswerSpace`](super::answer_space).

mod ledger;

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context as Task, Poll},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tipserve_http::Permanent;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::{answer_space::Making, error::ApiError, messages::peer_of};
pub use ledger::{Close, UnreadBytes};
use ledger::{Kept, Ledger, PIECE};

/// The bound on unread answers.
#[derive(Clone)]
pub struct UnreadLayer {
    ledger: Arc<Ledger>,
}

impl UnreadLayer {
    /// Allows at most this many bytes of them in the whole server; `close` ends
    /// a connection.
    pub fn new(budget: usize, close: Close) -> UnreadLayer {
        UnreadLayer {
            ledger: Ledger::new(budget, close),
        }
    }
}

/// Who is to read a call's answer; an extension of its request.
#[derive(Clone)]
pub struct Reader {
    ledger: Arc<Ledger>,
    peer: Option<SocketAddr>,
}

impl Reader {
    /// The reader of a request's answer.
    ///
    /// # Errors
    /// If the request did not come through the layer.
    pub fn of(extensions: &http::Extensions) -> Result<Reader, ApiError> {
        let reader = extensions.get::<Reader>().cloned();
        reader.ok_or_else(|| ApiError::new(Code::Internal, "INTERNAL", "the call has no reader"))
    }

    /// Counts bytes of a stream's results, from when they are there until they
    /// are written into the answer.
    pub fn count(&self, bytes: usize) -> UnreadBytes {
        self.ledger.count(self.peer, bytes)
    }

    /// Begins to count the results of a stream one by one.
    pub fn results(self) -> Results {
        Results(Arc::new(Held {
            reader: self,
            counts: Mutex::default(),
        }))
    }

    /// The same for a message that waits to be encoded, whose fields take more
    /// than their bytes on the wire.
    pub fn count_message(&self, encoded: usize) -> UnreadBytes {
        self.count(encoded.saturating_mul(MESSAGE_FACTOR))
    }
}

/// Bytes of a message in memory for each of its encoded ones: a class with a
/// short name takes 72 where 20 are sent.
const MESSAGE_FACTOR: usize = 4;

/// Bytes by which the results of a stream may differ from what is counted of
/// them: its items are many and small.
const STEP: usize = 16 << 10;

/// The results of one stream, from when they are there until they are written
/// into its answer.
#[derive(Clone)]
pub struct Results(Arc<Held>);

struct Held {
    reader: Reader,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    held: usize,
    counted: usize,
    _bytes: Option<UnreadBytes>,
}

/// One result; no longer counted once dropped.
pub struct ResultBytes {
    of: Results,
    bytes: usize,
}

impl Results {
    /// Counts a result of this size.
    pub fn count(&self, bytes: usize) -> ResultBytes {
        let mut counts = self.0.counts.lock();
        counts.held += bytes;
        if counts.held >= counts.counted + STEP {
            counts.settle(&self.0.reader);
        }
        ResultBytes {
            of: self.clone(),
            bytes,
        }
    }
}

impl Counts {
    /// Brings what is counted up to date.
    fn settle(&mut self, reader: &Reader) {
        self._bytes = None;
        self.counted = self.held;
        self._bytes = (self.held > 0).then(|| reader.count(self.held));
    }
}

impl Drop for ResultBytes {
    fn drop(&mut self) {
        let mut counts = self.of.0.counts.lock();
        counts.held -= self.bytes;
        if counts.held + STEP <= counts.counted || counts.held == 0 && counts.counted > 0 {
            counts.settle(&self.of.0.reader);
        }
    }
}

/// A message of a stream on its way to be encoded, with its bytes.
pub struct Counted<T> {
    /// The message, or the status that ends the stream.
    pub message: Result<T, Status>,
    /// What is counted for it until it is encoded.
    #[allow(dead_code, reason = "held for its drop")]
    pub bytes: Option<UnreadBytes>,
}

impl<T> Counted<T> {
    /// The status that ends a stream.
    pub fn last(status: Status) -> Counted<T> {
        Counted {
            message: Err(status),
            bytes: None,
        }
    }

    fn into_message(self) -> Result<T, Status> {
        self.message
    }
}

/// Messages of a stream on their way to be encoded.
pub type CountedStream<T> =
    futures::stream::Map<ReceiverStream<Counted<T>>, fn(Counted<T>) -> Result<T, Status>>;

/// The messages that a stream's handler sends.
pub fn counted<T>(messages: mpsc::Receiver<Counted<T>>) -> CountedStream<T> {
    futures::StreamExt::map(ReceiverStream::new(messages), Counted::into_message)
}

impl<S> Layer<S> for UnreadLayer {
    type Service = BoundedAnswers<S>;

    fn layer(&self, inner: S) -> BoundedAnswers<S> {
        BoundedAnswers {
            inner,
            ledger: Arc::clone(&self.ledger),
        }
    }
}

/// Services whose unread answers are bounded.
#[derive(Clone)]
pub struct BoundedAnswers<S> {
    inner: S,
    ledger: Arc<Ledger>,
}

impl<S, B> Service<Request<B>> for BoundedAnswers<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let peer = peer_of(&request);
        let ledger = Arc::clone(&self.ledger);
        request.extensions_mut().insert(Reader {
            ledger: Arc::clone(&ledger),
            peer,
        });
        let answer = self.inner.call(request);
        Box::pin(async move {
            let (mut parts, body) = answer.await?.into_parts();
            // Nothing to count, nor to copy: files are the server's own bytes.
            if parts.extensions.remove::<Permanent>().is_some() {
                return Ok(Response::from_parts(parts, body));
            }
            let making = parts.extensions.remove::<Making>();
            let size = body.size_hint();
            let mut answer = Answer {
                body,
                ledger,
                peer,
                next: None,
                kept: VecDeque::new(),
                size,
            };
            // An answer is encoded when it is first polled: do that now, not
            // when its reader has room. What encodes it keeps the buffer that
            // it encoded into until it has come to its end, one frame later.
            for _ in 0..2 {
                if answer.next.is_some() || answer.body.is_end_stream() {
                    break;
                }
                let waits = making.is_some();
                let frame = std::future::poll_fn(|task| {
                    match Pin::new(&mut answer.body).poll_frame(task) {
                        // What took space of its own to make is one message,
                        // and made to its end before any of it is sent.
                        Poll::Pending if waits => Poll::Pending,
                        polled => Poll::Ready(polled),
                    }
                });
                match frame.await {
                    Poll::Ready(frame) => answer.take(frame),
                    Poll::Pending => break,
                }
            }
            drop(making);
            Ok(Response::from_parts(parts, Body::new(answer)))
        })
    }
}

/// The body of an answer.
struct Answer {
    body: Body,
    ledger: Arc<Ledger>,
    peer: Option<SocketAddr>,
    /// The next frame, if the body has already been polled for it.
    next: Option<Option<Result<Frame<Bytes>, Status>>>,
    /// Counted data that is not read yet, before `next`.
    kept: VecDeque<Kept>,
    size: SizeHint,
}

impl Answer {
    /// Keeps a frame of the body: small ones here, the rest where it is
    /// counted. A copy, since the buffer that it was encoded into is up to
    /// twice as large, and one piece that is still to be written would keep it
    /// all.
    fn take(&mut self, frame: Option<Result<Frame<Bytes>, Status>>) {
        let frame = match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.len() > PIECE => {
                    self.kept.push_back(self.ledger.keep(self.peer, &data));
                    return;
                }
                Ok(data) => Some(Ok(Frame::data(data))),
                Err(trailers) => {
                    self.body = Body::empty();
                    Some(Ok(trailers))
                }
            },
            other => other,
        };
        self.next = Some(frame);
    }
}

fn not_read() -> Status {
    ApiError::new(
        Code::ResourceExhausted,
        "ANSWER_NOT_READ",
        "the answer was dropped: too many answers waited to be read",
    )
    .fact("limit", "max_unfinished_bytes")
    .into()
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        loop {
            if let Some(kept) = this.kept.front() {
                let Some((piece, more)) = kept.piece() else {
                    this.kept.clear();
                    this.next = None;
                    this.body = Body::empty();
                    return Poll::Ready(Some(Err(not_read())));
                };
                if !more {
                    this.kept.pop_front();
                }
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if let Some(next) = this.next.take() {
                return Poll::Ready(next.map(|frame| {
                    frame.map(|frame| {
                        frame.map_data(|data| this.ledger.hand_on(this.peer, Box::from(&data[..])))
                    })
                }));
            }
            let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(task));
            this.take(frame);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.kept.is_empty()
            && match &self.next {
                Some(next) => next.is_none(),
                None => self.body.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        // Polled before anything is sent; afterwards it would be useless.
        self.size
    }
}

#[cfg(test)]
mod tests;
