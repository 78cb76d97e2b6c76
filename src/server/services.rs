//! The gRPC services behind their layers, on connections that are bounded.

use std::{sync::Arc, time::Duration};

use tipserve_http::HttpLayer;
use tokio::task::JoinHandle;
use tonic::{service::Routes, transport};

use super::{
    connections::{self, ConnectionLimits, Connections},
    listener::ApiListener,
};
use crate::{
    auth::{Authenticator, Origin},
    config::Limits,
    rpc::{
        self, Context,
        auth_layer::{AuthLayer, MostCalls},
        messages::MessageLayer,
    },
};

/// Bytes that may be under way to the server, per stream and per connection.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// How often a connection is asked by an HTTP/2 ping whether it is alive.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// The age of connections that may grow as old as they like; tokio's timers
/// reach a little over two years.
const FOREVER: Duration = Duration::from_secs(2 * 365 * 86_400);

/// Serves `routes`, over `http` too, on `listener` until the context's shutdown begins.
/// `web_origins` are the pages that may call from a browser.
pub(super) fn serve(
    limits: &Limits,
    web_origins: &[Origin],
    context: &Context,
    auth: &Arc<Authenticator>,
    routes: Routes,
    http: HttpLayer,
    listener: ApiListener,
) -> JoinHandle<Result<(), transport::Error>> {
    let age = match limits.max_connection_age_seconds {
        0 => None,
        seconds => Some(Duration::from_secs(seconds)),
    };
    let bounds = ConnectionLimits {
        total: limits.max_connections,
        per_address: limits.max_address_connections,
        age,
    };
    let connections = Connections::new(bounds.within_descriptors());
    let guarded = auth.tokens().is_some() || auth.tls().is_some();
    // The layer that is added first is the outermost.
    let router = transport::Server::builder()
        .max_concurrent_streams(limits.max_connection_streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEPALIVE))
        // gRPC-web and JSON, which are spoken over HTTP/1.1 too. Outermost, since
        // what the layers within refuse must reach the browser too.
        .accept_http1(true)
        .max_connection_age(age.unwrap_or(FOREVER))
        .layer(rpc::UnreadLayer::new(
            limits.max_unfinished_bytes,
            connections.closer(),
        ))
        .layer(rpc::web::BrowserLayer::new(web_origins, guarded, http))
        .layer(rpc::Observe::new(&context.calls))
        .layer(AuthLayer::new(
            Arc::clone(auth),
            MostCalls {
                server: limits.max_streams,
                token: limits.max_token_streams,
                peer: limits.max_peer_streams,
            },
        ))
        .layer(rpc::DeadlineLayer)
        // Around the layer that inflates: what answers in kind must see how a
        // request was compressed.
        .layer(rpc::CompressionLayer)
        .layer(MessageLayer::new(
            limits.max_message_bytes,
            limits.max_unfinished_bytes,
            Duration::from_secs(limits.message_seconds),
        ))
        .layer(rpc::AnswerSpaceLayer::new(limits.max_unfinished_bytes))
        .add_routes(routes);
    let shutdown = context.shutdown.clone();
    let stop = async move { shutdown.cancelled().await };
    match listener {
        ApiListener::Tcp(listener) if auth.tls().is_some() => {
            let incoming = connections::encrypted(listener, connections, Arc::clone(auth));
            tokio::spawn(router.serve_with_incoming_shutdown(incoming, stop))
        }
        ApiListener::Tcp(listener) => {
            let incoming = connections::plain(listener, connections);
            tokio::spawn(router.serve_with_incoming_shutdown(incoming, stop))
        }
        ApiListener::Unix(listener) => {
            let incoming = connections::plain(listener, connections);
            tokio::spawn(router.serve_with_incoming_shutdown(incoming, stop))
        }
    }
}
