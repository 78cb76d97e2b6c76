//! A connection with its deadlines: until it is known what it speaks, and of
//! its whole life.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use super::limits::Place;
use crate::{server::protocol::PREFACE, telemetry};

/// How long a connection may take until it is known to speak HTTP/2 or
/// HTTP/1.1. (The headers of an HTTP/1.1 request have hyper's 30 seconds.)
const OPENING: Duration = Duration::from_secs(10);

/// A connection that has its place, and its time.
#[derive(Debug)]
pub(in crate::server) struct Connection<IO> {
    io: IO,
    /// Until it is known what it speaks.
    opening: Option<Opening>,
    end: Option<Pin<Box<Sleep>>>,
    /// Resolves when the server ends the connection.
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
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
    pub(super) fn new(io: IO, place: Place, age: Option<Duration>) -> Connection<IO> {
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
            closed: Box::pin(place.end().cancelled_owned()),
            _place: place,
        }
    }
}

/// The error of a connection that is ended since it does not read.
fn unread() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "too many answers waited to be read",
    )
}

impl<IO> Connection<IO> {
    /// What a write came to, unless it waits for a peer that is to go.
    fn unless_closed(
        &mut self,
        written: Poll<io::Result<usize>>,
        task: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_pending() && self.closed.as_mut().poll(task).is_ready() {
            return Poll::Ready(Err(unread()));
        }
        written
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
            if this.closed.as_mut().poll(task).is_ready() {
                return Poll::Ready(Err(unread()));
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
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(task, bytes);
        this.unless_closed(written, task)
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
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(task, bytes);
        this.unless_closed(written, task)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::limits::{
            Connections,
            tests::{address, limits},
        },
        *,
    };

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
