//! One call over HTTP: what its request says beside its body, and the gRPC
//! messages that its body becomes.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::sync::Semaphore;
use tonic::{Code, Status, body::Body};

use crate::{
    arrival::Arrival,
    bounds::Bounds,
    content::{Content, Picture},
    json::{JsonError, wire, write},
    query,
    rules::Rpc,
    status,
};

/// Largest JSON that is read where it arrives; what is larger would hold up
/// other work of the thread.
const INLINE: usize = 256 << 10;
/// Pieces of a file.
const PIECE: usize = 1 << 20;
/// How many large bodies are read at once.
static READERS: Semaphore = Semaphore::const_new(4);

/// A call, before its body is read.
#[derive(Clone, Debug)]
pub struct Call {
    /// The RPC.
    pub rpc: Arc<Rpc>,
    /// Fields from the query: the message's beginning, which the body overrides.
    query: Vec<u8>,
    /// Fields from the path: its end, which overrides the body.
    path: Vec<u8>,
    content: Content,
    /// The deadline.
    pub timeout: Option<Duration>,
}

impl Call {
    /// A call of `rpc`.
    ///
    /// # Errors
    /// A path, query or header that is not good.
    pub fn new(
        rpc: &Arc<Rpc>,
        has_body: bool,
        path: &[(&str, String)],
        query: &str,
        headers: &HeaderMap,
    ) -> Result<Call, Status> {
        let mut fields = Vec::new();
        for (name, value) in path {
            let way = query::resolve(&rpc.input, name).unwrap_or_default();
            query::put(name, &way, value, usize::MAX, &mut fields)?;
        }
        Ok(Call {
            rpc: Arc::clone(rpc),
            query: query::parse(&rpc.input, query)?,
            path: fields,
            content: match has_body {
                true => Content::of(rpc, headers)?,
                false => Content::Nothing,
            },
            timeout: timeout_of(headers)?,
        })
    }

    /// The call's request as gRPC messages, as its body arrives.
    pub fn messages(self: Arc<Self>, arrival: Arrival) -> Body {
        let reading = Reading {
            call: self,
            arrival,
            ready: VecDeque::new(),
            begun: false,
            ended: false,
        };
        let frames = stream::try_unfold(reading, |mut reading| async move {
            let message = reading.next().await?;
            Ok::<_, Status>(message.map(|message| (Frame::data(message), reading)))
        });
        Body::new(StreamBody::new(frames))
    }

    /// The message that a JSON object makes, with path and query where it is
    /// `merged` with them.
    fn message(&self, json: &[u8], merged: bool, limit: usize) -> Result<Vec<u8>, JsonError> {
        let mut out = Vec::new();
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

    /// The message that a picture makes.
    fn picture(&self, picture: &Picture, file: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.query.len() + self.path.len() + file.len() + 24);
        out.extend_from_slice(&self.query);
        put_picture(picture, file, &mut out);
        out.extend_from_slice(&self.path);
        out
    }
}

/// Appends a picture's file to a message.
fn put_picture(picture: &Picture, file: &[u8], out: &mut Vec<u8>) {
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

/// A request's body on its way into messages.
struct Reading {
    call: Arc<Call>,
    arrival: Arrival,
    ready: VecDeque<Vec<u8>>,
    begun: bool,
    ended: bool,
}

impl Reading {
    /// The next message, framed as gRPC frames it.
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        while self.ready.is_empty() {
            if self.ended {
                return Ok(None);
            }
            self.read().await?;
            self.begun = true;
        }
        self.ready
            .pop_front()
            .map(|message| self.frame(message))
            .transpose()
    }

    fn frame(&self, message: Vec<u8>) -> Result<Bytes, Status> {
        let bounds = self.arrival.bounds();
        let length = u32::try_from(message.len())
            .ok()
            .filter(|_| message.len() <= bounds.largest())
            .ok_or_else(|| bounds.too_large(message.len()))?;
        let mut frame = BytesMut::with_capacity(message.len() + 5);
        frame.put_u8(0);
        frame.put_u32(length);
        frame.extend_from_slice(&message);
        Ok(frame.freeze())
    }

    /// Reads what makes one or more messages.
    async fn read(&mut self) -> Result<(), Status> {
        match self.call.content.clone() {
            Content::Nothing => {
                self.ended = true;
                let message = self.json(Bytes::new(), true).await?;
                self.ready.push_back(message);
            }
            Content::Json => {
                self.ended = true;
                let json = self.arrival.whole().await?;
                let message = self.json(json, true).await?;
                self.ready.push_back(message);
            }
            Content::Picture(picture) => self.picture(&picture, false).await?,
            Content::JsonOrPicture(picture) => self.picture(&picture, true).await?,
            Content::Lines => self.line().await?,
            Content::File(field) => self.piece(field.number()).await?,
            Content::Form(_) => {
                return Err(status::error(
                    Code::InvalidArgument,
                    "CONTENT_TYPE_UNKNOWN",
                    "forms are not taken",
                ));
            }
        }
        Ok(())
    }

    /// The message that an object makes, with path and query where it is `merged`
    /// with them.
    fn json(
        &self,
        json: Bytes,
        merged: bool,
    ) -> impl Future<Output = Result<Vec<u8>, Status>> + Send + 'static {
        let limit = self.arrival.bounds().largest();
        read_json(Arc::clone(&self.call), json, merged, limit)
    }

    async fn picture(&mut self, picture: &Picture, or_json: bool) -> Result<(), Status> {
        self.ended = true;
        let file = self.arrival.whole().await?;
        let first = file.iter().find(|byte| !byte.is_ascii_whitespace());
        let message = match first {
            // No picture begins so.
            Some(b'{') | None if or_json => self.json(file, true).await?,
            _ => self.call.picture(picture, &file),
        };
        self.ready.push_back(message);
        Ok(())
    }

    async fn line(&mut self) -> Result<(), Status> {
        let line = self.arrival.line().await?;
        let message = match line {
            Some(line) => Some(self.json(line, false).await?),
            None => {
                self.ended = true;
                None
            }
        };
        let call = &self.call;
        let given = !call.query.is_empty() || !call.path.is_empty();
        if self.begun || !given {
            self.ready.extend(message);
            return Ok(());
        }
        // Path and query are the first message, or part of it.
        let own = [call.query.as_slice(), call.path.as_slice()].concat();
        match message {
            Some(first) if wire::first_field(&first) == wire::first_field(&own) => {
                let parts = [&call.query, &first, &call.path];
                self.ready.push_back(parts.map(Vec::as_slice).concat());
            }
            first => self.ready.extend(std::iter::once(own).chain(first)),
        }
        Ok(())
    }

    async fn piece(&mut self, field: u32) -> Result<(), Status> {
        if !self.begun {
            let mut first = Vec::new();
            let way = query::resolve(&self.call.rpc.input, "size_bytes");
            if let (Some(length), Some(way)) = (self.arrival.length(), way) {
                query::put(
                    "sizeBytes",
                    &way,
                    &length.to_string(),
                    usize::MAX,
                    &mut first,
                )?;
            }
            first.extend_from_slice(&self.call.query);
            first.extend_from_slice(&self.call.path);
            self.ready.push_back(first);
            return Ok(());
        }
        let most = PIECE.min(self.arrival.bounds().largest() / 2);
        match self.arrival.piece(most).await? {
            None => self.ended = true,
            Some(piece) => {
                let mut message = Vec::with_capacity(piece.len() + 8);
                wire::bytes(field, &piece, &mut message);
                self.ready.push_back(message);
            }
        }
        Ok(())
    }
}

async fn read_json(
    call: Arc<Call>,
    json: Bytes,
    merged: bool,
    limit: usize,
) -> Result<Vec<u8>, Status> {
    if json.len() <= INLINE {
        return Ok(call.message(&json, merged, limit)?);
    }
    let _turn = READERS.acquire().await;
    let reading = tokio::task::spawn_blocking(move || call.message(&json, merged, limit));
    let message = reading
        .await
        .map_err(|error| Status::internal(error.to_string()))?;
    Ok(message?)
}

/// Turns a request's body into messages, within bounds.
pub fn messages<B>(call: Arc<Call>, body: B, bounds: Arc<dyn Bounds>) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    call.messages(Arrival::new(body, bounds))
}
