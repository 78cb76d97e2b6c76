//! Accepting connections: how many there may be, in all and from one address,
//! and how long each may take to say what it speaks.
//!
//! Accepting never spins: when the system has no descriptor left, the listener
//! backs off and logs one line a minute.

mod backoff;
mod limits;
mod timed;

use std::sync::Arc;

use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

use super::listener::Listener;
use crate::{
    auth::{Authenticator, tls},
    telemetry,
};
pub(super) use backoff::Backoff;
use backoff::LogThrottle;
pub use limits::ConnectionLimits;
pub(super) use limits::Connections;
use limits::Place;
use timed::Connection;

/// Accepts connections and calls `ready` with each that has a place, until
/// `stop` resolves.
async fn accept<L: Listener>(
    listener: L,
    connections: Arc<Connections>,
    mut ready: impl FnMut(L::Io, Place),
    stop: impl Future<Output = ()>,
) {
    let mut stop = std::pin::pin!(stop);
    let (mut backoff, mut refused) = (Backoff::default(), LogThrottle::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => return,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                backoff.wait(&error).await;
                continue;
            }
        };
        backoff.reset();
        match connections.enter(address) {
            Ok(place) => ready(socket, place),
            Err(limit) => {
                telemetry::connection_refused(limit);
                if let Some(times) = refused.count() {
                    tracing::warn!(limit, times, "connections were closed: there are too many");
                }
            }
        }
    }
}

/// Accepts connections without TLS.
pub(super) fn plain<L: Listener>(
    listener: L,
    connections: Arc<Connections>,
) -> ReceiverStream<Connection<L::Io>> {
    // Room for all that have a place.
    let (sender, incoming) = mpsc::channel(connections.limits.total.min(1 << 16));
    tokio::spawn(async move {
        let age = connections.limits.age;
        let waiting = sender.clone();
        let ready = move |socket, place| {
            let connection = Connection::new(socket, place, age);
            if waiting.try_send(connection).is_err() {
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
    auth: Arc<Authenticator>,
) -> ReceiverStream<Connection<TlsStream<TcpStream>>> {
    let (sender, incoming) = mpsc::channel(64);
    tokio::spawn(async move {
        let age = connections.limits.age;
        let mut handshakes = JoinSet::new();
        let done = sender.clone();
        let ready = move |socket, place| {
            while handshakes.try_join_next().is_some() {}
            // The certificates of this moment; connections before keep theirs.
            let Some(tls) = auth.tls() else { return };
            let done = done.clone();
            handshakes.spawn(async move {
                match tls::handshake(socket, &tls).await {
                    Ok(stream) => {
                        let _ = done.send(Connection::new(stream, place, age)).await;
                    }
                    Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
                }
            });
        };
        accept(listener, connections, ready, sender.closed()).await;
    });
    ReceiverStream::new(incoming)
}
