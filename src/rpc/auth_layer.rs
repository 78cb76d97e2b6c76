//! The auth layer, around all services: who calls, whether the role allows the
//! method, whether one more call is within the limits. Behind it a request's
//! extensions have its [`Caller`] and, if the method is audited, its
//! [`AuditLine`].
//!
//! It ends a call whose caller may no longer make it: one whose token was
//! revoked, lowered or has expired, or whose certificate was revoked. That
//! reaches every method, since it is done around the answer.

use std::{
    net::SocketAddr,
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

use super::{error::ApiError, messages::peer_of, observe};
use crate::auth::{
    AuthError, Authenticator, CallCounts, Caller, OpenCalls, audit::AuditLine, rates::StreamPlace,
};
use tipserve_api::methods::{self, Access, Method, Role};

/// Puts the layer around services.
#[derive(Clone)]
pub struct AuthLayer {
    authenticator: Arc<Authenticator>,
    calls: Arc<AtomicUsize>,
    /// Calls of those methods that need no token.
    open_calls: Arc<OpenCalls>,
    /// Calls of each peer that shows no token.
    peer_calls: Arc<CallCounts<String>>,
    most: MostCalls,
}

/// Most calls at once.
#[derive(Clone, Copy, Debug)]
pub struct MostCalls {
    /// In all.
    pub server: usize,
    /// Of one token, unless its entry says otherwise.
    pub token: usize,
    /// Of one certificate or address, if no tokens are required.
    pub peer: usize,
}

/// Calls that only tokens of the role admin may make once the server is full:
/// an eighth of all, and at most this many.
const MOST_ADMIN_PLACES: usize = 16;

impl AuthLayer {
    /// A layer that lets at most so many calls in at once.
    pub fn new(authenticator: Arc<Authenticator>, most: MostCalls) -> AuthLayer {
        AuthLayer {
            authenticator,
            calls: Arc::default(),
            open_calls: Arc::default(),
            peer_calls: Arc::default(),
            most,
        }
    }

    /// Identifies the caller, and takes the places that the call holds until
    /// its answer has been sent.
    fn admit(
        &self,
        path: &str,
        method: Option<&'static Method>,
        headers: &HeaderMap,
        peer: Option<SocketAddr>,
        caller: &mut Caller,
    ) -> Result<Vec<StreamPlace>, AuthError> {
        if method.is_some_and(|method| method.access == Access::Open) {
            return self.open_calls.begin(peer);
        }
        let mut places = Vec::new();
        let mut most = self.most.server;
        if let Some(tokens) = self.authenticator.tokens() {
            let token = tokens.find(bearer(headers)?, Utc::now())?;
            caller.identify(Arc::clone(&token));
            let method = method.ok_or_else(|| AuthError::UnknownMethod {
                path: path.to_owned(),
            })?;
            token.may_call(method)?;
            places.push(token.rates.begin(&token.name, self.most.token)?);
            // However many calls others have in progress, an admin can still
            // connect and end them.
            if token.role < Role::Admin {
                most -= MOST_ADMIN_PLACES.min(most / 8);
            }
        } else if let Some(who) = caller.quota() {
            let place = self.peer_calls.take(who.clone(), self.most.peer);
            places.push(place.ok_or(AuthError::PeerStreams {
                who,
                maximum: self.most.peer,
            })?);
        }
        // A connection may outlive the authorities and lists that its
        // certificate was checked against.
        caller.standing(None)?;
        let place = StreamPlace::take(&self.calls, most);
        places.push(place.ok_or(AuthError::ServerStreams {
            maximum: self.most.server,
        })?);
        Ok(places)
    }
}

/// The token of the header `authorization` (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Result<&str, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthError::TokenMissing)?;
    if values.next().is_some() {
        return Err(AuthError::TokenMalformed);
    }
    let text = value.to_str().map_err(|_| AuthError::TokenMalformed)?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(AuthError::TokenMalformed),
    }
}

fn refuse(method: Option<&'static Method>, caller: &Caller, error: AuthError) -> Status {
    let error = ApiError::from(error);
    let name = method.map_or(methods::OTHER, |method| method.name);
    // A stranger could fill the log; a known caller who tries what it may not
    // belongs in the audit.
    if caller.is_known() && method.is_some_and(|method| method.audit.is_some()) {
        AuditLine::begin(caller, name).result(error.code());
    }
    let (who, reason) = (caller.who(), error.reason());
    tracing::debug!(method = name, who, reason, "refused a call");
    error.into()
}

impl<S> Layer<S> for AuthLayer {
    type Service = Authenticated<S>;

    fn layer(&self, inner: S) -> Authenticated<S> {
        Authenticated {
            inner,
            layer: self.clone(),
        }
    }
}

/// The services, behind the auth layer.
#[derive(Clone)]
pub struct Authenticated<S> {
    inner: S,
    layer: AuthLayer,
}

impl<S, B> Service<Request<B>> for Authenticated<S>
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
        let layer = &self.layer;
        let path = request.uri().path();
        let method = methods::find(path);
        let tls = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
        let peer = peer_of(&request);
        let mut caller = Caller::new(
            &layer.authenticator,
            method,
            tls.and_then(TlsConnectInfo::peer_certs),
            peer,
            observe::request_id(),
        );
        let places = match layer.admit(path, method, request.headers(), peer, &mut caller) {
            Ok(places) => places,
            Err(error) => {
                let answer = refuse(method, &caller, error).into_http();
                return Box::pin(std::future::ready(Ok(answer)));
            }
        };
        let audit = method
            .and_then(|method| method.audit)
            .map(|action| AuditLine::begin(&caller, action))
            .unwrap_or_default();
        // No service needs it, and nothing may log it.
        request.headers_mut().remove(AUTHORIZATION);
        request.extensions_mut().insert(caller.clone());
        request.extensions_mut().insert(audit.clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut lapse = caller
                .can_lapse()
                .then(|| -> Lapse { Box::pin(async move { caller.lapse(None).await }) });
            let answer = tokio::select! {
                answer = answer => answer?,
                error = lapsed(&mut lapse) => ApiError::from(error).into_status().into_http(),
            };
            let answer = match too_large(answer.headers()) {
                Some(status) => status.into_http(),
                None => answer,
            };
            // An answer without a stream has its status in the headers.
            let audit = match Status::from_header_map(answer.headers()) {
                Some(status) => {
                    audit.answered(status.code());
                    AuditLine::default()
                }
                None => audit,
            };
            Ok(answer.map(|body| {
                Body::new(CallBody {
                    body,
                    lapse,
                    audit,
                    _places: places,
                })
            }))
        })
    }
}

/// Completes when the caller may no longer make the call.
type Lapse = BoxFuture<'static, AuthError>;

async fn lapsed(lapse: &mut Option<Lapse>) -> AuthError {
    match lapse {
        Some(lapse) => lapse.await,
        None => std::future::pending().await,
    }
}

/// Replaces tonic's message about a unary message over the limit by one like
/// all others, with the limit's name.
fn too_large(headers: &HeaderMap) -> Option<Status> {
    // Trailers-only answers carry their status in the headers.
    let status = Status::from_header_map(headers)?;
    let bare = status.code() == Code::OutOfRange && status.details().is_empty();
    bare.then(|| ApiError::message_too_large(status.message()).into())
}

pin_project_lite::pin_project! {
    /// The body of a call's answer. It holds the call's places until it has
    /// been sent, ends early if the caller lapses, and tells the audit how the
    /// call ended.
    struct CallBody {
        #[pin]
        body: Body,
        lapse: Option<Lapse>,
        audit: AuditLine,
        _places: Vec<StreamPlace>,
    }
}

impl HttpBody for CallBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        // Checked first, so that a stream that always has something to send
        // lapses too.
        if let Some(lapse) = this.lapse
            && let Poll::Ready(error) = lapse.as_mut().poll(task)
        {
            *this.lapse = None;
            // The call's tasks end with the body.
            this.body.set(Body::empty());
            let status = ApiError::from(error).into_status();
            this.audit.answered(status.code());
            let mut trailers = HeaderMap::new();
            let framed = status.add_header(&mut trailers);
            return Poll::Ready(Some(framed.map(|()| Frame::trailers(trailers))));
        }
        let frame = std::task::ready!(this.body.poll_frame(task));
        let ended = match &frame {
            Some(Ok(frame)) => frame
                .trailers_ref()
                .map(|trailers| Status::from_header_map(trailers).map_or(Code::Ok, |s| s.code())),
            Some(Err(status)) => Some(status.code()),
            // A body without trailers: its status was in the headers.
            None => Some(Code::Ok),
        };
        if let Some(code) = ended {
            *this.lapse = None;
            this.audit.answered(code);
            // Written before the answer's end is sent, unless a task of the
            // call may still change it.
            *this.audit = AuditLine::default();
        }
        Poll::Ready(frame)
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
            (vec![], Err(AuthError::TokenMissing)),
            (vec!["abc"], Err(AuthError::TokenMalformed)),
            (vec!["Basic abc"], Err(AuthError::TokenMalformed)),
            (vec!["Bearer a", "Bearer b"], Err(AuthError::TokenMalformed)),
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
