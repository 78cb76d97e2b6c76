//! One call over HTTP: its path, query and headers.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::HeaderMap;
use tonic::Status;

use crate::{
    content::{Content, Picture},
    dialect::Dialect,
    embeddings, inference,
    json::{JsonError, wire, without_mark, write},
    query,
    rules::{Route, Rpc},
};

/// What an answer needs to know of a request's body.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Which tensors are wanted as bytes.
    Tensors(inference::Binary),
    /// The order of embeddings, and their form.
    Embeddings(embeddings::Asked),
}

/// A call, before its body is read.
#[derive(Clone, Debug)]
pub struct Call {
    /// The RPC that the path and verb name.
    pub rpc: Arc<Rpc>,
    /// Fields from the query: the message's beginning, which the body overrides.
    query: Vec<u8>,
    /// Fields from the path: its end, which overrides the body.
    path: Vec<u8>,
    pub(crate) content: Content,
    /// What the answer needs to know of the body, once that has been read.
    pub(crate) asked: Arc<OnceLock<Asked>>,
    /// How long the caller gives the call; none if it has no deadline.
    pub timeout: Option<Duration>,
}

impl Call {
    /// A call of `rpc`.
    ///
    /// # Errors
    /// A path, query or header that is not valid.
    pub fn new(
        route: &Route,
        path: &[(&str, String)],
        query: &str,
        headers: &HeaderMap,
    ) -> Result<Call, Status> {
        let rpc = &route.rpc;
        let mut fields = Vec::new();
        for (name, value) in path {
            let way = query::resolve(&rpc.input, name).unwrap_or_default();
            query::put(name, &way, value, usize::MAX, &mut fields)?;
        }
        Ok(Call {
            rpc: Arc::clone(rpc),
            query: match route.dialect {
                Dialect::Proto => query::parse(&rpc.input, query)?,
                _ => Vec::new(),
            },
            path: fields,
            content: Content::of(route, headers)?,
            asked: Arc::default(),
            timeout: timeout_of(headers)?,
        })
    }

    /// The message that a JSON object makes, with path and query if it is
    /// `merged` with them.
    pub(crate) fn message(
        &self,
        json: &[u8],
        merged: bool,
        limit: usize,
    ) -> Result<Vec<u8>, JsonError> {
        let json = without_mark(json);
        // A message is shorter than its JSON, but for its query and path.
        let mut out = Vec::with_capacity(json.len().min(limit));
        if merged {
            out.extend_from_slice(&self.query);
        }
        if !json.iter().all(u8::is_ascii_whitespace) {
            write::write(&self.rpc.input, json, limit, &mut out)?;
        }
        if merged {
            out.extend_from_slice(&self.path);
        }
        Ok(out)
    }

    /// Whether path or query say anything.
    pub(crate) fn has_fields(&self) -> bool {
        !self.query.is_empty() || !self.path.is_empty()
    }

    /// The message that path and query make.
    pub(crate) fn fields(&self) -> Vec<u8> {
        [self.query.as_slice(), &self.path].concat()
    }

    /// A message, preceded by the query's fields and followed by the path's.
    pub(crate) fn around(&self, message: &[u8]) -> Vec<u8> {
        [self.query.as_slice(), message, &self.path].concat()
    }

    /// The message that a picture makes.
    pub(crate) fn picture(&self, picture: &Picture, file: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.query.len() + self.path.len() + file.len() + 24);
        out.extend_from_slice(&self.query);
        put_picture(picture, file, &mut out);
        out.extend_from_slice(&self.path);
        out
    }
}

/// Appends a picture's file to a message.
pub(crate) fn put_picture(picture: &Picture, file: &[u8], out: &mut Vec<u8>) {
    let Ok(()) = wire::delimited(picture.input.number(), out, |out| {
        wire::bytes(picture.file.number(), file, out);
        Ok::<(), std::convert::Infallible>(())
    });
}

/// The deadline that a request asks for.
fn timeout_of(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    if headers.contains_key("grpc-timeout") {
        let problem = "over HTTP the deadline is in Request-Timeout, in seconds";
        return Err(JsonError::field("grpc-timeout", problem).into());
    }
    let Some(value) = headers.get(crate::REQUEST_TIMEOUT) else {
        return Ok(None);
    };
    let seconds = value
        .to_str()
        .ok()
        .and_then(|text| text.parse::<f64>().ok());
    seconds
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .map(Some)
        .ok_or_else(|| {
            let problem = "expected seconds over 0, such as 2.5";
            JsonError::field(crate::REQUEST_TIMEOUT, problem).into()
        })
}
