//! The requests of a streaming call, that end only when they are said to.
//!
//! A plain channel would end the call's requests well whenever its sender is
//! dropped: by Ctrl-C, by an .npz file that is cut off amid its rows. The
//! server would take what it got for all there is, and make a cache of it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::sync::mpsc;
use tokio_stream::Stream;

/// Requests that wait to be taken by the connection.
const WAITING: usize = 2;

/// Sends a call's requests. Dropped without [`Requests::finish`], it leaves
/// the call open, to be cancelled.
#[derive(Debug)]
pub struct Requests<R> {
    sender: mpsc::Sender<R>,
    finished: Arc<AtomicBool>,
}

/// What the call takes.
#[derive(Debug)]
pub struct RequestStream<R> {
    receiver: mpsc::Receiver<R>,
    finished: Arc<AtomicBool>,
}

/// The two ends.
pub fn channel<R>() -> (Requests<R>, RequestStream<R>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let finished = Arc::new(AtomicBool::new(false));
    let requests = Requests {
        sender,
        finished: Arc::clone(&finished),
    };
    (requests, RequestStream { receiver, finished })
}

impl<R> Requests<R> {
    /// Sends one, as soon as there is room. False where the call has ended;
    /// its answer says why.
    pub async fn send(&self, request: R) -> bool {
        self.sender.send(request).await.is_ok()
    }

    /// That was all.
    pub fn finish(self) {
        self.finished.store(true, Ordering::Release);
    }
}

impl<R> Stream for RequestStream<R> {
    type Item = R;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<R>> {
        match ready!(self.receiver.poll_recv(context)) {
            Some(request) => Poll::Ready(Some(request)),
            None if self.finished.load(Ordering::Acquire) => Poll::Ready(None),
            // Nobody will ever wake this: it ends with the connection.
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn only_a_finished_stream_ends() {
        let (requests, mut stream) = channel();
        assert!(requests.send(1).await);
        requests.finish();
        assert_eq!((stream.next().await, stream.next().await), (Some(1), None));

        let (requests, mut stream) = channel();
        assert!(requests.send(1).await);
        drop(requests);
        assert_eq!(stream.next().await, Some(1));
        assert!(futures::poll!(std::pin::pin!(stream.next())).is_pending());
    }
}
