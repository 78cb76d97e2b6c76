//! gRPC's answer to a call as HTTP's: one JSON object, lines, events, or a file.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
};

use bytes::{Buf as _, Bytes, BytesMut};
use futures::stream;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Body as HttpBody, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use tonic::{Code, Status, body::Body};

use crate::{
    call::Asked,
    dialect::{Dialect, Shape},
    embeddings,
    errors::Errors,
    inference,
    json::{self, Style},
    media::Media,
    response::{JSON, json, with_type},
    rules::Rpc,
    status,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// How a call is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// One JSON object, for a call with one answer.
    Json,
    /// A JSON object a line.
    Lines,
    /// Server-sent events, one for each answer.
    Events,
    /// The bytes of a file, which the answers carry in this field.
    File(FieldDescriptor),
    /// The file, if the one answer is one.
    Media(Media),
}

impl Form {
    /// How a call of `rpc` is answered, by the client's `Accept`.
    pub fn of(rpc: &Rpc, headers: &HeaderMap) -> Form {
        if !rpc.descriptor.is_server_streaming() {
            let media = Media::of(&rpc.output).filter(|_| Media::is_wanted(headers));
            return media.map_or(Form::Json, Form::Media);
        }
        let accepts = |kind: &str| accepts(headers, kind);
        let chunk = rpc.output.get_field_by_name("chunk");
        match chunk.filter(|field| field.kind() == Kind::Bytes) {
            Some(field) if accepts("application/octet-stream") => Form::File(field),
            _ if accepts("text/event-stream") => Form::Events,
            _ => Form::Lines,
        }
    }

    fn content_type(&self) -> &'static str {
        match self {
            Form::Json => JSON,
            Form::Lines => "application/x-ndjson",
            Form::Events => "text/event-stream",
            Form::File(_) | Form::Media(_) => "application/octet-stream",
        }
    }
}

fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let mut values = headers.get_all(header::ACCEPT).iter();
    values.any(|value| value.to_str().is_ok_and(|value| value.contains(kind)))
}

/// How answers are written as JSON, by the client's `Accept`.
pub fn style_of(headers: &HeaderMap) -> Style {
    match accepts(headers, "floats=base64") {
        true => Style::Packed,
        false => Style::Proto,
    }
}

/// The next part of a gRPC answer.
enum Next {
    Message(Bytes),
    End(Status),
}

/// The messages of a gRPC answer.
struct Messages {
    body: Pin<Box<dyn HttpBody<Data = Bytes, Error = Error> + Send>>,
    buffer: BytesMut,
}

impl Messages {
    fn new<R>(body: R) -> Messages
    where
        R: HttpBody<Data = Bytes> + Send + 'static,
        R::Error: Into<Error>,
    {
        Messages {
            body: Box::pin(body.map_err(Into::into)),
            buffer: BytesMut::new(),
        }
    }

    async fn next(&mut self) -> Next {
        loop {
            if let Some(message) = self.take() {
                return Next::Message(message);
            }
            match self.body.frame().await {
                None => return Next::End(Status::internal("the answer has no end")),
                Some(Err(error)) => return Next::End(Status::from_error(error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if self.buffer.is_empty() && is_one_message(&data) => {
                        return Next::Message(data.slice(5..));
                    }
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        let status = Status::from_header_map(&trailers);
                        return Next::End(status.unwrap_or_else(|| Status::ok("")));
                    }
                },
            }
        }
    }

    /// A whole message, if there is one: a flag (no message is compressed, as
    /// the request accepts no compression), four bytes of length, then the
    /// message.
    fn take(&mut self) -> Option<Bytes> {
        let mut header = self.buffer.get(1..5)?;
        let length = header.get_u32() as usize;
        if self.buffer.len() < 5 + length {
            return None;
        }
        self.buffer.advance(5);
        Some(self.buffer.split_to(length).freeze())
    }
}

/// Whether these bytes are one message, which then need not be copied.
fn is_one_message(data: &Bytes) -> bool {
    let header = data.get(1..5);
    header.is_some_and(|mut header| header.get_u32() as usize + 5 == data.len())
}

/// Turns answers of one RPC into HTTP's.
#[derive(Clone, Debug)]
pub struct Answering {
    /// The message that the RPC answers with.
    pub output: MessageDescriptor,
    /// How its answers are written.
    pub form: Form,
    /// How messages are written as JSON.
    pub style: Style,
    /// How errors are written as JSON.
    pub errors: Arc<Errors>,
    /// How the answer is written.
    pub dialect: Dialect,
    /// What the body asked for.
    pub asked: Arc<OnceLock<Asked>>,
    /// The request's id, once the call's layers have told it.
    pub id: Option<HeaderValue>,
}

impl Answering {
    /// The response to a call, once its beginning is known.
    pub async fn answer<R>(mut self, response: Response<R>) -> Response<Body>
    where
        R: HttpBody<Data = Bytes> + Send + 'static,
        R::Error: Into<Error>,
    {
        let (parts, body) = response.into_parts();
        self.id = parts.headers.get(crate::REQUEST_ID).cloned();
        let mut answer = match Status::from_header_map(&parts.headers) {
            // Without a body, the status is in the headers.
            Some(status) => self.error(&status),
            None => self.begin(Messages::new(body)).await,
        };
        // What the layers of the call know of it, the layers around this one do.
        answer.extensions_mut().extend(parts.extensions);
        if let Some(id) = parts.headers.get(crate::REQUEST_ID) {
            answer.headers_mut().insert(crate::REQUEST_ID, id.clone());
        }
        answer
    }

    async fn begin(self, mut messages: Messages) -> Response<Body> {
        let first = match messages.next().await {
            Next::Message(first) => Some(first),
            Next::End(status) if status.code() == Code::Ok => None,
            Next::End(status) => return self.error(&status),
        };
        if matches!(self.form, Form::Json | Form::Media(_)) {
            return self.whole(first.unwrap_or_default(), messages).await;
        }
        let form = self.form.clone();
        let length = match &form {
            Form::File(_) => first.as_deref().and_then(|first| self.file_length(first)),
            _ => None,
        };
        let begun = Streaming {
            ended: first.is_none(),
            answering: self,
            messages,
            ready: first,
        };
        let frames = stream::try_unfold(begun, |mut streaming| async move {
            let next = streaming.next().await?;
            Ok::<_, Status>(next.map(|bytes| (Frame::data(bytes), streaming)))
        });
        let body = Response::new(Body::new(StreamBody::new(frames)));
        let mut response = with_type(body, form.content_type());
        if let Some(length) = length {
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, length.into());
        }
        response
    }

    /// The answer of a unary call, once it is known to have succeeded.
    async fn whole(&self, message: Bytes, mut messages: Messages) -> Response<Body> {
        if let Next::End(status) = messages.next().await
            && status.code() != Code::Ok
        {
            return self.error(&status);
        }
        if let Form::Media(media) = &self.form {
            let file = media.response(&message).map_err(|error| broken(&error));
            return file.unwrap_or_else(|status| self.error(&status));
        }
        let shown = match (self.dialect, self.asked.get()) {
            (Dialect::Inference(Shape::Tensors), Some(Asked::Tensors(binary))) => {
                inference::infer(&message, binary).map_err(|error| broken(&error))
            }
            (Dialect::Embeddings, Some(Asked::Embeddings(asked))) => {
                embeddings::answer(&message, asked)
            }
            (Dialect::Inference(shape), _) => {
                inference::plain(&self.output, &message, shape).map_err(|error| broken(&error))
            }
            _ => self.proto(&message),
        };
        shown.unwrap_or_else(|status| self.error(&status))
    }

    fn proto(&self, message: &[u8]) -> Result<Response<Body>, Status> {
        let mut out = Vec::with_capacity(message.len() * 2);
        json::render(&self.output, message, self.style, &mut out)
            .map_err(|error| broken(&error))?;
        Ok(json(out))
    }

    fn error(&self, status: &Status) -> Response<Body> {
        match &self.id {
            Some(id) => (self.errors).of(self.dialect, &status::with_request(status, id)),
            None => self.errors.of(self.dialect, status),
        }
    }

    /// The file's size, from the header of its answers.
    fn file_length(&self, first: &[u8]) -> Option<u64> {
        let message = DynamicMessage::decode(self.output.clone(), first).ok()?;
        let header = message.get_field_by_name("header")?;
        let size = header.as_message()?.get_field_by_name("size_bytes")?;
        size.as_i64().and_then(|size| u64::try_from(size).ok())
    }
}

fn broken(error: &str) -> Status {
    tracing::error!(error, "an answer cannot be shown as JSON");
    status::error(
        Code::Internal,
        "INTERNAL",
        "the answer cannot be shown as JSON",
    )
}

/// An answer of many messages, in progress.
struct Streaming {
    answering: Answering,
    messages: Messages,
    ready: Option<Bytes>,
    ended: bool,
}

impl Streaming {
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.ready.take() {
                let shown = self.show(&message)?;
                if !shown.is_empty() {
                    return Ok(Some(shown));
                }
            }
            if self.ended {
                return Ok(None);
            }
            match self.messages.next().await {
                Next::Message(message) => self.ready = Some(message),
                Next::End(status) => {
                    self.ended = true;
                    return self.end(&status);
                }
            }
        }
    }

    fn show(&self, message: &Bytes) -> Result<Bytes, Status> {
        let output = &self.answering.output;
        let mut out = Vec::with_capacity(2 * message.len() + 16);
        let shown = |out: &mut Vec<u8>| {
            json::render(output, message, self.answering.style, out).map_err(|error| broken(&error))
        };
        match &self.answering.form {
            Form::File(field) => {
                let message = DynamicMessage::decode(output.clone(), message.clone())
                    .map_err(|error| broken(&error.to_string()))?;
                let chunk = message.get_field(field);
                return Ok(chunk.as_bytes().cloned().unwrap_or_default());
            }
            Form::Events => {
                out.extend_from_slice(b"data: ");
                shown(&mut out)?;
                out.extend_from_slice(b"\n\n");
            }
            Form::Lines | Form::Json | Form::Media(_) => {
                shown(&mut out)?;
                out.push(b'\n');
            }
        }
        Ok(out.into())
    }

    /// How a client that already has the answer's beginning learns of an error.
    fn end(&self, status: &Status) -> Result<Option<Bytes>, Status> {
        let failed = status.code() != Code::Ok;
        let error = || self.answering.errors.json(status);
        Ok(match &self.answering.form {
            // An incomplete file must not look complete: the connection breaks.
            Form::File(_) if failed => return Err(status.clone()),
            Form::Events if failed => Some(
                [b"event: error\ndata: ", error().as_slice(), b"\n\n"]
                    .concat()
                    .into(),
            ),
            Form::Events => Some(Bytes::from_static(b"event: end\ndata: {}\n\n")),
            Form::Lines if failed => {
                Some([b"{\"error\":", error().as_slice(), b"}\n"].concat().into())
            }
            _ => None,
        })
    }
}
