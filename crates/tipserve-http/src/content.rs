//! What a request's body is, by its headers and its method.

use http::{HeaderMap, header};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use tonic::{Code, Status};

use crate::{
    dialect::{Dialect, Shape},
    inference, npy,
    rules::{Route, Rpc},
    status,
};

/// What a request's body is read as.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// None is read: all of the request is in its path and query.
    Nothing,
    /// One JSON object, the request or one of its fields.
    Json,
    /// A JSON object a line.
    Lines,
    /// A picture's file, or JSON or an array if its first bytes say so.
    JsonOrPicture(Picture),
    /// The bytes of a picture's file.
    Picture(Picture),
    /// An array's file, whose rows are embeddings.
    Array,
    /// A file for a method that takes it in pieces, in this field.
    File(FieldDescriptor),
    /// A form, with its boundary.
    Form(String),
    /// The Open Inference Protocol's JSON of this length, then tensors.
    Tensors(Option<usize>),
    /// The Open Inference Protocol's parameters of a load or an unload.
    Parameters,
    /// What tools for OpenAI's embeddings send.
    Embeddings,
}

/// Where in the request a picture's bytes go.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// The field of the request: an `Input`, or a list of them.
    pub input: FieldDescriptor,
    /// The field of `Input` that takes a file.
    pub file: FieldDescriptor,
}

impl Picture {
    /// Where a method's message takes a picture, if it does.
    pub fn of(message: &MessageDescriptor) -> Option<Picture> {
        let mut fields = message.fields();
        fields.find_map(|input| {
            let Kind::Message(inner) = input.kind() else {
                return None;
            };
            let file = inner.get_field_by_name("encoded_image")?;
            Some(Picture { input, file })
        })
    }
}

/// How a body may be compressed. It is inflated by the layer that bounds
/// messages, before [`messages`](crate::messages) reads it.
const ENCODINGS: [&str; 5] = ["identity", "gzip", "x-gzip", "deflate", "zstd"];

/// The field in which a method's messages carry pieces of a file.
fn pieces(rpc: &Rpc) -> Option<FieldDescriptor> {
    let field = rpc.input.get_field_by_name("chunk")?;
    (rpc.descriptor.is_client_streaming() && field.kind() == Kind::Bytes).then_some(field)
}

impl Content {
    /// What the body of a call of a route is.
    ///
    /// # Errors
    /// A type or an encoding that the method does not take.
    pub fn of(route: &Route, headers: &HeaderMap) -> Result<Content, Status> {
        if !route.has_body {
            return Ok(Content::Nothing);
        }
        let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
        if let Some(encoding) = encodings.next()
            && !ENCODINGS
                .iter()
                .any(|known| encoding.as_bytes().eq_ignore_ascii_case(known.as_bytes()))
        {
            return Err(unknown("a body may be compressed by gzip, deflate or zstd"));
        }
        if encodings.next().is_some() {
            return Err(unknown("a body may be compressed once, not several times"));
        }
        match route.dialect {
            Dialect::Proto => Content::proto(&route.rpc, headers),
            Dialect::Inference(Shape::Tensors) => {
                Ok(Content::Tensors(inference::header_length(headers)?))
            }
            Dialect::Inference(Shape::Whole) => Ok(Content::Parameters),
            Dialect::Inference(_) => Ok(Content::Json),
            Dialect::Embeddings => Ok(Content::Embeddings),
        }
    }

    fn proto(rpc: &Rpc, headers: &HeaderMap) -> Result<Content, Status> {
        let given = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str());
        let given = match given {
            None => "",
            Some(Ok(kind)) => kind,
            Some(Err(_)) => return Err(unknown("the Content-Type is not text")),
        };
        let kind = given.split(';').next().unwrap_or_default().trim();
        let kind = kind.to_ascii_lowercase();
        let streams = rpc.descriptor.is_client_streaming();
        let picture = Picture::of(&rpc.input).filter(|_| !streams);
        let file = pieces(rpc);
        let is_json = matches!(&*kind, "application/json" | "text/json") || kind.ends_with("+json");
        match kind.as_str() {
            "multipart/form-data" => {
                let boundary = multer::parse_boundary(given)
                    .map_err(|_| unknown("the form's Content-Type has no boundary"))?;
                return Ok(Content::Form(boundary));
            }
            "application/x-ndjson" | "application/jsonl" | "application/jsonlines" => {
                return match streams {
                    true => Ok(Content::Lines),
                    false => Ok(Content::Json),
                };
            }
            _ if is_json && streams => return Ok(Content::Lines),
            _ if is_json => return Ok(Content::Json),
            _ if kind.starts_with("image/") => {
                let taken = picture.map(Content::Picture);
                return taken.ok_or_else(|| unknown("the method takes no picture as its body"));
            }
            "application/x-npy" => {
                return match npy::is_taken(&rpc.input) {
                    true => Ok(Content::Array),
                    false => Err(unknown("the method takes no array as its body")),
                };
            }
            // curl's default for any `--data`.
            "application/x-www-form-urlencoded"
            | "application/octet-stream"
            | ""
            | "text/plain" => {}
            // Of a picture the first bytes count.
            _ if picture.is_some() && !kind.starts_with("multipart/") => {}
            _ => {
                let shown: String = kind.chars().take(80).collect();
                let taken = taken(picture.is_some(), file.is_some(), streams);
                return Err(unknown(&format!(
                    "{shown:?} is not taken: the method takes {taken}"
                )));
            }
        }
        Ok(match (picture, file) {
            (Some(picture), _) => Content::JsonOrPicture(picture),
            (None, Some(field)) => Content::File(field),
            (None, None) if kind == "application/octet-stream" => {
                return Err(unknown("the method takes JSON"));
            }
            (None, None) if streams => Content::Lines,
            (None, None) => Content::Json,
        })
    }
}

/// What a method takes, for people.
fn taken(picture: bool, file: bool, streams: bool) -> &'static str {
    match (picture, file, streams) {
        (true, _, _) => {
            "a picture's file (image/…), an array's (application/x-npy), JSON, or a form"
        }
        (_, true, _) => "a file (application/octet-stream), or JSON, one message a line",
        (_, _, true) => "JSON, one message a line (application/x-ndjson), or a form",
        (_, _, false) => "JSON (application/json)",
    }
}

fn unknown(problem: &str) -> Status {
    status::error(Code::InvalidArgument, "CONTENT_TYPE_UNKNOWN", problem)
}
