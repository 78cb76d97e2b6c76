//! The layer: HTTP requests are turned into gRPC calls of the services within,
//! and their answers back.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header, uri::PathAndQuery,
};
use http_body::Body as HttpBody;
use prost_reflect::DescriptorPool;
use tonic::{Code, body::Body};
use tower::{Layer, Service, ServiceExt as _};

use crate::{
    answer::{Answering, Form, style_of},
    assets::{Assets, Files},
    call::Call,
    described::Described,
    dialect::{Dialect, Shape},
    embeddings,
    errors::Errors,
    inference, openapi,
    rules::{self, Route, RulesError},
    status,
    template::RequestPath,
};

/// How long after a call's deadline its service may still answer with its own
/// reason.
const GRACE: Duration = Duration::from_millis(50);

/// The OpenAPI document of the annotated methods of these descriptors, indented
/// for people and for what compares it.
///
/// # Errors
/// If they cannot be served: a broken build.
pub fn openapi_document(descriptors: &[u8]) -> Result<String, RulesError> {
    let pool = rules::pool(descriptors)?;
    let routes = all_routes(&pool)?;
    let document = openapi::document(&pool, &routes, env!("CARGO_PKG_VERSION"));
    Ok(format!("{document:#}\n"))
}

/// Serves gRPC services over HTTP with JSON.
#[derive(Clone)]
pub struct HttpLayer {
    api: Arc<Api>,
}

/// What a request is looked up in.
struct Api {
    routes: Vec<Route>,
    errors: Arc<Errors>,
    assets: Files,
    described: Described,
}

impl HttpLayer {
    /// Serves the annotated methods of these descriptors, and files.
    ///
    /// # Errors
    /// If the descriptors or their annotations cannot be served: a broken
    /// build.
    pub fn new(descriptors: &[u8], assets: Assets) -> Result<HttpLayer, RulesError> {
        let pool = rules::pool(descriptors)?;
        let status = pool
            .get_message_by_name("google.rpc.Status")
            .ok_or_else(|| RulesError::Descriptors("they lack google.rpc.Status".to_owned()))?;
        let routes = all_routes(&pool)?;
        let document = openapi::document(&pool, &routes, env!("CARGO_PKG_VERSION"));
        Ok(HttpLayer {
            api: Arc::new(Api {
                described: Described::new(document.to_string()),
                routes,
                errors: Arc::new(Errors::new(status)),
                assets: assets.files(),
            }),
        })
    }
}

fn all_routes(pool: &DescriptorPool) -> Result<Vec<Route>, RulesError> {
    let mut routes = rules::routes(pool)?;
    routes.extend(inference::routes(pool)?);
    routes.push(embeddings::route(pool)?);
    Ok(routes)
}

impl<S> Layer<S> for HttpLayer {
    type Service = HttpService<S>;

    fn layer(&self, inner: S) -> HttpService<S> {
        HttpService {
            inner,
            api: Arc::clone(&self.api),
        }
    }
}

/// Services that are called over HTTP. Cheap to clone: it is, for every
/// request.
#[derive(Clone)]
pub struct HttpService<S> {
    inner: S,
    api: Arc<Api>,
}

impl<S, B, R> Service<Request<B>> for HttpService<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = self.inner.clone();
        let api = Arc::clone(&self.api);
        Box::pin(async move {
            let file = api.assets.answer(&request);
            if let Some(file) = file.or_else(|| api.described.answer(&request)) {
                return Ok(file);
            }
            let is_head = request.method() == Method::HEAD;
            let (call, answering) = match api.call(&request) {
                Ok(found) => found,
                Err(refusal) => return Ok(without_body(*refusal, is_head)),
            };
            let dialect = answering.dialect;
            let deadline = call.timeout.map(|timeout| timeout + GRACE);
            let request = to_grpc(request, call);
            let answered = async move {
                let response = inner.oneshot(request).await?;
                Ok(without_body(answering.answer(response).await, is_head))
            };
            match deadline {
                None => answered.await,
                Some(after) => match tokio::time::timeout(after, answered).await {
                    Ok(answered) => answered,
                    Err(_) => {
                        let message = "the call's deadline has passed";
                        let reason = "DEADLINE_EXCEEDED";
                        let late = status::error(Code::DeadlineExceeded, reason, message);
                        Ok(without_body(api.errors.of(dialect, &late), is_head))
                    }
                },
            }
        })
    }
}

type Refusal = Box<Response<Body>>;

impl Api {
    /// The call that a request is.
    fn call<B>(&self, request: &Request<B>) -> Result<(Call, Answering), Refusal> {
        let uri = request.uri();
        let path = RequestPath::parse(uri.path());
        let mut fitting = path
            .iter()
            .flat_map(|path| rules::matching(&self.routes, path))
            .peekable();
        if fitting.peek().is_none() {
            return Err(self.no_path(uri));
        }
        let verb = match *request.method() {
            Method::HEAD => &Method::GET,
            ref verb => verb,
        };
        let mut others: Vec<&Route> = Vec::new();
        for (route, fields) in fitting {
            if route.method != verb {
                others.push(route);
                continue;
            }
            let headers = request.headers();
            let query = uri.query().unwrap_or_default();
            let call = Call::new(route, &fields, query, headers)
                .map_err(|status| Box::new(self.errors.of(route.dialect, &status)))?;
            let answering = Answering {
                output: route.rpc.output.clone(),
                form: Form::of(&route.rpc, headers),
                style: style_of(headers),
                errors: Arc::clone(&self.errors),
                dialect: route.dialect,
                asked: Arc::clone(&call.asked),
                id: None,
            };
            return Ok((call, answering));
        }
        Err(self.no_verb(request.method(), &others))
    }

    fn no_path(&self, uri: &Uri) -> Refusal {
        let path: String = uri.path().chars().take(200).collect();
        let message = format!("there is no {path:?} here; /openapi.json has all paths");
        let status = status::error(Code::NotFound, "PATH_UNKNOWN", message);
        let dialect = match uri.path().starts_with("/v2") {
            true => Dialect::Inference(Shape::Whole),
            false => Dialect::Proto,
        };
        Box::new(self.errors.of(dialect, &status))
    }

    /// What is said of a path that does not have the request's verb: which ones
    /// it has, which is all that OPTIONS asks for.
    fn no_verb(&self, method: &Method, routes: &[&Route]) -> Refusal {
        let mut names: Vec<&str> = Vec::new();
        for route in routes {
            names.push(route.method.as_str());
            if route.method == Method::GET {
                names.push(Method::HEAD.as_str());
            }
        }
        let mut response = if method == Method::OPTIONS {
            let mut empty = Response::new(Body::empty());
            *empty.status_mut() = StatusCode::NO_CONTENT;
            empty
        } else {
            let message = format!("the path takes {}, not {method}", names.join(", "));
            let status = status::error(Code::Unimplemented, "VERB_UNKNOWN", message);
            let dialect = routes.first().map_or(Dialect::Proto, |route| route.dialect);
            self.errors.of(dialect, &status)
        };
        names.push(Method::OPTIONS.as_str());
        if let Ok(value) = HeaderValue::from_str(&names.join(", ")) {
            response.headers_mut().insert(header::ALLOW, value);
        }
        Box::new(response)
    }
}

/// The answer to HEAD, if it is asked: what GET would say, without its body.
fn without_body(response: Response<Body>, is_head: bool) -> Response<Body> {
    if !is_head {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(header::CONTENT_LENGTH, length.into());
    }
    Response::from_parts(parts, Body::empty())
}

/// Headers of HTTP that mean something else, or nothing, in gRPC.
const DROPPED: [HeaderName; 6] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::TRANSFER_ENCODING,
];

/// The request of a gRPC call. Its body is still HTTP's: the service behind,
/// which bounds messages, turns it into messages with the call in the request's
/// extensions.
fn to_grpc<B>(request: Request<B>, call: Call) -> Request<Body>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut parts, body) = request.into_parts();
    clean(&mut parts.headers);
    if let Some(timeout) = call.timeout.and_then(grpc_timeout) {
        parts.headers.insert("grpc-timeout", timeout);
    }
    let mut uri = parts.uri.into_parts();
    uri.path_and_query = Some(PathAndQuery::clone(&call.rpc.path));
    parts.uri = Uri::from_parts(uri).unwrap_or_else(|_| Uri::from(call.rpc.path.clone()));
    parts.method = Method::POST;
    parts.version = Version::HTTP_2;
    parts.extensions.insert(Arc::new(call));
    Request::from_parts(parts, Body::new(body))
}

fn clean(headers: &mut HeaderMap) {
    for name in DROPPED {
        headers.remove(name);
    }
    let grpc: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("grpc-"))
        .cloned()
        .collect();
    for name in grpc {
        headers.remove(name);
    }
    let kind = HeaderValue::from_static("application/grpc");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
}

/// At most eight digits and a unit.
fn grpc_timeout(timeout: Duration) -> Option<HeaderValue> {
    const MOST: u128 = 99_999_999;
    let units = [
        (timeout.as_nanos(), "n"),
        (timeout.as_micros(), "u"),
        (timeout.as_millis(), "m"),
        (u128::from(timeout.as_secs()), "S"),
    ];
    let (amount, unit) = units.into_iter().find(|(amount, _)| *amount <= MOST)?;
    HeaderValue::from_str(&format!("{amount}{unit}")).ok()
}
