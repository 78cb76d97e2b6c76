//! A small request, read before the call that it is for begins.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};
use tonic::{Status, body::Body};

use super::super::messages::MAX_CONTROL_MESSAGE_BYTES;

/// What is read ahead: one message and its frame. Of whoever sends more the rest
/// is left for the call, which refuses it.
const AHEAD: usize = MAX_CONTROL_MESSAGE_BYTES + 5;

/// The body of a request that has arrived.
#[derive(Default)]
pub(super) struct Arrived {
    data: Bytes,
    /// The trailers, or the error that it ended with.
    end: Option<Result<HeaderMap, Status>>,
    rest: Option<Body>,
}

impl Arrived {
    /// Reads a body to its end.
    pub async fn of(mut body: Body) -> Arrived {
        let (mut arrived, mut data) = (Arrived::default(), BytesMut::new());
        loop {
            if data.len() > AHEAD {
                arrived.rest = Some(body);
                break;
            }
            // Copied: small frames would each keep more than their bytes.
            match poll_fn(|task| Pin::new(&mut body).poll_frame(task)).await {
                None => break,
                Some(Err(status)) => {
                    arrived.end = Some(Err(status));
                    break;
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(more) => data.extend_from_slice(&more),
                    Err(frame) => arrived.end = frame.into_trailers().ok().map(Ok),
                },
            }
        }
        arrived.data = data.freeze();
        arrived
    }
}

impl HttpBody for Arrived {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.data.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.data)))));
        }
        if let Some(end) = self.end.take() {
            return Poll::Ready(Some(end.map(Frame::trailers)));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(task),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty()
            && self.end.is_none()
            && self.rest.as_ref().is_none_or(HttpBody::is_end_stream)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    fn body(frames: Vec<Result<Frame<Bytes>, Status>>) -> Body {
        Body::new(StreamBody::new(tokio_stream::iter(frames)))
    }

    fn piece(size: usize) -> Result<Frame<Bytes>, Status> {
        Ok(Frame::data(vec![7; size].into()))
    }

    #[tokio::test]
    async fn what_arrived_is_the_same_request() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x", http::HeaderValue::from_static("y"));
        let frames = vec![piece(3), piece(4), Ok(Frame::trailers(trailers.clone()))];
        let read = Arrived::of(body(frames))
            .await
            .collect()
            .await
            .expect("read");
        assert_eq!(read.trailers(), Some(&trailers));
        assert_eq!(read.to_bytes(), vec![7; 7]);
        assert!(Arrived::of(body(Vec::new())).await.is_end_stream());
    }

    #[tokio::test]
    async fn its_error_is_the_calls() {
        let frames = vec![piece(3), Err(Status::data_loss("so"))];
        let error = Arrived::of(body(frames)).await.collect().await;
        assert_eq!(error.expect_err("the error").message(), "so");
    }

    #[tokio::test]
    async fn no_more_than_a_message_is_read_ahead() {
        let frames = (0..100).map(|_| piece(16 << 10)).collect();
        let arrived = Arrived::of(body(frames)).await;
        assert!(arrived.data.len() <= AHEAD + (16 << 10));
        let read = arrived.collect().await.expect("the rest, too");
        assert_eq!(read.to_bytes().len(), 100 << 14);
    }
}
