//! Bodies over HTTP: inflated where a client compresses what it sends
//! (`Content-Encoding`), compressed for one that asks for it
//! (`Accept-Encoding`).

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context as Task, Poll},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::{Body as HttpBody, Frame};
use tonic::{Status, body::Body};
use tower::Service;

use super::{
    super::budget::MessageBytes, Encoding, Fault, Inflater, TURN, WORTHWHILE, deflater::Deflater,
};

/// The largest window of a body over HTTP (RFC 9659).
pub(in crate::rpc) const HTTP_WINDOW: usize = 8 << 20;
/// Bytes that a body may inflate to before its window counts.
const SMALL_BODY: usize = 64 << 10;

pin_project_lite::pin_project! {
    /// A body that is inflated as it is read: no more of it is held than a turn
    /// makes.
    pub(in crate::rpc) struct InflatedBody<B> {
        #[pin]
        body: B,
        encoding: Encoding,
        inflater: Option<Inflater>,
        input: Bytes,
        ready: VecDeque<Bytes>,
        ended: bool,
        take_window: TakeWindow,
        window: Option<MessageBytes>,
    }
}

/// Takes the memory of a decoder's window ([`HTTP_WINDOW`] bytes), if there is
/// as much.
pub(in crate::rpc) type TakeWindow = Box<dyn Fn() -> Result<MessageBytes, Status> + Send + Sync>;

impl<B> InflatedBody<B> {
    pub fn new(body: B, encoding: Encoding, take_window: TakeWindow) -> InflatedBody<B> {
        InflatedBody {
            take_window,
            window: None,
            body,
            encoding,
            inflater: None,
            input: Bytes::new(),
            ready: VecDeque::new(),
            ended: false,
        }
    }
}

impl<B> HttpBody for InflatedBody<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        let encoding = *this.encoding;
        loop {
            if let Some(bytes) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if *this.ended {
                return Poll::Ready(None);
            }
            let inflater = match this.inflater {
                Some(inflater) => inflater,
                // How much there may be is for the reader of the body to say.
                None => match Inflater::new(encoding, usize::MAX) {
                    Ok(inflater) => this.inflater.insert(inflater),
                    Err(fault) => return Poll::Ready(Some(Err(refuse(encoding, fault)))),
                },
            };
            if !this.input.is_empty() || inflater.has_more() {
                let before = inflater.total();
                while (!this.input.is_empty() || inflater.has_more())
                    && inflater.total() - before < TURN
                {
                    if let Err(fault) = inflater.step(this.input) {
                        return Poll::Ready(Some(Err(refuse(encoding, fault))));
                    }
                }
                // The others' windows are small, and this one fills as it inflates.
                if encoding == Encoding::Zstd
                    && this.window.is_none()
                    && inflater.total() > SMALL_BODY
                {
                    match (this.take_window)() {
                        Ok(window) => *this.window = Some(window),
                        Err(status) => return Poll::Ready(Some(Err(status))),
                    }
                }
                this.ready.extend(inflater.rest());
                continue;
            }
            match std::task::ready!(this.body.as_mut().poll_frame(task)) {
                None => {
                    *this.ended = true;
                    if let Err(fault) = inflater.finish() {
                        return Poll::Ready(Some(Err(refuse(encoding, fault))));
                    }
                    this.ready.extend(inflater.rest());
                }
                Some(Err(error)) => {
                    return Poll::Ready(Some(Err(Status::from_error(error.into()))));
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        *this.input = data;
                    }
                }
            }
        }
    }
}

fn refuse(encoding: Encoding, fault: Fault) -> Status {
    let why = match fault {
        Fault::Malformed(why) => why,
        Fault::TooLarge => "there is too much of it".to_owned(),
    };
    encoding.malformed("body", &why)
}

/// A service whose whole answers are compressed for clients that ask for it.
/// One that comes in pieces is sent as it is made.
#[derive(Clone)]
pub struct HttpCompression<S>(pub S);

impl<S, B> Service<Request<B>> for HttpCompression<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(task)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let encoding = asked(request.headers());
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            Ok(match is_worthwhile(&answer) {
                true => compressed(answer, encoding),
                false => answer,
            })
        })
    }
}

/// The encoding that a client prefers (RFC 9110, section 12.5.3), of those that
/// it names; zstd, which is the quickest, among equals.
fn asked(headers: &HeaderMap) -> Option<Encoding> {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    let items = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let known = items.filter_map(|item| {
        let mut parts = item.split(|byte| *byte == b';');
        let encoding = Encoding::of(parts.next()?)?;
        let quality = parts.next().map_or(Some(1.0), quality)?;
        (quality > 0.0).then_some((quality, encoding == Encoding::Zstd, encoding))
    });
    let best = known.max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    best.map(|(_, _, encoding)| encoding)
}

fn quality(parameter: &[u8]) -> Option<f32> {
    let text = std::str::from_utf8(parameter.trim_ascii()).ok()?;
    let value = text.strip_prefix("q=").or(text.strip_prefix("Q="))?;
    value.parse().ok()
}

/// Whether an answer is text, whole, large enough and not compressed yet.
fn is_worthwhile(answer: &Response<Body>) -> bool {
    let headers = answer.headers();
    let kind = headers.get(header::CONTENT_TYPE);
    let is_text = kind.is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind.starts_with(b"application/json") || kind.starts_with(b"text/")
    });
    let size = answer.body().size_hint().exact();
    is_text
        && size.is_some_and(|size| size >= WORTHWHILE as u64)
        && !headers.contains_key(header::CONTENT_ENCODING)
        && !headers.contains_key(header::CONTENT_RANGE)
}

fn compressed(mut answer: Response<Body>, encoding: Option<Encoding>) -> Response<Body> {
    let headers = answer.headers_mut();
    let vary = HeaderValue::from_static("accept-encoding");
    if !headers.contains_key(header::VARY) {
        headers.insert(header::VARY, vary);
    }
    let Some(encoding) = encoding else {
        return answer;
    };
    let deflater = match Deflater::new(encoding) {
        Ok(deflater) => deflater,
        Err(error) => {
            tracing::warn!(%error, "an answer cannot be compressed");
            return answer;
        }
    };
    let name = HeaderValue::from_static(encoding.name());
    headers.insert(header::CONTENT_ENCODING, name);
    headers.remove(header::CONTENT_LENGTH);
    // Of the bytes, which are others now.
    headers.remove(header::ETAG);
    answer.map(|body| {
        Body::new(DeflatedBody {
            body,
            deflater: Some(deflater),
            input: Bytes::new(),
        })
    })
}

pin_project_lite::pin_project! {
    /// A body that is compressed as it is sent.
    struct DeflatedBody {
        #[pin]
        body: Body,
        deflater: Option<Deflater>,
        input: Bytes,
    }
}

impl HttpBody for DeflatedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        let broken =
            |error: std::io::Error| Poll::Ready(Some(Err(Status::internal(error.to_string()))));
        loop {
            let Some(deflater) = this.deflater else {
                return Poll::Ready(None);
            };
            if !this.input.is_empty() {
                if let Err(error) = deflater.step(this.input) {
                    return broken(error);
                }
                let made = deflater.take();
                if !made.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(made.into()))));
                }
                task.waker().wake_by_ref();
                return Poll::Pending;
            }
            match std::task::ready!(this.body.as_mut().poll_frame(task)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        *this.input = data;
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    let finished = this.deflater.take().map(Deflater::finish);
                    return match finished {
                        Some(Ok(rest)) => Poll::Ready(Some(Ok(Frame::data(rest.into())))),
                        Some(Err(error)) => broken(error),
                        None => Poll::Ready(None),
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_says_which_encodings_it_takes() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, value.parse().expect("a value"));
            asked(&headers)
        };
        assert_eq!(of("gzip, deflate, br, zstd"), Some(Encoding::Zstd));
        assert_eq!(of("GZIP;q=1, zstd;q=0.5"), Some(Encoding::Gzip));
        assert_eq!(of("x-gzip"), Some(Encoding::Gzip));
        for none in [
            "",
            "br",
            "identity",
            "gzip;q=0",
            "gzip;q=nan",
            "gzip;level=3",
            "*",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
