//! HTTP responses.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::Full;
use tonic::body::Body;

/// The type of JSON.
pub const JSON: &str = "application/json";

/// A response with all of its body.
pub fn full(body: Bytes) -> Response<Body> {
    Response::new(Body::new(Full::new(body)))
}

/// A response with a body of JSON.
pub fn json(body: Vec<u8>) -> Response<Body> {
    with_type(full(body.into()), JSON)
}

/// A response of this type, which nobody is to guess at or to keep.
pub fn with_type(mut response: Response<Body>, kind: &'static str) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    // Answers are for who asked, and for now.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
