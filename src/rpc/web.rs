//! Browsers, and other clients of plain HTTP: gRPC-web, HTTP with JSON, and who
//! may use them from a page.
//!
//! A browser names the page that it calls for in `Origin`. A page is served if
//! its origin is allowed or is the server itself, and refused otherwise.
//! Programs send no `Origin` and are not affected.
//!
//! A name that was made to point here (DNS rebinding) would make any page one of
//! the server's own. Where nothing else guards the API, requests of plain HTTP
//! are therefore taken only under names that nobody can register.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, Either, ready};
use http_body::Body as HttpBody;
use tipserve_http::{HttpLayer, HttpService};
use tonic::{
    Code,
    body::Body,
    codegen::{
        Service,
        http::{
            HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header,
            uri::Authority,
        },
    },
};
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer, ServiceExt as _};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::compression::HttpCompression;
use crate::auth::Origin;

/// How long a browser may remember that it may call.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// What scripts may read besides the body; the first are those of a gRPC-web
/// response without one.
const EXPOSED: [&str; 6] = [
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "grpc-encoding",
    "x-request-id",
    "retry-after",
];
/// The endings of names in private networks.
const PRIVATE: [&str; 4] = [".localhost", ".local", ".internal", ".svc"];

/// Serves browsers, and HTTP with JSON, beside gRPC.
#[derive(Clone)]
pub struct BrowserLayer {
    http: HttpLayer,
    policy: Arc<Policy>,
}

/// The origins that pages may call from.
struct Policy {
    cors: CorsLayer,
    origins: Vec<Origin>,
    /// Whether callers must have a token, a certificate or the right name for
    /// the server's own certificate.
    guarded: bool,
}

impl BrowserLayer {
    /// For pages of these origins, and the server's own. `guarded` says whether
    /// something else than its name guards the API: tokens or TLS.
    pub fn new(origins: &[Origin], guarded: bool, http: HttpLayer) -> BrowserLayer {
        let allowed = match all(origins) {
            true => AllowOrigin::any(),
            false => AllowOrigin::list(origins.iter().map(|origin| origin.value().clone())),
        };
        let cors = CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
            // Clients send metadata of their own.
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(EXPOSED.map(HeaderName::from_static))
            .max_age(MAX_AGE);
        BrowserLayer {
            http,
            policy: Arc::new(Policy {
                cors,
                origins: origins.to_vec(),
                guarded,
            }),
        }
    }
}

fn all(origins: &[Origin]) -> bool {
    origins.iter().any(|origin| *origin.value() == "*")
}

impl<S: Clone> Layer<S> for BrowserLayer {
    type Service = Browsers<S>;

    fn layer(&self, inner: S) -> Browsers<S> {
        Browsers {
            grpc: GrpcWebLayer::new().layer(inner.clone()),
            http: HttpCompression(self.http.layer(inner)),
            policy: Arc::clone(&self.policy),
        }
    }
}

/// A service that browsers and plain HTTP can call, too. Cheap to clone: it is,
/// for every request.
#[derive(Clone)]
pub struct Browsers<S> {
    grpc: GrpcWebService<S>,
    http: HttpCompression<HttpService<S>>,
    policy: Arc<Policy>,
}

type Answer = BoxFuture<'static, Result<Response<Body>, Infallible>>;

impl<S, B, R> Service<Request<B>> for Browsers<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    GrpcWebService<S>:
        Service<Request<B>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    <GrpcWebService<S> as Service<Request<B>>>::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<<GrpcWebService<S> as Service<Request<B>>>::Future, Answer>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.grpc.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let is_grpc = is_grpc(&request);
        if is_grpc && request.version() < Version::HTTP_2 && !is_grpc_web(&request) {
            return Either::Right(Box::pin(ready(Ok(needs_http2()))));
        }
        let browser = match self.policy.judge(&request, is_grpc) {
            Ok(browser) => browser,
            Err(refusal) => return Either::Right(Box::pin(ready(Ok(*refusal)))),
        };
        let cors = &self.policy.cors;
        match (browser, is_grpc) {
            (Page::Foreign, true) => {
                let service = cors.layer(self.grpc.clone());
                Either::Right(Box::pin(service.oneshot(request)))
            }
            (Page::Foreign, false) => {
                let service = cors.layer(self.http.clone());
                Either::Right(Box::pin(service.oneshot(request)))
            }
            (Page::Own, true) => Either::Left(self.grpc.call(request)),
            (Page::Own, false) => Either::Right(self.http.call(request)),
        }
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Whether gRPC is wrapped for what has no trailers: `application/grpc-web…`.
fn is_grpc_web<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc-web"))
}

/// What is said of gRPC over HTTP/1.1, where its status has no place.
fn needs_http2() -> Response<Body> {
    tipserve_http::refusal(
        Code::InvalidArgument,
        "CONTENT_TYPE_UNKNOWN",
        "gRPC needs HTTP/2; over HTTP/1.1 this server takes JSON (see /docs) and gRPC-web",
    )
}

/// Whose page a request is from.
enum Page {
    /// An allowed one's of another origin.
    Foreign,
    /// The server's own, or it is from no page.
    Own,
}

impl Policy {
    fn judge<B>(&self, request: &Request<B>, is_grpc: bool) -> Result<Page, Box<Response<Body>>> {
        let host = host_of(request);
        let Some(origin) = request.headers().get(header::ORIGIN) else {
            // No browser can be made to send gRPC without naming its page.
            return match host {
                Some(host) if !is_grpc && !self.takes_name(&host) => Err(refuse_host(&host)),
                _ => Ok(Page::Own),
            };
        };
        let known = self.origins.iter().any(|known| *known.value() == origin);
        if known || all(&self.origins) {
            return Ok(Page::Foreign);
        }
        let own = host.filter(|host| is_of(origin, host));
        if own.is_some_and(|host| self.takes_name(&host)) {
            return Ok(Page::Own);
        }
        tracing::debug!(?origin, "refused: not in web_origins");
        Err(Box::new(tipserve_http::refusal(
            Code::PermissionDenied,
            "ORIGIN_NOT_ALLOWED",
            "This server's setting web_origins does not allow this page's origin.",
        )))
    }

    /// Whether the server may be called by this name.
    fn takes_name(&self, host: &Authority) -> bool {
        let listed = || {
            let mut origins = self.origins.iter();
            origins.any(|origin| *origin.value() == "*" || is_of(origin.value(), host))
        };
        self.guarded || is_private(host.host()) || listed()
    }
}

/// What a request calls the server.
fn host_of<B>(request: &Request<B>) -> Option<Authority> {
    let header = request.headers().get(header::HOST);
    let header = header.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    header.or_else(|| request.uri().authority().cloned())
}

/// Whether an origin is a host's, with its port.
fn is_of(origin: &HeaderValue, host: &Authority) -> bool {
    let Ok(origin) = Uri::try_from(origin.as_bytes()) else {
        return false;
    };
    // `null`, which a browser sends for what has no origin, has no scheme.
    let default_port = match origin.scheme_str() {
        Some("https") => 443,
        Some("http") => 80,
        _ => return false,
    };
    let port = |port: Option<u16>| port.unwrap_or(default_port);
    origin.authority().is_some_and(|own| {
        own.host().eq_ignore_ascii_case(host.host())
            && port(own.port_u16()) == port(host.port_u16())
    })
}

/// Whether nobody can register this name and make it point here: an address, a
/// name of one label, or one of a private network.
fn is_private(host: &str) -> bool {
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_ascii_lowercase();
    host.parse::<IpAddr>().is_ok()
        || !host.contains('.')
        || PRIVATE.iter().any(|suffix| host.ends_with(suffix))
}

fn refuse_host(host: &Authority) -> Box<Response<Body>> {
    let message = format!(
        "Neither tokens nor TLS guard this server, and {:?} is a name that anybody could make \
         point here: call it by its address, or name http://{host} in web_origins.",
        host.host()
    );
    Box::new(tipserve_http::refusal(
        Code::PermissionDenied,
        "HOST_NOT_ALLOWED",
        &message,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::ORIGIN_RULE;

    #[test]
    fn origins_are_as_browsers_send_them() {
        for good in [
            "*",
            "https://example.org",
            "http://localhost:8080",
            "http://[::1]:80",
        ] {
            assert!(good.parse::<Origin>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "example.org",
            "https://example.org/",
            "https://*.example.org",
            "://x",
            "HTTP://a",
        ] {
            assert_eq!(bad.parse::<Origin>(), Err(ORIGIN_RULE), "{bad}");
        }
    }

    #[test]
    fn names_that_anybody_can_register_are_told_from_others() {
        for private in [
            "127.0.0.1",
            "[::1]",
            "10.0.0.7",
            "localhost",
            "gpu-box",
            "a.local",
            "t.ns.svc",
        ] {
            assert!(is_private(private), "{private}");
        }
        for public in [
            "example.org",
            "127.0.0.1.example.org",
            "local.example",
            "svc.com",
        ] {
            assert!(!is_private(public), "{public}");
        }
    }

    #[test]
    fn an_origin_is_the_hosts_where_name_and_port_are() {
        let same = |origin: &str, host: &str| {
            let host = host.parse().expect("an authority");
            is_of(&HeaderValue::from_str(origin).expect("a value"), &host)
        };
        assert!(same("http://127.0.0.1:50051", "127.0.0.1:50051"));
        assert!(same("https://Example.org", "example.org:443"));
        assert!(same("http://[::1]:8080", "[::1]:8080"));
        for (origin, host) in [
            ("http://127.0.0.1:8080", "127.0.0.1:50051"),
            ("https://example.org", "example.org:80"),
            ("http://evil.example", "127.0.0.1"),
            ("null", "null"),
        ] {
            assert!(!same(origin, host), "{origin} {host}");
        }
    }
}
