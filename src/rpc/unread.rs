//! Bounds answers that nobody reads.
//!
//! A peer that sends requests and never reads (HTTP/2 lets it close its window)
//! makes the server hold its answers for as long as the connection lives: a
//! small request for a large page costs the peer nothing. Unread answers are
//! therefore counted, for gRPC, gRPC-web and HTTP together. If they exceed the
//! budget, the oldest answers of the address and connection with the most are
//! dropped and their calls end; peers that read their answers hold little.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context as Task, Poll},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::{error::ApiError, messages::peer_of};

/// Size of the pieces in which answers are passed on: the transport buffers one
/// of each answer in addition to the count here.
const PIECE: usize = 32 << 10;

/// The bound on unread answers.
#[derive(Clone)]
pub struct UnreadLayer {
    unread: Arc<Unread>,
}

impl UnreadLayer {
    /// Allows at most this many bytes of them in the whole server.
    pub fn new(budget: usize) -> UnreadLayer {
        UnreadLayer {
            unread: Arc::new(Unread {
                budget,
                waiting: Mutex::default(),
            }),
        }
    }
}

/// All unread answers, by address and connection.
struct Unread {
    budget: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    total: usize,
    next: u64,
    addresses: HashMap<Option<IpAddr>, Address>,
}

/// The unread answers of one address, by connection.
#[derive(Default)]
struct Address {
    total: usize,
    connections: HashMap<Option<SocketAddr>, Connection>,
}

/// The unread answers of one connection, by age.
#[derive(Default)]
struct Connection {
    total: usize,
    answers: BTreeMap<u64, Bytes>,
}

/// An unread part of an answer; no longer counted once dropped.
struct Held {
    of: Arc<Unread>,
    peer: Option<SocketAddr>,
    number: u64,
}

fn address_of(peer: Option<SocketAddr>) -> Option<IpAddr> {
    peer.map(|peer| peer.ip().to_canonical())
}

impl Unread {
    fn hold(self: &Arc<Self>, peer: Option<SocketAddr>, bytes: Bytes) -> Held {
        let mut waiting = self.waiting.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.total += bytes.len();
        let address = waiting.addresses.entry(address_of(peer)).or_default();
        address.total += bytes.len();
        let own = address.connections.entry(peer).or_default();
        own.total += bytes.len();
        own.answers.insert(number, bytes);
        let dropped = waiting.shrink(self.budget, number);
        drop(waiting);
        if !dropped.is_empty() {
            tracing::debug!(
                answers = dropped.len(),
                "answers that nobody read were dropped"
            );
        }
        Held {
            of: Arc::clone(self),
            peer,
            number,
        }
    }
}

impl Waiting {
    /// Drops answers until the others fit, but never the latest one. The caller
    /// frees them without holding the lock.
    fn shrink(&mut self, budget: usize, last: u64) -> Vec<Bytes> {
        let mut dropped = Vec::new();
        while self.total > budget {
            let most = self.addresses.values_mut().max_by_key(|own| own.total);
            let Some(address) = most else { break };
            let most = address.connections.values_mut().max_by_key(|own| own.total);
            let Some(own) = most else { break };
            let Some(oldest) = own.answers.first_entry().filter(|one| *one.key() != last) else {
                break;
            };
            let bytes = oldest.remove();
            own.total -= bytes.len();
            address.total -= bytes.len();
            self.total -= bytes.len();
            dropped.push(bytes);
        }
        dropped
    }
}

impl Held {
    /// The next piece, and whether there is more; `None` if it was dropped.
    ///
    /// A copy: a slice that the transport buffers would keep the whole answer's
    /// memory, dropped or not.
    fn piece(&self) -> Option<(Bytes, bool)> {
        let (piece, more) = self.split()?;
        Some((Bytes::copy_from_slice(&piece), more))
    }

    fn split(&self) -> Option<(Bytes, bool)> {
        let mut waiting = self.of.waiting.lock();
        let waiting = &mut *waiting;
        let address = waiting.addresses.get_mut(&address_of(self.peer))?;
        let own = address.connections.get_mut(&self.peer)?;
        let bytes = own.answers.get_mut(&self.number)?;
        let piece = bytes.split_to(bytes.len().min(PIECE));
        let more = !bytes.is_empty();
        own.total -= piece.len();
        address.total -= piece.len();
        waiting.total -= piece.len();
        Some((piece, more))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut waiting = self.of.waiting.lock();
        let waiting = &mut *waiting;
        let Some(address) = waiting.addresses.get_mut(&address_of(self.peer)) else {
            return;
        };
        let Some(own) = address.connections.get_mut(&self.peer) else {
            return;
        };
        if let Some(bytes) = own.answers.remove(&self.number) {
            own.total -= bytes.len();
            address.total -= bytes.len();
            waiting.total -= bytes.len();
        }
        if own.answers.is_empty() {
            address.connections.remove(&self.peer);
        }
        if address.connections.is_empty() {
            waiting.addresses.remove(&address_of(self.peer));
        }
    }
}

impl<S> Layer<S> for UnreadLayer {
    type Service = BoundedAnswers<S>;

    fn layer(&self, inner: S) -> BoundedAnswers<S> {
        BoundedAnswers {
            inner,
            unread: Arc::clone(&self.unread),
        }
    }
}

/// Services whose unread answers are bounded.
#[derive(Clone)]
pub struct BoundedAnswers<S> {
    inner: S,
    unread: Arc<Unread>,
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

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let peer = peer_of(&request);
        let unread = Arc::clone(&self.unread);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let (parts, body) = answer.await?.into_parts();
            let size = body.size_hint();
            let mut answer = Answer {
                body,
                unread,
                peer,
                next: None,
                held: VecDeque::new(),
                size,
            };
            // An answer is encoded when it is first polled: do that now, not
            // when its reader has room. What encodes it keeps the buffer that
            // it encoded into until it has come to its end, one frame later.
            for _ in 0..2 {
                if answer.next.is_some() || answer.body.is_end_stream() {
                    break;
                }
                let frame = std::future::poll_fn(|task| {
                    Poll::Ready(Pin::new(&mut answer.body).poll_frame(task))
                });
                match frame.await {
                    Poll::Ready(frame) => answer.take(frame),
                    Poll::Pending => break,
                }
            }
            Ok(Response::from_parts(parts, Body::new(answer)))
        })
    }
}

/// The body of an answer.
struct Answer {
    body: Body,
    unread: Arc<Unread>,
    peer: Option<SocketAddr>,
    /// The next frame, if the body has already been polled for it.
    next: Option<Option<Result<Frame<Bytes>, Status>>>,
    /// Counted data that is not read yet, before `next`.
    held: VecDeque<Held>,
    size: SizeHint,
}

impl Answer {
    /// Keeps a frame of the body: small ones here, the rest where it is
    /// counted.
    fn take(&mut self, frame: Option<Result<Frame<Bytes>, Status>>) {
        let frame = match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.len() > PIECE => {
                    // A buffer that grew while it was written is up to twice
                    // as large as what is in it.
                    let data = Bytes::copy_from_slice(&data);
                    self.held.push_back(self.unread.hold(self.peer, data));
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
            if let Some(held) = this.held.front() {
                let Some((piece, more)) = held.piece() else {
                    this.held.clear();
                    this.next = None;
                    this.body = Body::empty();
                    return Poll::Ready(Some(Err(not_read())));
                };
                if !more {
                    this.held.pop_front();
                }
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if let Some(next) = this.next.take() {
                return Poll::Ready(next);
            }
            let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(task));
            this.take(frame);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty()
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
mod tests {
    use super::*;

    fn unread(budget: usize) -> Arc<Unread> {
        Arc::clone(&UnreadLayer::new(budget).unread)
    }

    /// A connection of an address.
    fn peer(last: u8, port: u16) -> Option<SocketAddr> {
        Some(SocketAddr::from(([192, 0, 2, last], port)))
    }

    fn bytes(length: usize) -> Bytes {
        vec![7; length].into()
    }

    #[test]
    fn the_oldest_answers_of_who_has_the_most_are_dropped() {
        let unread = unread(100_000);
        let elsewhere = unread.hold(peer(1, 1), bytes(30_000));
        let beside = unread.hold(peer(2, 2), bytes(10_000));
        let held: Vec<_> = (0..5)
            .map(|_| unread.hold(peer(2, 3), bytes(30_000)))
            .collect();
        assert!(unread.waiting.lock().total <= 100_000);
        let alive: Vec<bool> = held.iter().map(|held| held.piece().is_some()).collect();
        assert_eq!(alive, [false, false, false, true, true]);
        assert!(elsewhere.piece().is_some(), "of another address");
        assert!(beside.piece().is_some(), "of another connection");
        // A single answer that exceeds the budget is still sent.
        let large = unread.hold(peer(3, 1), bytes(200_000));
        assert!(large.piece().is_some());
        drop((elsewhere, beside, held, large));
        let waiting = unread.waiting.lock();
        assert_eq!((waiting.total, waiting.addresses.len()), (0, 0));
    }

    #[tokio::test]
    async fn an_answer_comes_whole_and_in_pieces() {
        use http_body_util::{BodyExt as _, Full};
        let unread = unread(1 << 20);
        for length in [0, 5, PIECE, PIECE + 1, 5 * PIECE + 3] {
            let body = Body::new(Full::new(bytes(length)));
            let inner = tower::service_fn(move |_: Request<()>| {
                let body = Body::new(Full::new(bytes(length)));
                async move { Ok::<_, Infallible>(Response::new(body)) }
            });
            let layer = UnreadLayer {
                unread: Arc::clone(&unread),
            };
            let answer = layer.layer(inner).call(Request::new(())).await;
            let answer = answer.expect("infallible").into_body();
            assert_eq!(answer.size_hint().exact(), body.size_hint().exact());
            let whole = answer.collect().await.expect("whole").to_bytes();
            assert_eq!(whole, bytes(length));
        }
        assert_eq!(unread.waiting.lock().total, 0);
    }
}
