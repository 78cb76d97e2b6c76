//! Connections: how many there may be, in all and from one address, and how
//! long each may take to say what it speaks.
//!
//! Accepting never spins: where the system has no descriptor left, the
//! listener backs off and says so once a minute.

use std::{
    collections::HashMap,
    future::Future as _,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::Sleep,
};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::{
    auth::{Authenticator, tls},
    telemetry,
};

/// How long a connection may take until it is known to speak HTTP/2 or
/// HTTP/1.1. (The headers of an HTTP/1.1 request have hyper's 30 seconds.)
const OPENING: Duration = Duration::from_secs(10);
/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Waits after a failed accept: doubled from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How often the same trouble is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Descriptors kept for the store's files, the probes and what else is opened.
const SPARE_DESCRIPTORS: usize = 48;
/// So many connections are taken however few descriptors there are.
const FEWEST: usize = 8;

/// Bounds on connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Most at once.
    pub total: usize,
    /// Most at once from one address.
    pub per_address: usize,
    /// How long one may live: asked to go after this, ended after twice this.
    pub age: Option<Duration>,
}

impl ConnectionLimits {
    /// These, or as many as the process has descriptors for.
    pub(super) fn within_descriptors(self) -> ConnectionLimits {
        let Some((most, open)) = descriptors() else {
            return self;
        };
        let room = most.saturating_sub(open + SPARE_DESCRIPTORS).max(FEWEST);
        if room < self.total {
            tracing::warn!(
                descriptors = most,
                open,
                connections = room,
                "the limit on open files allows fewer connections than max_connections: raise it \
                 (ulimit -n)"
            );
        }
        ConnectionLimits {
            total: self.total.min(room),
            ..self
        }
    }
}

/// Most descriptors of this process, and how many are open.
fn descriptors() -> Option<(usize, usize)> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))?;
    let most = line.split_whitespace().nth(3)?.parse().ok()?;
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
    Some((most, open))
}

/// The connections that are open.
#[derive(Debug)]
pub(super) struct Connections {
    limits: ConnectionLimits,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One open connection; given back when dropped.
#[derive(Debug)]
struct Place {
    of: Arc<Connections>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.of.open.lock();
        open.total -= 1;
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
        telemetry::connections_open(open.total);
    }
}

impl Connections {
    pub fn new(limits: ConnectionLimits) -> Arc<Connections> {
        Arc::new(Connections {
            limits,
            open: Mutex::default(),
        })
    }

    /// A place for a connection from an address.
    ///
    /// # Errors
    /// The limit that leaves none.
    fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Place, &'static str> {
        // An IPv4 address counts as itself on a socket of IPv6, too.
        let address = address.to_canonical();
        let mut open = self.open.lock();
        if open.total >= self.limits.total {
            return Err("max_connections");
        }
        let from_there = open.by_address.entry(address).or_default();
        if *from_there >= self.limits.per_address {
            return Err("max_address_connections");
        }
        *from_there += 1;
        open.total += 1;
        telemetry::connections_open(open.total);
        Ok(Place {
            of: Arc::clone(self),
            address,
        })
    }
}

/// Says the same trouble at most once a minute, with how often it came.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    said: Option<Instant>,
    times: u64,
}

impl Seldom {
    /// It has happened: how often since it was said last, where it is time to
    /// say it.
    pub fn count(&mut self) -> Option<u64> {
        self.times += 1;
        if self.said.is_some_and(|said| said.elapsed() < LOG_EVERY) {
            return None;
        }
        self.said = Some(Instant::now());
        Some(std::mem::take(&mut self.times))
    }
}

/// Waits after failed accepts, longer each time.
#[derive(Debug)]
pub(super) struct Backoff {
    pause: Duration,
    trouble: Seldom,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            pause: PAUSES.0,
            trouble: Seldom::default(),
        }
    }
}

impl Backoff {
    /// An accept has failed.
    pub async fn wait(&mut self, error: &io::Error) {
        if let Some(times) = self.trouble.count() {
            tracing::error!(%error, times, "cannot accept connections; trying again");
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSES.1);
    }

    /// One has succeeded.
    pub fn reset(&mut self) {
        self.pause = PAUSES.0;
    }
}

/// Accepts connections and calls `ready` with each that has a place, until
/// `stop` resolves.
async fn accept(
    listener: TcpListener,
    connections: Arc<Connections>,
    mut ready: impl FnMut(TcpStream, Place),
    stop: impl Future<Output = ()>,
) {
    let mut stop = std::pin::pin!(stop);
    let (mut backoff, mut refused) = (Backoff::default(), Seldom::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => return,
        };
        let (socket, peer): (TcpStream, SocketAddr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                backoff.wait(&error).await;
                continue;
            }
        };
        backoff.reset();
        match connections.enter(peer.ip()) {
            Ok(place) => {
                // Answers do not wait for delayed acknowledgements.
                if socket.set_nodelay(true).is_ok() {
                    ready(socket, place);
                }
            }
            Err(limit) => {
                telemetry::connection_refused(limit);
                if let Some(times) = refused.count() {
                    tracing::warn!(limit, times, "connections were closed: there are too many");
                }
            }
        }
    }
}

/// Connections in the plain.
pub(super) fn plain(
    listener: TcpListener,
    connections: Arc<Connections>,
) -> ReceiverStream<io::Result<Connection<TcpStream>>> {
    // Room for all that have a place.
    let (sender, incoming) = mpsc::channel(connections.limits.total.min(1 << 16));
    tokio::spawn(async move {
        let age = connections.limits.age;
        let waiting = sender.clone();
        let ready = move |socket, place| {
            let connection = Connection::new(socket, place, age);
            if waiting.try_send(Ok(connection)).is_err() {
                telemetry::connection_refused("max_connections");
            }
        };
        accept(listener, connections, ready, sender.closed()).await;
    });
    ReceiverStream::new(incoming)
}

/// Connections whose TLS handshake is done. Each handshake runs on its own, so
/// that one that never ends holds up neither other connections nor a shutdown:
/// all of them end with the stream.
pub(super) fn encrypted(
    listener: TcpListener,
    connections: Arc<Connections>,
    guard: Arc<Authenticator>,
) -> ReceiverStream<io::Result<Connection<TlsStream<TcpStream>>>> {
    let (sender, incoming) = mpsc::channel(64);
    tokio::spawn(async move {
        let age = connections.limits.age;
        let mut handshakes = JoinSet::new();
        let done = sender.clone();
        let ready = move |socket, place| {
            while handshakes.try_join_next().is_some() {}
            // The certificates of this moment; connections before keep theirs.
            let Some(tls) = guard.tls() else { return };
            let done = done.clone();
            handshakes.spawn(async move {
                match tls::handshake(socket, &tls).await {
                    Ok(stream) => {
                        let _ = done.send(Ok(Connection::new(stream, place, age))).await;
                    }
                    Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
                }
            });
        };
        accept(listener, connections, ready, sender.closed()).await;
    });
    ReceiverStream::new(incoming)
}

/// A connection that has its place, and its time.
#[derive(Debug)]
pub(super) struct Connection<IO> {
    io: IO,
    /// Until it is known what it speaks.
    opening: Option<Opening>,
    end: Option<Pin<Box<Sleep>>>,
    _place: Place,
}

#[derive(Debug)]
struct Opening {
    /// Bytes of HTTP/2's preface that have come.
    matched: usize,
    alarm: Pin<Box<Sleep>>,
}

impl Opening {
    /// Whether these bytes settle it.
    fn is_settled_by(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            match PREFACE.get(self.matched) {
                Some(expected) if expected == byte => self.matched += 1,
                _ => return true,
            }
        }
        self.matched == PREFACE.len()
    }
}

impl<IO> Connection<IO> {
    fn new(io: IO, place: Place, age: Option<Duration>) -> Connection<IO> {
        Connection::opening(io, place, age, OPENING)
    }

    fn opening(io: IO, place: Place, age: Option<Duration>, opening: Duration) -> Connection<IO> {
        Connection {
            io,
            opening: Some(Opening {
                matched: 0,
                alarm: Box::pin(tokio::time::sleep(opening)),
            }),
            end: age.map(|age| Box::pin(tokio::time::sleep(age * 2))),
            _place: place,
        }
    }
}

impl<IO: Connected> Connected for Connection<IO> {
    type ConnectInfo = IO::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Connection<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let late = |what: &str| {
            telemetry::connection_refused("timeout");
            Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                what.to_owned(),
            )))
        };
        if Pin::new(&mut this.io).poll_read(task, buffer).is_pending() {
            if let Some(opening) = &mut this.opening
                && opening.alarm.as_mut().poll(task).is_ready()
            {
                return late("neither HTTP/2 nor HTTP/1.1 was spoken in time");
            }
            if let Some(end) = &mut this.end
                && end.as_mut().poll(task).is_ready()
            {
                return late("the connection has reached twice max_connection_age_seconds");
            }
            return Poll::Pending;
        }
        let arrived = buffer.filled().get(before..).unwrap_or_default();
        if let Some(opening) = &mut this.opening
            && opening.is_settled_by(arrived)
        {
            this.opening = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Connection<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(task, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(task)
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(task)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(task, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(total: usize, per_address: usize) -> ConnectionLimits {
        ConnectionLimits {
            total,
            per_address,
            age: None,
        }
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn places_are_bounded_in_all_and_by_address_and_given_back() {
        let connections = Connections::new(limits(3, 2));
        let mut held: Vec<_> = (0..2)
            .map(|_| connections.enter(address(1)).expect("a place"))
            .collect();
        assert_eq!(
            connections.enter(address(1)).err(),
            Some("max_address_connections")
        );
        let mapped = "::ffff:192.0.2.1".parse().expect("an address");
        assert_eq!(
            connections.enter(mapped).err(),
            Some("max_address_connections"),
            "the same address, written as IPv6"
        );
        held.push(connections.enter(address(2)).expect("a place"));
        assert_eq!(connections.enter(address(3)).err(), Some("max_connections"));
        held.clear();
        assert!(connections.enter(address(1)).is_ok());
        assert!(connections.open.lock().by_address.is_empty());
    }

    #[test]
    fn trouble_is_said_once_a_minute() {
        let mut trouble = Seldom::default();
        assert_eq!(trouble.count(), Some(1));
        assert_eq!(trouble.count(), None);
        trouble.said = Some(Instant::now() - LOG_EVERY);
        assert_eq!(trouble.count(), Some(2));
    }

    #[tokio::test]
    async fn what_a_connection_speaks_must_be_known_in_time() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        for (sent, settled) in [
            (&b""[..], false),
            (b"PRI * HT", false),
            (PREFACE, true),
            (b"POST /x HTTP/1.1\r\n", true),
            (b"PRx", true),
        ] {
            let (mut client, server) = tokio::io::duplex(64);
            let place = Connections::new(limits(1, 1))
                .enter(address(1))
                .expect("a place");
            let time = Duration::from_millis(100);
            let mut server = Connection::opening(server, place, None, time);
            client.write_all(sent).await.expect("sent");
            let mut got = vec![0; sent.len()];
            server.read_exact(&mut got).await.expect("read");
            let next = tokio::time::timeout(5 * time, server.read(&mut [0])).await;
            assert_eq!(
                next.is_err(),
                settled,
                "{:?}",
                String::from_utf8_lossy(sent)
            );
        }
    }

    #[tokio::test]
    async fn a_connection_ends_after_twice_its_age() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut client, server) = tokio::io::duplex(64);
        let place = Connections::new(limits(1, 1))
            .enter(address(1))
            .expect("a place");
        let age = Duration::from_millis(200);
        let mut server = Connection::new(server, place, Some(age));
        client.write_all(PREFACE).await.expect("sent");
        server.read_exact(&mut [0; 24]).await.expect("read");
        let next = tokio::time::timeout(age, server.read(&mut [0])).await;
        assert!(next.is_err(), "ended early");
        let error = server.read(&mut [0]).await.expect_err("ended");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
