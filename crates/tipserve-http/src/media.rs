//! Answers that are one file, such as `ExamplePicture`: the bytes themselves go
//! to clients that ask for them.

use http::{HeaderMap, HeaderValue, Response, header};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use tonic::body::Body;

use crate::response::{full, with_type};

/// The fields of a message that hold a file and its media type.
#[derive(Clone, Debug, PartialEq)]
pub struct Media {
    data: FieldDescriptor,
    kind: FieldDescriptor,
}

impl Media {
    /// The fields of the message, if it is a file.
    pub fn of(message: &MessageDescriptor) -> Option<Media> {
        let field = |name: &str, kind: Kind| {
            let field = message.get_field_by_name(name)?;
            (field.kind() == kind && !field.is_list()).then_some(field)
        };
        Some(Media {
            data: field("data", Kind::Bytes)?,
            kind: field("content_type", Kind::String)?,
        })
    }

    /// Whether a client asks for the file itself: it accepts pictures, as
    /// browsers do for `<img>`, or any bytes.
    pub fn is_wanted(headers: &HeaderMap) -> bool {
        let mut accepted = headers.get_all(header::ACCEPT).iter();
        accepted.any(|value| {
            value.to_str().is_ok_and(|value| {
                value.contains("image/") || value.contains("application/octet-stream")
            })
        })
    }

    /// The file as a response.
    ///
    /// # Errors
    /// If the bytes are not such a message: a defect.
    pub fn response(&self, message: &[u8]) -> Result<Response<Body>, String> {
        let output = self.data.parent_message().clone();
        let message = DynamicMessage::decode(output, message).map_err(|e| e.to_string())?;
        let (data, kind) = (message.get_field(&self.data), message.get_field(&self.kind));
        let data = data.as_bytes().cloned().unwrap_or_default();
        let mut response = with_type(full(data), "application/octet-stream");
        if let Some(kind) = kind
            .as_str()
            .and_then(|kind| HeaderValue::from_str(kind).ok())
        {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        Ok(response)
    }
}
