//! The door that every call passes: who calls, whether the role allows the
//! method, whether there is room. What is behind it finds the [`Caller`] in the
//! request's extensions.

use std::{
    pin::Pin,
    sync::{Arc, atomic::AtomicUsize},
    task::{Context as Task, Poll},
};

use bytes::Bytes;
use chrono::Utc;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{
    Code, Status,
    body::Body,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};
use tower::{Layer, Service};

use super::{observe, problem::Problem};
use crate::auth::{Caller, Guard, GuardError, audit, rates::StreamPlace, tokens::Token};
use tipserve_api::methods::{Access, Role, Rule, rule_of};

/// Puts the door before services.
#[derive(Clone)]
pub struct Door {
    guard: Arc<Guard>,
    calls: Arc<AtomicUsize>,
    /// Calls of those methods that need no token.
    open_calls: Arc<AtomicUsize>,
    max_streams: usize,
    max_token_streams: usize,
}

/// Most calls at once of the methods that need no token.
pub const MAX_OPEN_CALLS: usize = 1024;
/// Places in the server that only tokens of the role admin may take: an eighth
/// of them, and at most so many.
const MOST_ADMIN_PLACES: usize = 16;

impl Door {
    /// A door that lets so many calls in at once; of one token `max_token_streams`,
    /// where its entry says nothing else.
    pub fn new(guard: Arc<Guard>, max_streams: usize, max_token_streams: usize) -> Door {
        Door {
            guard,
            calls: Arc::default(),
            open_calls: Arc::default(),
            max_streams,
            max_token_streams,
        }
    }

    /// Who calls, and the places that the call takes until its answer has been
    /// sent.
    fn enter(
        &self,
        path: &str,
        headers: &HeaderMap,
        caller: &mut Caller,
    ) -> Result<Vec<StreamPlace>, GuardError> {
        let rule = rule_of(path);
        if rule.is_some_and(|rule| rule.access == Access::Open) {
            let place = StreamPlace::take(&self.open_calls, MAX_OPEN_CALLS);
            return Ok(vec![place.ok_or(GuardError::ServerStreams {
                maximum: MAX_OPEN_CALLS,
            })?]);
        }
        let mut places = Vec::new();
        let mut most = self.max_streams;
        if let Some(tokens) = self.guard.tokens() {
            let token = tokens.find(bearer(headers)?, Utc::now())?;
            caller.identify(Arc::clone(&token));
            let rule = rule.ok_or_else(|| GuardError::UnknownMethod {
                path: path.to_owned(),
            })?;
            check_role(rule, &token)?;
            places.push(token.rates.begin(&token.name, self.max_token_streams)?);
            // However many calls others have, an admin can come and end them.
            if token.role < Role::Admin {
                most -= MOST_ADMIN_PLACES.min(self.max_streams / 8);
            }
        }
        let place = StreamPlace::take(&self.calls, most);
        places.push(place.ok_or(GuardError::ServerStreams {
            maximum: self.max_streams,
        })?);
        Ok(places)
    }
}

fn check_role(rule: &Rule, token: &Token) -> Result<(), GuardError> {
    match rule.access {
        Access::Needs(needed) if token.role < needed => Err(GuardError::Role {
            name: token.name.clone(),
            role: token.role,
            needed,
            method: rule.method.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The token of the header `authorization` (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Result<&str, GuardError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(GuardError::TokenMissing)?;
    if values.next().is_some() {
        return Err(GuardError::TokenMalformed);
    }
    let text = value.to_str().map_err(|_| GuardError::TokenMalformed)?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(GuardError::TokenMalformed),
    }
}

fn caller_of<B>(request: &Request<B>) -> Caller {
    let tls = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
    Caller::new(
        None,
        tls.and_then(TlsConnectInfo::peer_certs),
        observe::request_id(),
    )
}

fn refuse(path: &str, caller: &Caller, error: GuardError) -> Status {
    let problem = Problem::from(error);
    let method = path.rsplit('/').next().unwrap_or_default();
    // Somebody who is known tried what they may not: that is for the audit.
    let changes = rule_of(path).is_some_and(|rule| rule.changes);
    if changes && problem.code == Code::PermissionDenied {
        audit::line(caller, method, "", problem.code);
    }
    tracing::debug!(
        method,
        who = caller.who(),
        reason = problem.reason,
        "not let in"
    );
    problem.into()
}

impl<S> Layer<S> for Door {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            inner,
            door: self.clone(),
        }
    }
}

/// Services behind the door.
#[derive(Clone)]
pub struct Guarded<S> {
    inner: S,
    door: Door,
}

impl<S, B> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let mut caller = caller_of(&request);
        let path = request.uri().path();
        let places = match self.door.enter(path, request.headers(), &mut caller) {
            Ok(places) => places,
            Err(error) => {
                let answer = refuse(path, &caller, error).into_http();
                return Box::pin(std::future::ready(Ok(answer)));
            }
        };
        // Nothing behind the door has use for it, and nothing may log it.
        request.headers_mut().remove(AUTHORIZATION);
        request.extensions_mut().insert(caller);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            let answer = match too_large(answer.headers()) {
                Some(status) => status.into_http(),
                None => answer,
            };
            Ok(answer.map(|body| {
                Body::new(Held {
                    body,
                    _places: places,
                })
            }))
        })
    }
}

/// What tonic says of a unary message over the limit, said as all else is:
/// with the limit's name.
fn too_large(headers: &HeaderMap) -> Option<Status> {
    // Trailers-only answers carry their status in the headers.
    let status = Status::from_header_map(headers)?;
    let bare = status.code() == Code::OutOfRange && status.details().is_empty();
    bare.then(|| Problem::message_too_large(status.message()).into())
}

pin_project_lite::pin_project! {
    /// A body that holds its call's places until it has been sent.
    struct Held {
        #[pin]
        body: Body,
        _places: Vec<StreamPlace>,
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.project().body.poll_frame(task)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn bearer_tokens_are_read() {
        for (values, token) in [
            (vec!["Bearer abc"], Ok("abc")),
            (vec!["bearer abc"], Ok("abc")),
            (vec!["BEARER  abc "], Ok("abc")),
            (vec![], Err(GuardError::TokenMissing)),
            (vec!["abc"], Err(GuardError::TokenMalformed)),
            (vec!["Basic abc"], Err(GuardError::TokenMalformed)),
            (
                vec!["Bearer a", "Bearer b"],
                Err(GuardError::TokenMalformed),
            ),
        ] {
            assert_eq!(bearer(&headers(&values)), token, "{values:?}");
        }
    }

    #[test]
    fn a_message_over_the_limit_is_told_by_the_limits_name() {
        let status = Status::out_of_range(
            "Error, decoded message length too large: found 5000 bytes, the limit is: 1024 bytes",
        );
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).expect("a header");
        let told = too_large(&headers).expect("rewritten");
        assert!(
            told.message().contains("max_message_bytes = 1024"),
            "{told}"
        );
        assert!(told.message().contains("5000"), "{told}");
        let mut headers = HeaderMap::new();
        told.add_header(&mut headers).expect("a header");
        assert!(too_large(&headers).is_none(), "rewritten twice");
    }
}
