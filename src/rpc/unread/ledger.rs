//! The account of what nobody has read yet, by address and connection.
//!
//! An answer whose bytes wait here can be dropped. What has been handed on to the
//! transport is counted with its connection until the transport has written it,
//! and so are results of streams that wait in their handlers: neither can be
//! taken back but with the connection.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::auth::peer::network;

/// Size of the pieces in which answers are kept and passed on: what HTTP/2
/// sends in one frame by default.
pub(super) const PIECE: usize = 16 << 10;

/// Ends a connection, by its peer's address.
pub type Close = Arc<dyn Fn(SocketAddr) + Send + Sync>;

/// Bytes of answers that peers have not read yet, over the whole server.
pub(super) struct Ledger {
    budget: usize,
    close: Close,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Without what connections hold that are being closed.
    total: usize,
    next: u64,
    addresses: HashMap<Option<IpAddr>, Address>,
}

/// What one address has not read, by connection.
#[derive(Default)]
struct Address {
    total: usize,
    connections: HashMap<Option<SocketAddr>, Connection>,
}

/// What one connection has not read.
#[derive(Default)]
struct Connection {
    total: usize,
    /// Handed on to the transport, or still in a stream's handler.
    elsewhere: usize,
    /// Unread answers, the oldest first.
    answers: BTreeMap<u64, Pieces>,
    closing: bool,
}

type Pieces = VecDeque<Box<[u8]>>;

fn bytes_of(pieces: &Pieces) -> usize {
    pieces.iter().map(|piece| piece.len()).sum()
}

/// What the budget has no room for: to be dropped without the lock.
#[derive(Default)]
struct Dropped {
    answers: Vec<Pieces>,
    connections: Vec<SocketAddr>,
}

fn address_of(peer: Option<SocketAddr>) -> Option<IpAddr> {
    peer.map(network)
}

impl Ledger {
    pub fn new(budget: usize, close: Close) -> Arc<Ledger> {
        Arc::new(Ledger {
            budget,
            close,
            waiting: Mutex::default(),
        })
    }

    /// Adds to a connection's account, by `change`, what has this many bytes and
    /// the next number. Then drops what the budget has no room for, but not
    /// this: an answer larger than the budget is still sent.
    fn add(
        &self,
        peer: Option<SocketAddr>,
        added: usize,
        change: impl FnOnce(&mut Connection, u64),
    ) -> u64 {
        let mut waiting = self.waiting.lock();
        let number = waiting.next;
        waiting.next += 1;
        let address = waiting.addresses.entry(address_of(peer)).or_default();
        let own = address.connections.entry(peer).or_default();
        change(own, number);
        own.total += added;
        if !own.closing {
            address.total += added;
            waiting.total += added;
        }
        let dropped = waiting.shrink(self.budget, number);
        drop(waiting);
        self.tell(dropped);
        number
    }

    fn tell(&self, dropped: Dropped) {
        if !dropped.answers.is_empty() {
            tracing::debug!(
                answers = dropped.answers.len(),
                "answers that nobody read were dropped"
            );
        }
        for peer in dropped.connections {
            tracing::debug!(%peer, "a connection that reads no answers is closed");
            (self.close)(peer);
        }
    }

    /// Changes the account of a connection that is in it, by which it shrinks.
    fn subtract<T>(
        &self,
        peer: Option<SocketAddr>,
        change: impl FnOnce(&mut Connection) -> Option<(usize, T)>,
    ) -> Option<T> {
        let mut waiting = self.waiting.lock();
        let address = waiting.addresses.get_mut(&address_of(peer))?;
        let own = address.connections.get_mut(&peer)?;
        let changed = change(own);
        if let Some((freed, _)) = &changed {
            own.total -= freed;
            if !own.closing {
                address.total -= freed;
            }
        }
        let (closing, left) = (own.closing, own.elsewhere + own.answers.len());
        if left == 0 {
            address.connections.remove(&peer);
            if address.connections.is_empty() {
                waiting.addresses.remove(&address_of(peer));
            }
        }
        let (freed, result) = changed?;
        if !closing {
            waiting.total -= freed;
        }
        Some(result)
    }

    /// Keeps an answer until it is read.
    pub fn keep(self: &Arc<Self>, peer: Option<SocketAddr>, data: &[u8]) -> Kept {
        let pieces: Pieces = data.chunks(PIECE).map(Box::from).collect();
        let number = self.add(peer, data.len(), |own, number| {
            own.answers.insert(number, pieces);
        });
        Kept {
            of: Arc::clone(self),
            peer,
            number,
        }
    }

    /// Hands bytes on to the transport: counted until it has written them.
    pub fn hand_on(self: &Arc<Self>, peer: Option<SocketAddr>, data: Box<[u8]>) -> Bytes {
        if data.is_empty() {
            return Bytes::new();
        }
        let counted = self.count(peer, data.len());
        Bytes::from_owner(Piece {
            data,
            _counted: counted,
        })
    }

    /// Counts bytes that are elsewhere.
    pub fn count(self: &Arc<Self>, peer: Option<SocketAddr>, bytes: usize) -> UnreadBytes {
        self.add(peer, bytes, |own, _| own.elsewhere += bytes);
        self.counted(peer, bytes)
    }

    fn counted(self: &Arc<Self>, peer: Option<SocketAddr>, bytes: usize) -> UnreadBytes {
        UnreadBytes {
            of: Arc::clone(self),
            peer,
            bytes,
        }
    }

    #[cfg(test)]
    pub fn total(&self) -> (usize, usize) {
        let waiting = self.waiting.lock();
        (waiting.total, waiting.addresses.len())
    }
}

impl Waiting {
    /// Drops the oldest answers of the connection and address with the most
    /// until the others fit, but never the answer `latest`. A connection without
    /// such answers is closed.
    fn shrink(&mut self, budget: usize, latest: u64) -> Dropped {
        let mut dropped = Dropped::default();
        while self.total > budget {
            let most = self.addresses.values_mut().max_by_key(|own| own.total);
            let Some(address) = most else { break };
            let open = address.connections.iter_mut().filter(|own| !own.1.closing);
            let Some((peer, own)) = open.max_by_key(|own| own.1.total) else {
                break;
            };
            let oldest = own.answers.first_entry();
            let freed = match oldest.filter(|answer| *answer.key() != latest) {
                Some(oldest) => {
                    let pieces = oldest.remove();
                    let bytes = bytes_of(&pieces);
                    own.total -= bytes;
                    dropped.answers.push(pieces);
                    bytes
                }
                None => {
                    // A socket file's peers have no addresses.
                    let (Some(peer), 1..) = (*peer, own.elsewhere) else {
                        break;
                    };
                    own.closing = true;
                    dropped.connections.push(peer);
                    own.total
                }
            };
            address.total -= freed;
            self.total -= freed;
        }
        dropped
    }
}

/// Bytes that were handed on to the transport.
struct Piece {
    data: Box<[u8]>,
    _counted: UnreadBytes,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// Bytes that are elsewhere; no longer counted once dropped.
pub struct UnreadBytes {
    of: Arc<Ledger>,
    peer: Option<SocketAddr>,
    bytes: usize,
}

impl Drop for UnreadBytes {
    fn drop(&mut self) {
        self.of.subtract(self.peer, |own| {
            own.elsewhere -= self.bytes;
            Some((self.bytes, ()))
        });
    }
}

/// An answer that is kept; no longer once dropped.
pub(super) struct Kept {
    of: Arc<Ledger>,
    peer: Option<SocketAddr>,
    number: u64,
}

impl Kept {
    /// Hands the next piece on; with it, whether there are more. `None` if the
    /// answer was dropped.
    pub fn piece(&self) -> Option<(Bytes, bool)> {
        let (data, more) = self.of.subtract(self.peer, |own| {
            let pieces = own.answers.get_mut(&self.number)?;
            let piece = pieces.pop_front()?;
            let more = !pieces.is_empty();
            if !more {
                own.answers.remove(&self.number);
            }
            own.elsewhere += piece.len();
            // It is still counted.
            Some((0, (piece, more)))
        })?;
        let counted = self.of.counted(self.peer, data.len());
        Some((
            Bytes::from_owner(Piece {
                data,
                _counted: counted,
            }),
            more,
        ))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.of.subtract(self.peer, |own| {
            let pieces = own.answers.remove(&self.number);
            Some((pieces.map_or(0, |pieces| bytes_of(&pieces)), ()))
        });
    }
}
