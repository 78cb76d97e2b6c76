//! Connects over TCP or a Unix socket, and notices that the other side speaks.
//!
//! The kernel accepts connections for a server that is stopped, and a port may
//! belong to a program that waits for its client. HTTP/2 begins with a word
//! from each side, so a peer that says nothing is not a server.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    sync::Notify,
};
use tonic::transport::Uri;
use tower::Service;

use crate::address::{Address, DEFAULT_PORT};

/// Opens connections to one address.
#[derive(Clone)]
pub(crate) struct Connector {
    address: Address,
    connected: Arc<AtomicBool>,
    heard: Arc<Notify>,
}

impl Connector {
    pub(crate) fn new(address: Address) -> Self {
        Self {
            address,
            connected: Arc::default(),
            heard: Arc::default(),
        }
    }

    /// Whether there was ever a connection. What fails after that, and before
    /// [`Connector::heard`], is TLS.
    pub(crate) fn connected(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.connected)
    }

    /// Resolves once the peer has said something, or hung up: calls then say
    /// which.
    pub(crate) fn heard(&self) -> impl Future<Output = ()> + use<> {
        let heard = Arc::clone(&self.heard);
        async move { heard.notified().await }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Heard<Box<dyn Stream>>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self {
            address,
            connected,
            heard,
        } = self.clone();
        Box::pin(async move {
            let stream = open(&address).await?;
            connected.store(true, Ordering::Relaxed);
            Ok(TokioIo::new(Heard { stream, heard }))
        })
    }
}

async fn open(address: &Address) -> io::Result<Box<dyn Stream>> {
    if let Some(path) = address.socket_path() {
        return Ok(Box::new(UnixStream::connect(path).await?));
    }
    let uri = address.uri();
    let host = uri.host().unwrap_or_default();
    // The resolver takes IPv6 addresses without their brackets.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(DEFAULT_PORT))).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

/// A connection of either kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that tells when something has come from the peer.
pub(crate) struct Heard<T> {
    stream: T,
    heard: Arc<Notify>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Heard<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if polled.is_ready() {
            self.heard.notify_one();
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Heard<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
