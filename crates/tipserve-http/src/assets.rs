//! Static files: the page that the server shows, and its parts.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tonic::body::Body;

use crate::response::full;

/// The content security policy of the server's pages: nothing from elsewhere.
const CONTENT_SECURITY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' blob: data:; connect-src 'self'; font-src 'self'; manifest-src 'self'; \
    media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file that is served as it is.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    /// Its path on the server: "/", "/assets/app.3f2a.js".
    pub path: &'static str,
    /// Its media type, with the character set if it is text.
    pub content_type: &'static str,
    /// Its bytes, compressed if `encoding` says so.
    pub body: &'static [u8],
    /// How they are compressed ("gzip", "br"); none if they are not. Clients that
    /// do not take it are refused, which no browser is.
    pub encoding: Option<&'static str>,
    /// Changes with the bytes; without quotes.
    pub etag: &'static str,
    /// Whether the content at this path never changes.
    pub immutable: bool,
}

/// The files of a server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Assets(&'static [Asset]);

impl Assets {
    /// Serves these files, each at its own path.
    pub const fn new(files: &'static [Asset]) -> Assets {
        Assets(files)
    }

    /// They, ready to be served.
    pub(crate) fn files(self) -> Files {
        let file = |asset: &Asset| File {
            path: asset.path,
            content_type: asset.content_type,
            body: Bytes::from_static(asset.body),
            encoding: asset.encoding,
            etag: asset.etag.to_owned(),
            immutable: asset.immutable,
        };
        Files::new(self.0.iter().map(file).collect())
    }
}

/// An extension of answers whose bytes the server holds as long as it runs:
/// however many peers leave them unread, they take no memory of their own.
#[derive(Clone, Copy, Debug)]
pub struct Permanent;

/// A file that is served, static or generated.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub path: &'static str,
    pub content_type: &'static str,
    pub body: Bytes,
    pub encoding: Option<&'static str>,
    pub etag: String,
    pub immutable: bool,
}

/// Files that are looked up by path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files(Vec<File>);

impl Files {
    /// Serves these files, each at its own path.
    pub fn new(files: Vec<File>) -> Files {
        Files(files)
    }

    /// The answer, if there is such a file.
    pub fn answer<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return None;
        }
        let path = request.uri().path();
        let file = self.0.iter().find(|file| file.path == path)?;
        Some(answer(file, request.method(), request.headers()))
    }
}

fn answer(asset: &File, method: &Method, asked: &HeaderMap) -> Response<Body> {
    let tag = format!("\"{}\"", asset.etag);
    let known = asked
        .get(header::IF_NONE_MATCH)
        .and_then(|tags| tags.to_str().ok())
        .is_some_and(|tags| {
            let mut tags = tags
                .split(',')
                .map(|tag| tag.trim().trim_start_matches("W/"));
            tags.any(|known| known == tag || known == "*")
        });
    let encoded = asset.encoding.is_none_or(|encoding| {
        let taken = asked.get(header::ACCEPT_ENCODING);
        taken
            .and_then(|taken| taken.to_str().ok())
            .is_some_and(|taken| taken.contains(encoding))
    });
    let mut response = match (known, encoded) {
        (true, _) => status(StatusCode::NOT_MODIFIED),
        (false, false) => status(StatusCode::NOT_ACCEPTABLE),
        (false, true) if method == Method::HEAD => status(StatusCode::OK),
        (false, true) => kept(asset.body.clone()),
    };
    let caching = match asset.immutable {
        true => "public, max-age=31536000, immutable",
        false => "no-cache",
    };
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_TYPE, asset.content_type),
        (header::CACHE_CONTROL, caching),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::VARY, "accept-encoding"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(
        "permissions-policy",
        HeaderValue::from_static("camera=(self)"),
    );
    headers.insert(
        "cross-origin-opener-policy",
        HeaderValue::from_static("same-origin"),
    );
    if let Some(encoding) = asset.encoding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// An answer of bytes that are there anyway.
fn kept(body: Bytes) -> Response<Body> {
    let mut response = full(body);
    response.extensions_mut().insert(Permanent);
    response
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}
