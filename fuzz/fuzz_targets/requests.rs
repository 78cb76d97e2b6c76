//! Any bytes as an HTTP request of any method: its query, its headers and its
//! body, in pieces. What the server's layers are passed on are messages of that
//! method, made within a memory that is bounded by the body.

#![no_main]

use std::{
    convert::Infallible,
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use prost_reflect::DynamicMessage;
use tipserve_http::{Assets, Bounds, Call, HttpLayer};
use tokio::runtime::Runtime;
use tonic::{Code, Status, body::Body};
use tower::{Layer as _, ServiceExt as _};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Bytes of memory for each byte of a body: a vector that grows holds its old
/// half beside a new whole, and a body may be there as a whole beside its message.
const FACTOR: usize = 16;
/// Whatever the body: the call, the parser's buffers, an error with its details.
const BESIDES: usize = 24 << 10;
/// Most bytes of an error: it quotes little of what was sent.
const LARGEST_ERROR: usize = 8 << 10;
/// Most bytes of a message.
const LARGEST: usize = 48 << 10;

const TYPES: [&str; 8] = [
    "application/json",
    "application/x-ndjson",
    "",
    "image/png",
    "application/octet-stream",
    "application/x-npy",
    "multipart/form-data; boundary=b",
    "text/plain",
];

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
});

static LAYER: LazyLock<HttpLayer> = LazyLock::new(|| {
    HttpLayer::new(tipserve_api::DESCRIPTORS, Assets::default()).expect("a layer")
});

/// Verb and path of every operation, in order.
static OPERATIONS: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
    let document = tipserve_http::openapi_document(tipserve_api::DESCRIPTORS).expect("OpenAPI");
    let document: serde_json::Value = serde_json::from_str(&document).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let verbs = |verbs: &serde_json::Value| verbs.as_object().cloned().unwrap_or_default();
    let mut operations: Vec<_> = paths
        .iter()
        .flat_map(|(path, of)| {
            let path = path.replace("{version}", "7").replace(['{', '}'], "");
            let verbs = verbs(of).into_iter().map(|(verb, _)| verb.to_uppercase());
            verbs
                .map(move |verb| (path.clone(), verb))
                .collect::<Vec<_>>()
        })
        .collect();
    operations.sort();
    operations
});

/// Refuses what is over a limit, and has room for everything else.
struct Room;

impl Bounds for Room {
    fn largest(&self) -> usize {
        LARGEST
    }

    fn patience(&self, _: usize) -> Duration {
        Duration::from_secs(1)
    }

    fn reserve(&self, _: usize) -> BoxFuture<'static, Box<dyn Send + Sync>> {
        async { Box::new(()) as Box<dyn Send + Sync> }.boxed()
    }

    fn too_large(&self, bytes: usize) -> Status {
        Status::out_of_range(format!("{bytes} bytes"))
    }

    fn too_slow(&self, _: usize) -> Status {
        panic!("a body that is there is waited for")
    }

    fn budget_exhausted(&self) -> Status {
        panic!("there is room")
    }
}

/// The service within: reads all messages.
async fn serve(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let call = parts.extensions.get::<Arc<Call>>().expect("a call");
    let mut messages = tipserve_http::messages(Arc::clone(call), body, Arc::new(Room));
    let status = loop {
        match messages.frame().await {
            None => break Status::ok(""),
            Some(Err(status)) => break status,
            Some(Ok(frame)) => {
                let framed = frame.into_data().expect("data");
                let (head, message) = framed.split_first_chunk::<5>().expect("a frame");
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
                assert!(head[0] == 0 && length as usize == message.len());
                assert!(message.len() <= LARGEST);
                DynamicMessage::decode(call.rpc.input.clone(), message).expect("decodes");
            }
        }
    };
    assert!(
        !matches!(status.code(), Code::Unknown | Code::Internal),
        "{status:?}"
    );
    Ok(status.into_http())
}

fn request(bytes: &[u8]) -> Option<(Request<Body>, usize)> {
    let ([operation, kind, piece, query, header], rest) = bytes.split_first_chunk()?;
    let (path, verb) = &OPERATIONS[usize::from(*operation) % OPERATIONS.len()];
    let (query, body) = rest.split_at_checked((*query).into())?;
    let mut uri = path.clone();
    if !query.is_empty() {
        uri.push('?');
        uri.push_str(str::from_utf8(query).ok()?);
    }
    let mut request = Request::builder().method(verb.as_str()).uri(uri);
    let of_body = TYPES[usize::from(*kind) % TYPES.len()];
    if !of_body.is_empty() {
        request = request.header("content-type", of_body);
    }
    if kind & 0x80 != 0 {
        request = request.header("inference-header-content-length", u16::from(*header));
    }
    let length = body.len();
    let piece = match piece {
        0 => body.len().max(1),
        piece => (*piece).into(),
    };
    let pieces: Vec<_> = body
        .chunks(piece)
        .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(piece))))
        .collect();
    let body = Body::new(StreamBody::new(stream::iter(pieces)));
    Some((request.body(body).ok()?, length))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((request, length)) = request(bytes) else {
        return;
    };
    let service = LAYER.layer(tower::service_fn(serve));
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let answer = RUNTIME.block_on(async {
        let answer = service.oneshot(request).await.expect("an answer");
        answer
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes()
    });
    let taken = MEMORY.peak_usage().saturating_sub(before);
    assert!(
        taken <= FACTOR * length + BESIDES,
        "{taken} bytes for {length}"
    );
    assert!(
        answer.len() <= LARGEST_ERROR,
        "{} bytes of an error",
        answer.len()
    );
});
