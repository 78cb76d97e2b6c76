//! The memory that making large answers takes.
//!
//! A page of a list is read, put together, encoded and copied: several times its
//! size, for as many calls at once as a peer likes to make. Such a call first
//! takes its space from a budget, of which its connection, its caller and the
//! server have each a share, and keeps it until its answer is encoded and
//! counted as unread ([`UnreadLayer`](super::UnreadLayer)). Calls that find too
//! little wait for their turn. No space is taken before the request is there:
//! whoever sends nothing keeps nobody waiting.

mod arrived;

use std::{
    net::SocketAddr,
    sync::Arc,
    task::{Context as Task, Poll},
};

use futures::future::BoxFuture;
use http::{Extensions, Request, Response};
use tonic::{Code, body::Body};
use tower::{Layer, Service};

use arrived::Arrived;

use super::{
    budget::{MessageBudget, MessageBytes},
    error::ApiError,
    messages::{counted_as, peer_of},
};
use crate::auth::Caller;
use tipserve_api::methods::{self, Method};

/// The space of one large answer: a page of at most 2 MiB as a message, which
/// takes up to three times its bytes, as bytes in a buffer that has grown to at
/// most twice as many, as JSON, and as the copy that waits to be read.
pub const LARGE_ANSWER: usize = 16 << 20;

/// Gives each large answer its space.
#[derive(Clone)]
pub struct AnswerSpaceLayer {
    budget: Arc<MessageBudget>,
}

impl AnswerSpaceLayer {
    /// Answers under way take at most this many bytes together.
    pub fn new(bytes: usize) -> AnswerSpaceLayer {
        AnswerSpaceLayer {
            budget: Arc::new(MessageBudget::new(bytes, LARGE_ANSWER)),
        }
    }
}

/// The budget of one caller's answers; an extension of its requests.
#[derive(Clone)]
pub struct AnswerSpace {
    budget: Arc<MessageBudget>,
    caller: String,
    peer: Option<SocketAddr>,
}

impl AnswerSpace {
    /// The budget of a request's answer.
    ///
    /// # Errors
    /// If the request did not come through the layer.
    pub fn of(extensions: &Extensions) -> Result<AnswerSpace, ApiError> {
        let space = extensions.get::<AnswerSpace>().cloned();
        space.ok_or_else(|| ApiError::new(Code::Internal, "INTERNAL", "the call has no budget"))
    }

    /// Takes this many bytes, once there are as many.
    pub async fn take(self, bytes: usize) -> Making {
        Making(self.budget.take(self.caller, self.peer, bytes).await)
    }
}

/// Space that an answer takes while it is made; an extension of its response.
#[derive(Clone)]
pub struct Making(#[allow(dead_code, reason = "held for its drop")] MessageBytes);

impl<S> Layer<S> for AnswerSpaceLayer {
    type Service = SpacedAnswers<S>;

    fn layer(&self, inner: S) -> SpacedAnswers<S> {
        SpacedAnswers {
            inner,
            layer: self.clone(),
        }
    }
}

/// Services whose large answers take space.
#[derive(Clone)]
pub struct SpacedAnswers<S> {
    inner: S,
    layer: AnswerSpaceLayer,
}

impl<S> Service<Request<Body>> for SpacedAnswers<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let peer = peer_of(&request);
        let space = AnswerSpace {
            budget: Arc::clone(&self.layer.budget),
            caller: counted_as(&Caller::of(request.extensions())),
            peer,
        };
        let method = methods::find(request.uri().path());
        request.extensions_mut().insert(space.clone());
        if !method.is_some_and(Method::has_large_answer) {
            return Box::pin(self.inner.call(request));
        }
        // The one that is ready; the clone is asked whether it is before its call.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = Arrived::of(body).await;
            let making = space.take(LARGE_ANSWER).await;
            let request = Request::from_parts(head, Body::new(body));
            let mut answer = inner.call(request).await?;
            answer.extensions_mut().insert(making);
            Ok(answer)
        })
    }
}
