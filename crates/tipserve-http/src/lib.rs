//! gRPC services as HTTP and JSON, from their descriptors.
//!
//! One handler serves every method that has a `google.api.http` annotation: no
//! code is generated, and none is written for a method of its own.
//!
//! - [`HttpLayer`] stands outside of the layers that authenticate, count and
//!   bound gRPC calls. It finds the method that a request's path means, and
//!   passes the request on as a call of it, so that these layers see what they
//!   see of any other caller.
//! - [`messages`] turns the request's body into gRPC messages. It is called
//!   within those layers, by the one that bounds messages, through [`Bounds`]:
//!   nothing of a body is read for a caller who may not call. That layer also
//!   inflates bodies that are compressed (`Content-Encoding`).
//! - [`Asset`]s are static files that are served next to the API.
//!
//! JSON is written to the wire format as it is read (`json::write`), without a
//! tree of values in between.
//!
//! ```
//! use tipserve_http::{Assets, HttpLayer};
//!
//! let layer = HttpLayer::new(tipserve_api::DESCRIPTORS, Assets::default())?;
//! # let _ = layer;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

mod answer;
mod arrival;
mod assets;
mod bounds;
mod call;
mod content;
mod described;
mod dialect;
mod embeddings;
mod errors;
mod form;
mod form_messages;
mod inference;
mod json;
mod media;
mod npy;
mod openapi;
mod query;
mod reading;
mod response;
mod rules;
mod service;
mod status;
mod template;

pub use assets::{Asset, Assets, Permanent};
pub use bounds::Bounds;
pub use call::Call;
#[cfg(any(test, fuzzing))]
pub use json::fuzzing;
pub use reading::messages;
pub use rules::RulesError;
pub use service::{HttpLayer, HttpService, openapi_document};
pub use status::refusal;

/// The header with a call's deadline, in seconds.
pub const REQUEST_TIMEOUT: &str = "request-timeout";
/// The header with a request's id.
pub const REQUEST_ID: &str = "x-request-id";
