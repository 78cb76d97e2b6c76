//! The gRPC services behind their layers, on connections that are bounded.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tipserve_http::HttpLayer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::task::TaskTracker;
use tonic::{
    body::Body,
    service::Routes,
    transport::{self, server::Connected},
};
use tower::{Service, ServiceBuilder};

use super::{
    connections::{self, ConnectionLimits, Connections},
    http2::Http2,
    listener::ApiListener,
    protocol,
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
    let services = ServiceBuilder::new()
        .layer(rpc::UnreadLayer::new(
            limits.max_unfinished_bytes,
            connections.closer(),
        ))
        // gRPC-web and JSON, which are spoken over HTTP/1.1 too. Outermost, since
        // what the layers within refuse must reach the browser too.
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
        .service(routes.prepare());
    let http2 = Http2 {
        streams: limits.max_connection_streams,
        age: age.unwrap_or(FOREVER),
        stop: context.shutdown.clone(),
    };
    match listener {
        ApiListener::Tcp(listener) if auth.tls().is_some() => {
            let incoming = connections::encrypted(listener, connections, Arc::clone(auth));
            tokio::spawn(serve_all(incoming, services, http2))
        }
        ApiListener::Tcp(listener) => {
            let incoming = connections::plain(listener, connections);
            tokio::spawn(serve_all(incoming, services, http2))
        }
        ApiListener::Unix(listener) => {
            let incoming = connections::plain(listener, connections);
            tokio::spawn(serve_all(incoming, services, http2))
        }
    }
}

/// Serves connections, each with what it speaks, until all have ended after a
/// shutdown has begun.
async fn serve_all<IO, S, B>(
    mut incoming: ReceiverStream<IO>,
    services: S,
    http2: Http2,
) -> Result<(), transport::Error>
where
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stop = http2.stop.clone();
    let (older, http1) = mpsc::channel(64);
    let serving_older = transport::Server::builder()
        .accept_http1(true)
        .max_connection_age(http2.age)
        .serve_with_incoming_shutdown(
            services.clone(),
            ReceiverStream::new(http1),
            stop.clone().cancelled_owned(),
        );
    let tracker = TaskTracker::new();
    let accepting = async {
        while let Some(io) = tokio::select! {
            io = incoming.next() => io,
            () = stop.cancelled() => None,
        } {
            let (services, http2, older) = (services.clone(), http2.clone(), older.clone());
            tracker.spawn(async move {
                let peer = io.connect_info();
                match protocol::is_http2(io).await {
                    Ok((true, io)) => http2.serve(io, services, peer).await,
                    Ok((false, io)) => drop(older.send(io::Result::Ok(io)).await),
                    Err(error) => tracing::debug!(%error, "a connection said nothing"),
                }
            });
        }
        // The listener stops listening.
        drop(incoming);
        tracker.close();
        tracker.wait().await;
    };
    let (served, ()) = tokio::join!(serving_older, accepting);
    served
}
