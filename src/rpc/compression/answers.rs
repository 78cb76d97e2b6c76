//! gRPC answers, compressed for clients that compress: in the encoding that
//! they sent, if they can undo it too.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context as Task, Poll},
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::{
    super::error::ApiError, ACCEPTED, Encoding, GRPC_ACCEPT_ENCODING, GRPC_ENCODING, WORTHWHILE,
    deflater::Deflater,
};

/// Answers in kind, and refuses encodings that nobody here can undo.
#[derive(Clone, Copy, Debug, Default)]
pub struct CompressionLayer;

impl<S> Layer<S> for CompressionLayer {
    type Service = Compressed<S>;

    fn layer(&self, inner: S) -> Compressed<S> {
        Compressed(inner)
    }
}

/// Services whose answers are compressed.
#[derive(Clone)]
pub struct Compressed<S>(S);

impl<S, B> Service<Request<B>> for Compressed<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(task)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let encoding = match asked(request.headers()) {
            Ok(encoding) => encoding,
            Err(refusal) => return Box::pin(std::future::ready(Ok(*refusal))),
        };
        let answer = self.0.call(request);
        let Some(encoding) = encoding else {
            return Box::pin(answer);
        };
        Box::pin(async move {
            let mut answer = answer.await?;
            // Without a body there is nothing to compress.
            if answer.headers().contains_key("grpc-status") {
                return Ok(answer);
            }
            let name = HeaderValue::from_static(encoding.name());
            answer.headers_mut().insert(GRPC_ENCODING, name);
            Ok(answer.map(|body| Body::new(Answer::new(body, encoding))))
        })
    }
}

/// The encoding of the answer: the request's, if its client takes that.
fn asked(headers: &HeaderMap) -> Result<Option<Encoding>, Box<Response<Body>>> {
    let Some(name) = headers.get(GRPC_ENCODING) else {
        return Ok(None);
    };
    if name == "identity" {
        return Ok(None);
    }
    let encoding = Encoding::of(name.as_bytes()).ok_or_else(|| refuse(name))?;
    let mut taken = headers
        .get_all(GRPC_ACCEPT_ENCODING)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let taken = taken.any(|name| Encoding::of(name) == Some(encoding));
    Ok(taken.then_some(encoding))
}

fn refuse(name: &HeaderValue) -> Box<Response<Body>> {
    let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
    let status: Status = ApiError::new(
        Code::Unimplemented,
        "ENCODING_UNKNOWN",
        format!("grpc-encoding is {name:?}; this server knows {ACCEPTED}"),
    )
    .into();
    let mut answer = status.into_http();
    let accepted = HeaderValue::from_static(ACCEPTED);
    answer.headers_mut().insert(GRPC_ACCEPT_ENCODING, accepted);
    Box::new(answer)
}

pin_project_lite::pin_project! {
    /// The body of an answer whose messages are compressed. tonic hands messages
    /// on whole, one or more at once.
    struct Answer {
        #[pin]
        body: Body,
        encoding: Encoding,
        // Messages as tonic made them.
        plain: Bytes,
        message: Option<Message>,
        ready: VecDeque<Bytes>,
    }
}

/// A message that is being compressed.
struct Message {
    deflater: Deflater,
    head: Bytes,
    plain: Bytes,
    left: Bytes,
}

impl Message {
    fn new(encoding: Encoding, head: Bytes, plain: Bytes) -> io::Result<Message> {
        Ok(Message {
            deflater: Deflater::new(encoding)?,
            head,
            left: plain.clone(),
            plain,
        })
    }

    /// Its frame: as it was, if it has not become smaller.
    fn frame(self) -> io::Result<[Bytes; 2]> {
        let deflated = self.deflater.finish()?;
        let length = u32::try_from(deflated.len()).unwrap_or(u32::MAX);
        if deflated.len() >= self.plain.len() {
            return Ok([self.head, self.plain]);
        }
        let mut head = BytesMut::with_capacity(5);
        head.put_u8(1);
        head.put_u32(length);
        Ok([head.freeze(), deflated.into()])
    }
}

impl Answer {
    fn new(body: Body, encoding: Encoding) -> Answer {
        Answer {
            body,
            encoding,
            plain: Bytes::new(),
            message: None,
            ready: VecDeque::new(),
        }
    }
}

/// The next of the messages, with its head.
fn next_message(plain: &mut Bytes) -> Option<(Bytes, Bytes)> {
    let length = plain.get(1..5)?.get_u32() as usize;
    let whole = length
        .checked_add(5)
        .filter(|whole| *whole <= plain.len())?;
    let mut message = plain.split_to(whole);
    let head = message.split_to(5);
    Some((head, message))
}

fn broken(error: &io::Error) -> Status {
    tracing::error!(%error, "an answer cannot be compressed");
    ApiError::new(
        Code::Internal,
        "INTERNAL",
        "the answer cannot be compressed",
    )
    .into()
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        loop {
            if let Some(bytes) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if let Some(mut message) = this.message.take() {
                if message.left.is_empty() {
                    match message.frame() {
                        Ok(frame) => this.ready.extend(frame),
                        Err(error) => return Poll::Ready(Some(Err(broken(&error)))),
                    }
                    continue;
                }
                if let Err(error) = message.deflater.step(&mut message.left) {
                    return Poll::Ready(Some(Err(broken(&error))));
                }
                let done = message.left.is_empty();
                *this.message = Some(message);
                if done {
                    continue;
                }
                task.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some((head, message)) = next_message(this.plain) {
                if message.len() < WORTHWHILE || head.first() != Some(&0) {
                    this.ready.extend([head, message]);
                    continue;
                }
                match Message::new(*this.encoding, head, message) {
                    Ok(message) => *this.message = Some(message),
                    Err(error) => return Poll::Ready(Some(Err(broken(&error)))),
                }
                continue;
            }
            match std::task::ready!(this.body.as_mut().poll_frame(task)) {
                None => return Poll::Ready(None),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if this.plain.is_empty() => *this.plain = data,
                    // The rest of a message that came in parts.
                    Ok(data) => *this.plain = [&this.plain[..], &data[..]].concat().into(),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty()
            && self.message.is_none()
            && self.plain.is_empty()
            && self.body.is_end_stream()
    }
}
