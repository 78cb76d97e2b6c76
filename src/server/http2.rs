//! HTTP/2 connections: each request's body is taken as it arrives
//! ([`arrival`]), answered by the services, and its answer sent ([`reply`]).
//!
//! hyper serves HTTP/2 as well, and this does as it does, but for two things:
//! it leaves what arrives in h2's buffers until a call reads it, and what is
//! read counts as read for flow control, so that nobody outside of it can take
//! small frames out of these buffers without letting the peer send more.

mod arrival;
mod reply;

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason, RecvStream,
    server::{Builder, SendResponse},
};
use http::{HeaderMap, Method, Request, Response, header::CONTENT_LENGTH};
use http_body::Body as HttpBody;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::{Service, ServiceExt as _};

use arrival::arriving;
use reply::reply;

/// Bytes that may be under way to the server, per stream and per connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Most bytes of a request's headers, as HTTP/2 counts them.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// Most bytes of a stream's answer that wait within the connection.
const SEND_BUFFER: usize = 400 << 10;
/// How often a connection is asked by a ping whether it is alive, and how long
/// it may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(20);

/// How HTTP/2 connections are served.
#[derive(Clone, Debug)]
pub(super) struct Http2 {
    /// Most calls of one connection at once.
    pub streams: u32,
    /// When a connection is asked to go.
    pub age: Duration,
    /// Asks all of them to go.
    pub stop: CancellationToken,
}

impl Http2 {
    /// Serves a connection until it ends. `peer` is put into the extensions of
    /// each of its requests.
    pub async fn serve<IO, S, B, P>(self, io: IO, service: S, peer: P)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        P: Clone + Send + Sync + 'static,
    {
        let handshake = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(self.streams)
            .max_header_list_size(MAX_HEADER_BYTES)
            .max_send_buffer_size(SEND_BUFFER)
            .handshake::<_, Bytes>(io);
        let mut connection = match handshake.await {
            Ok(connection) => connection,
            Err(error) => return tracing::debug!(%error, "no HTTP/2 connection came about"),
        };
        let mut lost = std::pin::pin!(lost(connection.ping_pong()));
        let mut aged = std::pin::pin!(tokio::time::sleep(self.age));
        let mut leaving = false;
        loop {
            tokio::select! {
                accepted = connection.accept() => match accepted {
                    Some(Ok((request, respond))) => {
                        let call = call(service.clone(), request, respond, peer.clone());
                        tokio::spawn(call);
                    }
                    Some(Err(error)) => return tracing::debug!(%error, "an HTTP/2 connection failed"),
                    None => return,
                },
                () = self.stop.cancelled(), if !leaving => {
                    leaving = true;
                    connection.graceful_shutdown();
                }
                () = &mut aged, if !leaving => {
                    leaving = true;
                    connection.graceful_shutdown();
                }
                () = &mut lost => {
                    tracing::debug!("an HTTP/2 connection answers no pings");
                    return;
                }
            }
        }
    }
}

/// Completes when the peer has not answered a ping in time.
async fn lost(pings: Option<PingPong>) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(KEEPALIVE).await;
        let ponged = tokio::time::timeout(PONG, pings.ping(Ping::opaque()));
        if !matches!(ponged.await, Ok(Ok(_))) {
            return;
        }
    }
}

/// One request: takes its body as it arrives, and answers it.
async fn call<S, B, P>(
    service: S,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    peer: P,
) where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Send,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    P: Clone + Send + Sync + 'static,
{
    if request.method() == Method::CONNECT {
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    let (parts, stream) = request.into_parts();
    let (taking, body) = arriving(stream, stated_length(&parts.headers));
    let mut request = Request::from_parts(parts, Body::new(body));
    request.extensions_mut().insert(peer);
    let answering = reply(service.oneshot(request), respond);
    let (mut taking, mut answering) = (std::pin::pin!(taking), std::pin::pin!(answering));
    let mut taken = false;
    // The body first: who reads it in the same task finds it there.
    loop {
        tokio::select! {
            biased;
            () = &mut taking, if !taken => taken = true,
            sent = &mut answering => {
                if let Err(error) = sent {
                    tracing::debug!(%error, "an answer was not sent");
                }
                break;
            }
        }
    }
    // For who goes on reading after its answer.
    if !taken {
        taking.await;
    }
}

/// The length of a body by its headers, if they state one.
fn stated_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
