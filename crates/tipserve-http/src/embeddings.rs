//! `POST /v1/embeddings`, in the shape that tools for OpenAI's API send: another
//! way of writing Embed.

use std::fmt;

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD},
};
use bytes::Bytes;
use http::{Method, Response};
use prost::Message as _;
use prost_reflect::DescriptorPool;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor},
};
use serde_json::json;
use std::sync::Arc;
use tipserve_api::v1::{
    EmbedRequest, EmbedResponse, EmbedResult, Input, embed_result, input::Content,
};
use tonic::{Code, Status, body::Body};

use crate::{
    dialect::Dialect,
    json::{JsonError, without_mark},
    response,
    rules::{Route, Rpc, RulesError},
    status::{self, describe},
    template::Template,
};

const PATH: &str = "/v1/embeddings";

/// Its route.
///
/// # Errors
/// If the descriptors lack the method: a broken build.
pub fn route(pool: &DescriptorPool) -> Result<Route, RulesError> {
    let service = pool.get_service_by_name("tipserve.v1.ClassifyService");
    let method = service.and_then(|service| service.methods().find(|m| m.name() == "Embed"));
    let method = method.ok_or_else(|| RulesError::Descriptors("they lack Embed".to_owned()))?;
    Ok(Route {
        rpc: Arc::new(Rpc::new(method)?),
        method: Method::POST,
        template: Template::parse(PATH).map_err(|source| RulesError::Template {
            method: "Embed".to_owned(),
            source,
        })?,
        has_body: true,
        is_primary: false,
        dialect: Dialect::Embeddings,
    })
}

#[derive(Deserialize)]
struct Request {
    input: Inputs,
    #[serde(default)]
    model: String,
    #[serde(default)]
    encoding_format: Option<Format>,
    #[serde(default)]
    dimensions: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Float,
    Base64,
}

/// One text or picture, or several: the message that they are, and their order.
/// Written as they are read, since an empty text has three bytes in JSON, two in
/// the message and ten times that as an element of a list.
#[derive(Default)]
struct Inputs {
    message: Vec<u8>,
    order: Vec<Kind>,
}

/// A text or a picture: Embed has a list for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Picture,
}

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Inputs, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Inputs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a picture as a data URL, or a list of them (not tokens)")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Inputs, E> {
                let mut inputs = Inputs::default();
                inputs.push(text.to_owned()).map_err(E::custom)?;
                Ok(inputs)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Inputs, A::Error> {
                let mut inputs = Inputs::default();
                while let Some(text) = list.next_element::<String>()? {
                    inputs.push(text).map_err(serde::de::Error::custom)?;
                }
                Ok(inputs)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl Inputs {
    fn push(&mut self, text: String) -> Result<(), &'static str> {
        let Some(url) = text.strip_prefix("data:image/") else {
            let texts = vec![text];
            self.append(
                Kind::Text,
                &EmbedRequest {
                    texts,
                    ..EmbedRequest::default()
                },
            );
            return Ok(());
        };
        let wrong = "a picture's data URL is data:image/TYPE;base64,DATA";
        let (_, data) = url.split_once(";base64,").ok_or(wrong)?;
        let data = data.trim_end_matches('=');
        let file = BASE64_STANDARD_NO_PAD.decode(data).map_err(|_| wrong)?;
        let content = Some(Content::EncodedImage(file.into()));
        let inputs = vec![Input { content }];
        self.append(
            Kind::Picture,
            &EmbedRequest {
                inputs,
                ..EmbedRequest::default()
            },
        );
        Ok(())
    }

    /// Messages appended to each other are merged by the decoder.
    fn append(&mut self, kind: Kind, one: &EmbedRequest) {
        self.message.extend_from_slice(&one.encode_to_vec());
        self.order.push(kind);
    }
}

/// What an answer needs to know of its request.
#[derive(Debug)]
pub struct Asked {
    order: Vec<Kind>,
    format: Format,
    model: String,
    dimensions: Option<usize>,
}

/// The message that a request is.
///
/// # Errors
/// What is wrong with it.
pub fn read(body: &Bytes) -> Result<(Vec<u8>, Asked), Status> {
    let request: Request =
        serde_json::from_slice(without_mark(body)).map_err(|error| match error.is_data() {
            true => JsonError::field("body", error.to_string()),
            false => JsonError::Syntax(error.to_string()),
        })?;
    let Inputs { message, order } = request.input;
    let asked = Asked {
        order,
        format: request.encoding_format.unwrap_or(Format::Float),
        model: request.model,
        dimensions: request.dimensions,
    };
    Ok((message, asked))
}

/// An embedding in the requested encoding.
enum Shown {
    Numbers(Vec<f32>),
    Base64(String),
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // Each with the fewest digits that read back to the same number.
            Shown::Numbers(values) => values.serialize(serializer),
            Shown::Base64(text) => serializer.serialize_str(text),
        }
    }
}

impl Shown {
    fn new(values: Vec<f32>, format: Format) -> Shown {
        match format {
            Format::Float => Shown::Numbers(values),
            Format::Base64 => {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                Shown::Base64(BASE64_STANDARD.encode(bytes))
            }
        }
    }
}

#[derive(Serialize)]
struct Entry {
    object: &'static str,
    index: usize,
    embedding: Shown,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: i64,
    total_tokens: i64,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Entry>,
    model: &'a str,
    usage: Usage,
}

/// The answer.
///
/// # Errors
/// That of the first input that has one: this API has none for single inputs.
pub fn answer(message: &[u8], asked: &Asked) -> Result<Response<Body>, Status> {
    let message =
        EmbedResponse::decode(message).map_err(|error| Status::internal(error.to_string()))?;
    // Texts have tokens, pictures none.
    let tokens = message.texts.iter().map(|text| i64::from(text.token_count));
    let tokens: i64 = tokens.sum();
    let (mut texts, mut pictures) = (message.texts.into_iter(), message.inputs.into_iter());
    let mut data = Vec::with_capacity(asked.order.len());
    for (index, kind) in asked.order.iter().enumerate() {
        let result = match kind {
            Kind::Text => texts.next(),
            Kind::Picture => pictures.next(),
        };
        let values = vector(index, result)?;
        if let Some(dimensions) = asked.dimensions.filter(|given| *given != values.len()) {
            let problem = format!("it is {dimensions}, the model's is {}", values.len());
            return Err(JsonError::field("dimensions", problem).into());
        }
        data.push(Entry {
            object: "embedding",
            index,
            embedding: Shown::new(values, asked.format),
        });
    }
    let whole = List {
        object: "list",
        data,
        model: &asked.model,
        usage: Usage {
            prompt_tokens: tokens,
            total_tokens: tokens,
        },
    };
    let body = serde_json::to_vec(&whole).map_err(|error| Status::internal(error.to_string()))?;
    Ok(response::json(body))
}

fn vector(index: usize, result: Option<EmbedResult>) -> Result<Vec<f32>, Status> {
    match result.and_then(|result| result.outcome) {
        Some(embed_result::Outcome::Embedding(embedding)) => Ok(embedding.values),
        Some(embed_result::Outcome::Error(error)) => {
            let message = format!("input[{index}]: {}", error.message);
            let code = Code::from_i32(error.code);
            Err(Status::with_details(
                code,
                message,
                error.encode_to_vec().into(),
            ))
        }
        None => Err(status::error(
            Code::Internal,
            "INTERNAL",
            "an input has no result",
        )),
    }
}

/// An error, as these tools expect it.
pub fn error(status: &Status) -> Response<Body> {
    let kind = match status.code() {
        Code::Unauthenticated => "authentication_error",
        Code::PermissionDenied => "permission_error",
        Code::ResourceExhausted => "rate_limit_error",
        Code::Unknown | Code::Internal | Code::DataLoss | Code::Unavailable => "server_error",
        _ => "invalid_request_error",
    };
    let body = json!({"error": {
        "message": status.message(),
        "type": kind,
        "param": null,
        "code": status::reason(status),
    }});
    let mut response = response::json(body.to_string().into_bytes());
    describe(status, &mut response);
    response
}
