//! Errors in each dialect.

use http::Response;
use prost::Message as _;
use prost_reflect::MessageDescriptor;
use serde_json::json;
use tonic::{Status, body::Body};

use crate::{
    dialect::Dialect,
    embeddings, inference,
    json::{self, Style},
    response,
    status::describe,
};

/// Writes gRPC statuses as JSON.
#[derive(Clone, Debug)]
pub struct Errors {
    /// The descriptor of `google.rpc.Status`.
    message: MessageDescriptor,
}

impl Errors {
    /// Uses this descriptor of `google.rpc.Status`, whose pool has the types of
    /// the details.
    pub fn new(message: MessageDescriptor) -> Errors {
        Errors { message }
    }

    /// A status as the JSON of `google.rpc.Status`, with its details.
    pub fn json(&self, status: &Status) -> Vec<u8> {
        let bare = || tonic_types::Status {
            code: status.code() as i32,
            message: status.message().to_owned(),
            details: Vec::new(),
        };
        let whole = match status.details() {
            [] => bare().encode_to_vec(),
            details => details.to_vec(),
        };
        let mut out = Vec::new();
        if json::render(&self.message, &whole, Style::Proto, &mut out).is_ok() {
            return out;
        }
        // Details of an unknown type are left out.
        json!({"code": status.code() as i32, "message": status.message(), "details": []})
            .to_string()
            .into_bytes()
    }

    /// A status as a response in a dialect.
    pub fn of(&self, dialect: Dialect, status: &Status) -> Response<Body> {
        match dialect {
            Dialect::Proto => self.response(status),
            Dialect::Inference(_) => inference::error(status),
            Dialect::Embeddings => embeddings::error(status),
        }
    }

    /// A status as a response.
    pub fn response(&self, status: &Status) -> Response<Body> {
        let mut response = response::json(self.json(status));
        describe(status, &mut response);
        response
    }
}
