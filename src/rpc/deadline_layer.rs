//! Ends a call at its deadline, with DEADLINE_EXCEEDED.
//!
//! tonic has a timer for it around all layers. What that ends is answered as
//! CANCELLED, and nothing within can tell why it was dropped: metrics, traces and
//! the audit would have CANCELLED too. So this layer, which is within those, is
//! never later than tonic's.

use std::{
    task::{Context as Task, Poll},
    time::Instant,
};

use futures::future::{BoxFuture, Either, poll_fn};
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

use super::{
    error::ApiError,
    request::{self, RequestError},
};

/// Ends calls of the services within at their deadlines, until their answer
/// begins: a stream that has begun knows its own.
#[derive(Clone)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = Timely<S>;

    fn layer(&self, inner: S) -> Timely<S> {
        Timely { inner }
    }
}

/// Services whose calls end at their deadlines.
#[derive(Clone)]
pub struct Timely<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Timely<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // Before the services are called: tonic's timer begins after that.
        let deadline = request::deadline_in(request.headers(), Instant::now());
        let answer = self.inner.call(request);
        let Some(deadline) = deadline else {
            return Either::Left(answer);
        };
        Either::Right(Box::pin(async move {
            tokio::select! {
                // An answer that is there is given, however late.
                biased;
                answer = answer => answer,
                () = passed(deadline) => {
                    Ok(ApiError::from(RequestError::DeadlineExceeded).into_status().into_http())
                }
            }
        }))
    }
}

/// Completes once the deadline has passed, by the clock and not only by the
/// timer: tonic's may wake the call first.
async fn passed(deadline: Instant) {
    let timer = tokio::time::sleep_until(deadline.into());
    tokio::pin!(timer);
    poll_fn(|task| match Instant::now() < deadline {
        true => timer.as_mut().poll(task),
        false => Poll::Ready(()),
    })
    .await;
}
