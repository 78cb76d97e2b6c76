//! Sends a call's answer over HTTP/2, no faster than it is read.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    task::{Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream, server::SendResponse};
use http::{
    HeaderMap, HeaderValue, Response,
    header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderName, TE, TRANSFER_ENCODING, UPGRADE},
};
use http_body::{Body as HttpBody, Frame};

/// Headers that speak of a connection, which HTTP/2 does not allow (RFC 9113,
/// section 8.2.2).
const OF_CONNECTIONS: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Sends what `answer` comes to, unless the peer cancels the call before.
///
/// # Errors
/// That the call was cancelled, or the connection's.
pub(super) async fn reply<B>(
    answer: impl Future<Output = Result<Response<B>, Infallible>>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Looked at first: a request that was cancelled ends early, and would be
    // answered as one that is incomplete.
    let answer = tokio::select! {
        biased;
        reason = poll_fn(|task| respond.poll_reset(task)) => return Err(reason?.into()),
        answer = answer => answer,
    };
    let (mut head, body) = match answer {
        Ok(answer) => answer.into_parts(),
        Err(never) => match never {},
    };
    for name in &OF_CONNECTIONS {
        head.headers.remove(name);
    }
    date(&mut head.headers);
    let mut head = Response::from_parts(head, ());
    if body.is_end_stream() {
        return send_head(&mut respond, head, true).map(drop);
    }
    if let Some(length) = body.size_hint().exact() {
        let headers = head.headers_mut();
        headers
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from(length));
    }
    let stream = send_head(&mut respond, head, false)?;
    // What is left of it is the stream's.
    drop(respond);
    send(std::pin::pin!(body), stream).await
}

fn send_head(
    respond: &mut SendResponse<Bytes>,
    head: Response<()>,
    ends: bool,
) -> Result<SendStream<Bytes>, h2::Error> {
    respond.send_response(head, ends).inspect_err(|_| {
        respond.send_reset(Reason::INTERNAL_ERROR);
    })
}

/// When the answer was made (RFC 9110, section 6.6.1).
fn date(headers: &mut HeaderMap) {
    let now = chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT");
    if let Ok(now) = HeaderValue::from_str(&now.to_string()) {
        headers.entry(DATE).or_insert(now);
    }
}

async fn send<B>(mut body: Pin<&mut B>, mut stream: SendStream<Bytes>) -> Result<(), h2::Error>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    loop {
        let frame = tokio::select! {
            biased;
            reason = poll_fn(|task| stream.poll_reset(task)) => return Err(reason?.into()),
            frame = next(&mut body) => frame,
        };
        let frame = match frame {
            None => return stream.send_data(Bytes::new(), true),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                tracing::debug!(%error, "an answer broke off");
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
        };
        let ends = body.is_end_stream();
        match frame.into_data().map_err(Frame::into_trailers) {
            Ok(data) => {
                // One byte's, so that an answer that waits claims nothing of the
                // connection's window that others could use.
                if !data.is_empty() {
                    stream.reserve_capacity(1);
                    capacity(&mut stream).await?;
                }
                stream.send_data(data, ends)?;
                if ends {
                    return Ok(());
                }
            }
            Err(Ok(trailers)) => {
                stream.reserve_capacity(0);
                return stream.send_trailers(trailers);
            }
            Err(Err(_)) => {}
        }
    }
}

/// The next frame of an answer; none after the last.
async fn next<B>(
    body: &mut Pin<&mut B>,
) -> Option<Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    poll_fn(|task| {
        let frame = body.as_mut().poll_frame(task);
        frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    })
    .await
}

/// Waits until the peer takes more.
async fn capacity(stream: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    poll_fn(|task| {
        loop {
            if let Poll::Ready(reason) = stream.poll_reset(task) {
                return Poll::Ready(Err(reason?.into()));
            }
            if stream.capacity() > 0 {
                return Poll::Ready(Ok(()));
            }
            match ready!(stream.poll_capacity(task)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Err(Reason::CANCEL.into())),
            }
        }
    })
    .await
}
