//! Browsers: gRPC-web, and who may use it.
//!
//! A browser names the page that it calls for in `Origin`. A page is served
//! where its origin is allowed, and refused otherwise, also where the browser
//! takes it for our own (a name that was made to point here, DNS rebinding).
//! Programs send no `Origin` and pass by all of this untouched.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::Either;
use tonic::{
    body::Body,
    codegen::{
        Service,
        http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header},
    },
};
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer, ServiceExt as _, util::Oneshot};
use tower_http::cors::{AllowHeaders, AllowOrigin, Cors, CorsLayer};

use crate::auth::Origin;

/// How long a browser may remember that it may call.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// What scripts may read beside the body; those of a response without one.
const EXPOSED: [&str; 4] = [
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "grpc-encoding",
];

/// Serves browsers beside programs.
#[derive(Clone)]
pub struct BrowserLayer {
    cors: Arc<CorsLayer>,
    origins: Arc<[Origin]>,
}

impl BrowserLayer {
    /// For pages of these origins.
    pub fn new(origins: &[Origin]) -> BrowserLayer {
        let allowed = match all(origins) {
            true => AllowOrigin::any(),
            false => AllowOrigin::list(origins.iter().map(|origin| origin.value().clone())),
        };
        BrowserLayer {
            cors: Arc::new(
                CorsLayer::new()
                    .allow_origin(allowed)
                    .allow_methods([Method::POST])
                    // Clients send metadata of their own.
                    .allow_headers(AllowHeaders::mirror_request())
                    .expose_headers(EXPOSED.map(HeaderName::from_static))
                    .max_age(MAX_AGE),
            ),
            origins: origins.into(),
        }
    }
}

fn all(origins: &[Origin]) -> bool {
    origins.iter().any(|origin| *origin.value() == "*")
}

impl<S> Layer<S> for BrowserLayer {
    type Service = Browsers<S>;

    fn layer(&self, inner: S) -> Browsers<S> {
        Browsers {
            inner: GrpcWebLayer::new().layer(inner),
            cors: Arc::clone(&self.cors),
            origins: Arc::clone(&self.origins),
        }
    }
}

/// A service that browsers can call, too. Cheap to clone: it is, for every
/// request.
#[derive(Clone)]
pub struct Browsers<S> {
    inner: GrpcWebService<S>,
    cors: Arc<CorsLayer>,
    origins: Arc<[Origin]>,
}

type ToProgram<S, R> = <GrpcWebService<S> as Service<Request<R>>>::Future;
type ToBrowser<S, R> = Oneshot<Cors<GrpcWebService<S>>, Request<R>>;
type Refused = Ready<Result<Response<Body>, Infallible>>;

impl<S, R> Service<Request<R>> for Browsers<S>
where
    GrpcWebService<S>: Service<Request<R>, Response = Response<Body>, Error = Infallible> + Clone,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<ToProgram<S, R>, Either<ToBrowser<S, R>, Refused>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let Some(origin) = request.headers().get(header::ORIGIN) else {
            return Either::Left(self.inner.call(request));
        };
        let allowed =
            all(&self.origins) || self.origins.iter().any(|known| *known.value() == origin);
        Either::Right(if allowed {
            let browser = self.cors.layer(self.inner.clone());
            Either::Left(browser.oneshot(request))
        } else {
            tracing::debug!(?origin, "refused: not in web_origins");
            Either::Right(ready(Ok(refusal())))
        })
    }
}

/// For people who look into their browser's console.
fn refusal() -> Response<Body> {
    let text = "This server's setting web_origins does not allow this page's origin.\n";
    let mut response = Response::new(Body::new(text.to_owned()));
    *response.status_mut() = StatusCode::FORBIDDEN;
    let kind = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
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
}
