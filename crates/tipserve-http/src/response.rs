//! HTTP responses.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::Full;
use tonic::body::Body;

/// JSON's media type.
pub const JSON: &str = "application/json";

/// A response with a complete body.
pub fn full(body: Bytes) -> Response<Body> {
    Response::new(Body::new(Full::new(body)))
}

/// A response with a body of JSON.
pub fn json(body: Vec<u8>) -> Response<Body> {
    with_type(full(body.into()), JSON)
}

/// A response of this type that must not be sniffed or cached.
pub fn with_type(mut response: Response<Body>, kind: &'static str) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    // Answers are private to the caller and change over time.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
