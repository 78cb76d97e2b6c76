//! A request's body whose messages are bounded: a message over a bound is
//! refused before it is buffered.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context as Task, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures::future::{BoxFuture, FutureExt as _};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tonic::{Code, Status};

use super::{
    super::{
        budget::{MessageBudget, MessageBytes, allowance},
        error::ApiError,
    },
    Bounds,
    clock::Clock,
    counted_as,
    framing::Framing,
};
use crate::auth::Caller;

impl Sender {
    /// What a message that inflates to this many bytes takes.
    pub(super) fn inflated(&self, bytes: usize) -> usize {
        bytes.saturating_mul(self.copies)
    }

    /// What more it takes once it inflates to `largest` in place of `allowed`
    /// bytes. Together no more than one message may take, or it would wait for
    /// ever.
    pub(super) fn rest(&self, allowed: usize, largest: usize) -> usize {
        let least = self.budget.most();
        let held = self.inflated(allowed).min(least);
        self.inflated(largest).min(least).saturating_sub(held)
    }
}

/// Bytes of a call's message, kept until the call is answered.
pub(super) type KeptBytes = Arc<Mutex<Vec<MessageBytes>>>;

/// Who a message's bytes are counted for.
#[derive(Clone)]
pub(super) struct Sender {
    pub budget: Arc<MessageBudget>,
    /// How often what a message inflates to is in memory: zstd keeps a window
    /// of it besides.
    pub copies: usize,
    /// Where what was taken is kept beyond the message's arrival, if it is.
    pub kept: Option<KeptBytes>,
    pub caller: Caller,
    pub peer: Option<SocketAddr>,
}

impl Sender {
    pub(super) fn take(&self, bytes: usize) -> impl Future<Output = MessageBytes> + Send + 'static {
        let caller = counted_as(&self.caller);
        let bytes = Arc::clone(&self.budget).take(caller, self.peer, bytes);
        let kept = self.kept.clone();
        async move {
            let bytes = bytes.await;
            if let Some(kept) = kept {
                kept.lock().push(bytes.clone());
            }
            bytes
        }
    }

    /// [`take`](Sender::take) without waiting.
    ///
    /// # Errors
    /// QUEUE_FULL, if there are not as many.
    pub(super) fn take_now(&self, bytes: usize) -> Result<MessageBytes, Status> {
        self.take(bytes).now_or_never().ok_or_else(budget_exhausted)
    }
}

pin_project_lite::pin_project! {
    /// The body of a request whose messages are bounded.
    pub(super) struct BoundedBody<B> {
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

impl<B> BoundedBody<B> {
    pub fn new(body: B, bounds: Bounds, sender: Sender) -> BoundedBody<B> {
        BoundedBody {
            body,
            bounds,
            framing: Framing::default(),
            clock: Clock::new(bounds.patience),
            sender,
            granted: None,
            waiting: None,
            failed: false,
        }
    }
}

pub(super) fn budget_exhausted() -> Status {
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
                Poll::Pending if this.clock.is_over(0, task) => refuse(budget_exhausted()),
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
            let length = this.framing.length;
            let bytes = match this.framing.is_compressed() {
                true => this.sender.inflated(allowance(length, this.bounds.largest)),
                false => length,
            };
            let bytes = Box::pin(this.sender.take(bytes));
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
