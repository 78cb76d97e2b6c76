//! A bound on the bytes of messages that have begun and not yet arrived whole.
//!
//! A message takes its declared length from three budgets before more than its
//! first frame is read: its connection's, its caller's and the server's. One
//! that finds too little left is not read on, so that HTTP/2's flow control
//! stops its sender, until others have arrived. What is granted is granted
//! whole: a message that has its bytes waits for no other, and none waits for
//! ever.

use std::{
    collections::HashMap,
    hash::Hash,
    net::SocketAddr,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
    server: Arc<Semaphore>,
    pieces: usize,
    callers: Shares<String>,
    connections: Shares<SocketAddr>,
}

/// Bytes of one message, given back when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct MessageBytes(
    #[allow(dead_code, reason = "held for their drop")] Arc<Vec<OwnedSemaphorePermit>>,
);

/// A budget for each of many.
#[derive(Debug)]
struct Shares<K> {
    pieces: usize,
    shares: Mutex<HashMap<K, Weak<Semaphore>>>,
}

impl<K: Eq + Hash + Clone> Shares<K> {
    fn new(pieces: usize) -> Shares<K> {
        Shares {
            pieces,
            shares: Mutex::default(),
        }
    }

    fn of(&self, key: &K) -> Arc<Semaphore> {
        let mut shares = self.shares.lock();
        if let Some(share) = shares.get(key).and_then(Weak::upgrade) {
            return share;
        }
        // Entries that nobody holds any more make way for new ones.
        if shares.len() == shares.capacity() {
            shares.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Semaphore::new(self.pieces));
        shares.insert(key.clone(), Arc::downgrade(&share));
        share
    }
}

impl MessageBudget {
    /// A budget of `bytes` for the server, of which one caller may have half
    /// and one connection a quarter, but never less than the largest message.
    pub fn new(bytes: usize, largest: usize) -> MessageBudget {
        let pieces = |bytes: usize| {
            let most = u32::MAX as usize;
            bytes.max(largest).div_ceil(PIECE).min(most)
        };
        MessageBudget {
            server: Arc::new(Semaphore::new(pieces(bytes))),
            pieces: pieces(bytes),
            callers: Shares::new(pieces(bytes / 2)),
            connections: Shares::new(pieces(bytes / 4)),
        }
    }

    /// The bytes of the smallest share.
    pub fn least_share(&self) -> usize {
        self.connections.pieces * PIECE
    }

    /// Takes a message's bytes, once its connection, its caller and the server
    /// have them: always in this order, so that no two wait for each other. One
    /// that exceeds a share takes it whole.
    pub async fn take(
        self: Arc<Self>,
        caller: String,
        connection: Option<SocketAddr>,
        bytes: usize,
    ) -> MessageBytes {
        let connection = connection.map(|address| {
            let share = self.connections.of(&address);
            (share, self.connections.pieces)
        });
        let caller = (self.callers.of(&caller), self.callers.pieces);
        let server = (Arc::clone(&self.server), self.pieces);
        let mut permits = Vec::with_capacity(3);
        for (share, most) in connection.into_iter().chain([caller, server]) {
            let pieces = bytes.div_ceil(PIECE).min(most);
            // The semaphores are never closed.
            let pieces = u32::try_from(pieces).unwrap_or(u32::MAX);
            permits.extend(share.acquire_many_owned(pieces).await);
        }
        MessageBytes(Arc::new(permits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    const MIB: usize = 1 << 20;

    fn budget() -> Arc<MessageBudget> {
        Arc::new(MessageBudget::new(8 * MIB, MIB))
    }

    fn now(budget: &Arc<MessageBudget>, caller: &str, port: u16) -> Option<MessageBytes> {
        let connection = SocketAddr::from(([127, 0, 0, 1], port));
        Arc::clone(budget)
            .take(caller.to_owned(), Some(connection), MIB)
            .now_or_never()
    }

    #[test]
    fn a_connection_a_caller_and_the_server_are_bounded() {
        let budget = budget();
        let mut held: Vec<_> = (0..2)
            .map(|_| now(&budget, "a", 1).expect("room"))
            .collect();
        assert!(now(&budget, "a", 1).is_none(), "over the connection's");
        held.extend((0..2).map(|_| now(&budget, "a", 2).expect("room")));
        assert!(now(&budget, "a", 3).is_none(), "over the caller's");
        held.extend((4..8).map(|port| now(&budget, "b", port).expect("room")));
        assert!(now(&budget, "c", 9).is_none(), "over the server's");
        held.clear();
        assert!(now(&budget, "a", 1).is_some(), "given back");
    }

    #[test]
    fn the_largest_message_always_fits() {
        let budget = Arc::new(MessageBudget::new(PIECE, MIB));
        assert!(now(&budget, "a", 1).is_some());
    }

    #[test]
    fn what_exceeds_a_share_takes_it_whole() {
        let budget = budget();
        let large = Arc::clone(&budget).take("a".to_owned(), None, 100 * MIB);
        let large = large.now_or_never().expect("room");
        assert!(now(&budget, "a", 1).is_none());
        drop(large);
        assert!(now(&budget, "a", 1).is_some());
    }

    #[test]
    fn shares_that_nobody_holds_are_forgotten() {
        let budget = budget();
        for port in 0..10_000 {
            now(&budget, &port.to_string(), port).expect("room");
        }
        assert!(budget.callers.shares.lock().len() < 100);
    }
}
