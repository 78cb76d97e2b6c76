//! The description of the API over HTTP: `/openapi.json`, and a page that shows
//! it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use http::{Request, Response};
use tonic::body::Body;

use crate::assets::{File, Files};

/// The files of the description.
pub struct Described(Files);

impl Described {
    /// Serves `document`, and a page that reads it.
    pub fn new(document: String) -> Described {
        let text = |text: &'static str| Bytes::from_static(text.as_bytes());
        let files = [
            ("/openapi.json", "application/json", Bytes::from(document)),
            (
                "/docs",
                "text/html; charset=utf-8",
                text(include_str!("docs/index.html")),
            ),
            (
                "/docs/docs.js",
                "text/javascript; charset=utf-8",
                text(include_str!("docs/docs.js")),
            ),
            (
                "/docs/docs.css",
                "text/css; charset=utf-8",
                text(include_str!("docs/docs.css")),
            ),
        ];
        Described(Files::new(
            files
                .into_iter()
                .map(|(path, content_type, body)| File {
                    path,
                    content_type,
                    encoding: None,
                    etag: tag(&body),
                    immutable: false,
                    body,
                })
                .collect(),
        ))
    }

    /// The answer, if the request is for one of them.
    pub fn answer<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        self.0.answer(request)
    }
}

/// An entity tag, which changes with the bytes.
fn tag(body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
