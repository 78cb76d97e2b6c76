//! What a connection speaks, told from its first bytes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until it is known whether a connection speaks HTTP/2. How long that
/// may take is up to the connection.
///
/// # Errors
/// Those of reading; [`io::ErrorKind::UnexpectedEof`] if it ends before that.
pub(super) async fn is_http2<IO>(mut io: IO) -> io::Result<(bool, Begun<IO>)>
where
    IO: AsyncRead + Unpin,
{
    let mut first = [0; PREFACE.len()];
    let mut have = 0;
    loop {
        let Some(place) = first.get_mut(have..) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        match io.read(place).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => have += count,
        }
        let seen = first.get(..have).unwrap_or_default();
        let differs = !PREFACE.starts_with(seen);
        if differs || have == PREFACE.len() {
            return Ok((
                !differs,
                Begun {
                    first,
                    have,
                    given: 0,
                    io,
                },
            ));
        }
    }
}

/// A connection whose first bytes have been read, and are read again.
#[derive(Debug)]
pub(super) struct Begun<IO> {
    first: [u8; PREFACE.len()],
    have: usize,
    given: usize,
    io: IO,
}

impl<IO: Connected> Connected for Begun<IO> {
    type ConnectInfo = IO::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Begun<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let left = this.first.get(this.given..this.have).unwrap_or_default();
        if left.is_empty() {
            return Pin::new(&mut this.io).poll_read(task, buffer);
        }
        let count = left.len().min(buffer.remaining());
        buffer.put_slice(left.get(..count).unwrap_or_default());
        this.given += count;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Begun<IO> {
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
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn the_first_bytes_tell_and_are_read_again() {
        for (sent, http2) in [
            (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nand frames"[..], true),
            (b"GET / HTTP/1.1\r\n\r\n", false),
            (b"PRI * HTTP/1.1\r\n\r\n", false),
            (b"P\0", false),
        ] {
            for cut in 1..sent.len() {
                let (mut client, server) = tokio::io::duplex(cut);
                let writing = tokio::spawn(async move {
                    client.write_all(sent).await.expect("sent");
                });
                let (told, mut begun) = is_http2(server).await.expect("told");
                assert_eq!(told, http2, "{:?}", String::from_utf8_lossy(sent));
                let mut read = Vec::new();
                begun.read_to_end(&mut read).await.expect("read");
                assert_eq!(read, sent, "cut by {cut}");
                writing.await.expect("written");
            }
        }
    }

    #[tokio::test]
    async fn one_that_ends_before_speaks_nothing() {
        let (client, server) = tokio::io::duplex(64);
        drop(client);
        assert!(is_http2(server).await.is_err());
    }
}
