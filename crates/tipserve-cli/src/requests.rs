//! The requests of a streaming call, which end only on purpose.
//!
//! A plain channel would end the call's requests successfully whenever its
//! sender is dropped: on Ctrl-C, or at an .npz file that is cut off amid its
//! rows. The server would take what it has for everything, and make a cache of
//! it.

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

/// Requests that wait for the connection to take them.
const CAPACITY: usize = 2;

/// Sends a call's requests. Dropped without [`RequestSender::finish`], it
/// leaves the call open, to be cancelled.
#[derive(Debug)]
pub(crate) struct RequestSender<R> {
    sender: mpsc::Sender<R>,
    finished: Arc<AtomicBool>,
}

/// The stream of requests that the call takes.
#[derive(Debug)]
pub(crate) struct RequestStream<R> {
    receiver: mpsc::Receiver<R>,
    finished: Arc<AtomicBool>,
}

/// The two ends of a call's requests.
pub(crate) fn channel<R>() -> (RequestSender<R>, RequestStream<R>) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    let finished = Arc::new(AtomicBool::new(false));
    let requests = RequestSender {
        sender,
        finished: Arc::clone(&finished),
    };
    (requests, RequestStream { receiver, finished })
}

impl<R> RequestSender<R> {
    /// Sends one as soon as there is room. False if the call has ended; its
    /// answer says why.
    pub async fn send(&self, request: R) -> bool {
        self.sender.send(request).await.is_ok()
    }

    /// Ends the requests: that was everything.
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
            // Nothing will wake this again: it ends with the connection.
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
