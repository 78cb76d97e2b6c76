//! A bound on the bytes of messages that have begun and not yet arrived whole.
//!
//! A message takes its declared length from the budget before more than its
//! first frame is read. One that finds too little left is not read on, so that
//! HTTP/2's flow control stops its sender, until others have arrived. What is
//! granted is granted whole: a message that has its bytes waits for no other.
//!
//! A caller may have as much as is left for all others, and one of its
//! connections as much of that as is left for its other connections (dynamic
//! thresholds: Choudhury and Hahne, 1998). So one caller alone has half of the
//! budget, two have a third each, and however many there are, some is left for
//! the next; what they had before it came is theirs until their messages have
//! arrived. The largest message always fits if nothing but its caller's share
//! stands against it. Of those that wait, the caller with the least goes first.

mod queue;

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use queue::{Asked, Granted, Queue};

/// Bytes are counted in pieces of this size, as a semaphore counts in u32.
const PIECE: usize = 1024;

/// A compressed message may inflate to this many bytes, or this many times its
/// length, without reserving more of the budget.
const FREE: usize = 64 << 10;
const RATIO: usize = 4;

/// The budget that a compressed message reserves when it begins to arrive.
pub fn allowance(compressed: usize, largest: usize) -> usize {
    let likely = compressed.saturating_mul(RATIO).max(FREE);
    // In the budget's units, so that this and the rest of the largest message
    // never exceed it together.
    likely.next_multiple_of(PIECE).min(largest.max(compressed))
}

/// The bytes that unfinished messages may take, or answers while they are made.
#[derive(Debug)]
pub struct MessageBudget {
    queue: Mutex<Queue>,
    /// Of the whole, and of the largest message.
    pieces: usize,
    largest: usize,
}

/// Bytes of one message, given back when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct MessageBytes(#[allow(dead_code, reason = "held for its drop")] Arc<Held>);

#[derive(Debug)]
struct Held {
    budget: Arc<MessageBudget>,
    asked: Asked,
}

impl Drop for Held {
    fn drop(&mut self) {
        let freed = self.budget.queue.lock().give_back(&self.asked);
        self.budget.hand_out(freed);
    }
}

/// Waits for a message's bytes.
#[derive(Debug)]
struct Waiting {
    budget: Arc<MessageBudget>,
    asked: Asked,
    number: u64,
    granted: oneshot::Receiver<MessageBytes>,
}

impl Future for Waiting {
    type Output = MessageBytes;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<MessageBytes> {
        match Pin::new(&mut self.granted).poll(task) {
            Poll::Ready(Ok(bytes)) => Poll::Ready(bytes),
            // Whoever waits is in the queue until it has its bytes.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let freed = self.budget.queue.lock().leave(&self.asked, self.number);
        self.budget.hand_out(freed);
    }
}

impl MessageBudget {
    /// A budget of `bytes` for the server, but never less than the largest
    /// message.
    pub fn new(bytes: usize, largest: usize) -> MessageBudget {
        let pieces = bytes.max(largest).div_ceil(PIECE).max(1);
        let largest = largest.div_ceil(PIECE).max(1);
        MessageBudget {
            queue: Mutex::new(Queue::new(pieces, largest)),
            pieces,
            largest,
        }
    }

    /// The most bytes that one message may take.
    pub fn most(&self) -> usize {
        self.largest.max(self.pieces / 4) * PIECE
    }

    /// Takes a message's bytes, once its connection, its caller and the server
    /// have them. One that would take more than it [may](Self::most) takes that.
    pub async fn take(
        self: Arc<Self>,
        caller: String,
        connection: Option<SocketAddr>,
        bytes: usize,
    ) -> MessageBytes {
        let asked = Asked {
            caller,
            connection,
            pieces: bytes.min(self.most()).div_ceil(PIECE),
        };
        let (sender, receiver) = oneshot::channel();
        let (number, granted) = self.queue.lock().enter(&asked, sender);
        self.hand_out(granted);
        let waiting = Waiting {
            budget: self,
            asked,
            number,
            granted: receiver,
        };
        waiting.await
    }

    fn held(self: &Arc<Self>, asked: Asked) -> MessageBytes {
        MessageBytes(Arc::new(Held {
            budget: Arc::clone(self),
            asked,
        }))
    }

    /// Gives what has been granted to those who waited for it.
    fn hand_out(self: &Arc<Self>, granted: Granted) {
        for (asked, waiting) in granted {
            // One that has gone meanwhile gives its bytes back by dropping them.
            let _ = waiting.send(self.held(asked));
        }
    }
}

#[cfg(test)]
mod tests;
