//! ProtoJSON, both ways: [`write`] turns JSON into the wire format as it is
//! read, [`render`] a message into JSON.

mod decimal;
mod float;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod numbers;
mod reader;
mod render;
pub mod scalar;
pub mod well_known;
pub mod wire;
pub mod write;

use thiserror::Error;

pub use float::read as read_float;
pub use reader::{Reader, Value};
pub use render::render;

/// What is wrong with a request's JSON, query or form.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JsonError {
    /// The text is not JSON.
    #[error("the body is not JSON: {0}")]
    Syntax(String),
    /// A field has a value that it cannot have.
    #[error("{field}: {problem}")]
    Field {
        /// Its path, in JSON's names.
        field: String,
        /// What is wrong with the value.
        problem: String,
    },
    /// The message would be over the limit.
    #[error("the message has over {0} bytes")]
    TooLarge(usize),
}

impl JsonError {
    /// A [`JsonError::Field`] with this path and problem.
    pub fn field(field: impl Into<String>, problem: impl Into<String>) -> JsonError {
        JsonError::Field {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

/// A text without the byte order mark of UTF-8, which Windows's tools put before it.
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text)
}

/// How a message is written as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As ProtoJSON has it, with all fields that have no presence.
    Proto,
    /// The same, but lists of floating-point numbers are strings: base64 of their
    /// little-endian bytes.
    Packed,
    /// Names as in the protos, and 64-bit integers as numbers: the Open
    /// Inference Protocol's.
    Plain,
}

#[cfg(test)]
mod tests;
