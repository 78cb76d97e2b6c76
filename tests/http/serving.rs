//! A layer over a service that reads all messages of a request.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tipserve_http::{Assets, Bounds, Call, HttpLayer};
use tonic::{Status, body::Body};
use tower::{Layer as _, ServiceExt as _};

/// Has room for 32 MiB a message.
pub struct Room;

impl Bounds for Room {
    fn largest(&self) -> usize {
        32 << 20
    }

    fn patience(&self, _: usize) -> Duration {
        Duration::from_secs(60)
    }

    fn reserve(&self, _: usize) -> BoxFuture<'static, Box<dyn Send + Sync>> {
        async { Box::new(()) as Box<dyn Send + Sync> }.boxed()
    }

    fn too_large(&self, bytes: usize) -> Status {
        Status::out_of_range(format!("{bytes} bytes"))
    }

    fn too_slow(&self, _: usize) -> Status {
        Status::deadline_exceeded("too slow")
    }

    fn budget_exhausted(&self) -> Status {
        Status::resource_exhausted("no room")
    }
}

/// What a request was answered with, and the messages that it was.
pub struct Answered {
    pub code: StatusCode,
    pub body: Bytes,
    pub messages: Vec<Bytes>,
}

/// Sends a request with a body of a type.
pub fn send(layer: &HttpLayer, path: &str, kind: &str, body: Bytes) -> Answered {
    let request = Request::post(path)
        .header("content-type", kind)
        .body(Body::new(Full::new(body)))
        .expect("a request");
    let messages: Arc<Mutex<Vec<Bytes>>> = Arc::default();
    let read = Arc::clone(&messages);
    let service = layer.layer(tower::service_fn(move |request| {
        let read = Arc::clone(&read);
        async move { Ok::<_, Infallible>(serve(request, &read).await.into_http::<Body>()) }
    }));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (parts, body) = runtime.block_on(async {
        let answer = service.oneshot(request).await.expect("an answer");
        let (parts, body) = answer.into_parts();
        (parts, body.collect().await.expect("a body").to_bytes())
    });
    let messages = std::mem::take(&mut *messages.lock().expect("no panic"));
    Answered {
        code: parts.status,
        body,
        messages,
    }
}

async fn serve(request: Request<Body>, read: &Mutex<Vec<Bytes>>) -> Status {
    let (parts, body) = request.into_parts();
    let call = parts.extensions.get::<Arc<Call>>().expect("a call");
    let mut messages = tipserve_http::messages(Arc::clone(call), body, Arc::new(Room));
    while let Some(frame) = messages.frame().await {
        match frame {
            Ok(frame) => {
                let framed = frame.into_data().expect("data");
                read.lock().expect("no panic").push(framed.slice(5..));
            }
            Err(status) => return status,
        }
    }
    Status::ok("")
}

/// A layer over all of the API.
pub fn layer() -> HttpLayer {
    HttpLayer::new(tipserve_api::DESCRIPTORS, Assets::default()).expect("a layer")
}
