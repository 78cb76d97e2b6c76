//! Turns a request's body into gRPC messages, one at a time and no faster than
//! they are taken.

use std::{collections::VecDeque, sync::Arc};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::sync::Semaphore;
use tonic::{Code, Status, body::Body};

use crate::{
    arrival::Arrival,
    bounds::Bounds,
    call::{Asked, Call},
    content::{Content, Picture},
    embeddings,
    form_messages::FormReading,
    inference,
    json::{wire, without_mark},
    npy, query, status,
};

/// Largest JSON that is read on the thread where it arrives; a larger one would
/// hold up the thread's other work.
const INLINE: usize = 256 << 10;
/// Bytes of a file in one message.
const PIECE: usize = 1 << 20;
/// How many large bodies are read at once.
static READERS: Semaphore = Semaphore::const_new(4);

/// Turns a request's body into messages, within bounds.
pub fn messages<B>(call: Arc<Call>, body: B, bounds: Arc<dyn Bounds>) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let arrival = Arrival::new(body, Arc::clone(&bounds));
    let source = match &call.content {
        Content::Form(boundary) => {
            Source::Form(Box::new(FormReading::new(&call, arrival, boundary)))
        }
        _ => Source::Plain(arrival),
    };
    let reading = Reading {
        call,
        bounds,
        source,
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

struct Reading {
    call: Arc<Call>,
    bounds: Arc<dyn Bounds>,
    source: Source,
    ready: VecDeque<Vec<u8>>,
    begun: bool,
    ended: bool,
}

enum Source {
    Plain(Arrival),
    Form(Box<FormReading>),
}

impl Reading {
    /// The next message, framed as gRPC frames it.
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        while self.ready.is_empty() {
            if self.ended {
                return Ok(None);
            }
            match &mut self.source {
                Source::Plain(arrival) => {
                    let (messages, ended) = plain(&self.call, arrival, self.begun).await?;
                    self.ready.extend(messages);
                    self.ended = ended;
                }
                Source::Form(form) => {
                    self.ended = form.read(&mut self.ready).await?;
                }
            }
            self.begun = true;
        }
        let message = self.ready.pop_front();
        message.map(|message| self.frame(&message)).transpose()
    }

    fn frame(&self, message: &[u8]) -> Result<Bytes, Status> {
        let length = u32::try_from(message.len())
            .ok()
            .filter(|_| message.len() <= self.bounds.largest())
            .ok_or_else(|| self.bounds.too_large(message.len()))?;
        let mut frame = BytesMut::with_capacity(message.len() + 5);
        frame.put_u8(0);
        frame.put_u32(length);
        frame.extend_from_slice(message);
        Ok(frame.freeze())
    }
}

/// The next messages of a body that is not a form, and whether they are the
/// last.
async fn plain(
    call: &Arc<Call>,
    arrival: &mut Arrival,
    begun: bool,
) -> Result<(Vec<Vec<u8>>, bool), Status> {
    let limit = arrival.bounds().largest();
    Ok(match &call.content {
        Content::Nothing => (vec![call.message(&[], true, limit)?], true),
        Content::Json => {
            let json = arrival.whole().await?;
            (vec![read_json(call, json, true, limit).await?], true)
        }
        Content::Picture(picture) => {
            let file = arrival.whole().await?;
            (vec![whole_picture(call, picture, &file)?], true)
        }
        Content::JsonOrPicture(picture) => {
            let body = arrival.whole().await?;
            let messages = match is_json(&body) {
                true => vec![read_json(call, body, true, limit).await?],
                false if body.starts_with(npy::MAGIC) => npy::messages(call, &body, limit)?,
                false => vec![whole_picture(call, picture, &body)?],
            };
            (messages, true)
        }
        Content::Array => {
            let file = arrival.whole().await?;
            (npy::messages(call, &file, limit)?, true)
        }
        Content::Lines => line(call, arrival, begun, limit).await?,
        Content::File(field) => piece(call, arrival, begun, field.number()).await?,
        Content::Tensors(length) => {
            let (length, call) = (*length, Arc::clone(call));
            let body = arrival.whole().await?;
            let message = off_thread(body.len(), move || {
                let (message, binary) = inference::read(&body, length)?;
                let _ = call.asked.set(Asked::Tensors(binary));
                Ok(call.around(&message))
            });
            (vec![message.await?], true)
        }
        Content::Parameters => {
            let message = inference::read_parameters(&arrival.whole().await?)?;
            (vec![call.around(&message)], true)
        }
        Content::Embeddings => {
            let call = Arc::clone(call);
            let body = arrival.whole().await?;
            let message = off_thread(body.len(), move || {
                let (message, asked) = embeddings::read(&body)?;
                let _ = call.asked.set(Asked::Embeddings(asked));
                Ok(message)
            });
            (vec![message.await?], true)
        }
        // It has a reader of its own.
        Content::Form(_) => (Vec::new(), true),
    })
}

/// The message of a picture's file.
///
/// # Errors
/// A file that `curl -d` has sent, which leaves out line ends and zeros: no
/// picture of this size is without any.
fn whole_picture(call: &Call, picture: &Picture, file: &[u8]) -> Result<Vec<u8>, Status> {
    const SOME: usize = 4 << 10;
    let is_text = str::from_utf8(file.get(..64).unwrap_or_default()).is_ok();
    let left_out = |byte: &u8| matches!(byte, b'\n' | b'\r' | 0);
    if file.len() >= SOME && !is_text && !file.iter().any(left_out) {
        let problem = "the file has no line ends and no zeros: curl leaves them out of what -d \
                       sends, so send it with --data-binary";
        return Err(status::error(
            Code::InvalidArgument,
            "PICTURE_TRUNCATED",
            problem,
        ));
    }
    Ok(call.picture(picture, file))
}

/// Whether a body is JSON, or nothing: no picture's file begins with a brace.
fn is_json(body: &[u8]) -> bool {
    let text = without_mark(body);
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    matches!(first, None | Some(b'{'))
}

async fn read_json(
    call: &Arc<Call>,
    json: Bytes,
    merged: bool,
    limit: usize,
) -> Result<Vec<u8>, Status> {
    let call = Arc::clone(call);
    off_thread(json.len(), move || Ok(call.message(&json, merged, limit)?)).await
}

/// Reads a body of this many bytes, on a thread of its own if they are many.
async fn off_thread(
    bytes: usize,
    read: impl FnOnce() -> Result<Vec<u8>, Status> + Send + 'static,
) -> Result<Vec<u8>, Status> {
    if bytes <= INLINE {
        return read();
    }
    // Moved into the task, which goes on if nobody waits for it any more.
    let turn = READERS.acquire().await;
    let reading = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        read()
    });
    let reading = reading.await;
    reading.map_err(|error| Status::internal(error.to_string()))?
}

async fn line(
    call: &Arc<Call>,
    arrival: &mut Arrival,
    begun: bool,
    limit: usize,
) -> Result<(Vec<Vec<u8>>, bool), Status> {
    let message = match arrival.line().await? {
        Some(line) => Some(read_json(call, line, false, limit).await?),
        None => None,
    };
    let ended = message.is_none();
    if begun || !call.has_fields() {
        return Ok((message.into_iter().collect(), ended));
    }
    // Path and query are the first message, or part of it.
    let own = call.fields();
    let messages = match message {
        Some(first) if wire::first_field(&first) == wire::first_field(&own) => {
            vec![call.around(&first)]
        }
        first => std::iter::once(own).chain(first).collect(),
    };
    Ok((messages, ended))
}

async fn piece(
    call: &Arc<Call>,
    arrival: &mut Arrival,
    begun: bool,
    field: u32,
) -> Result<(Vec<Vec<u8>>, bool), Status> {
    if !begun {
        let mut first = Vec::new();
        let way = query::resolve(&call.rpc.input, "size_bytes");
        if let (Some(length), Some(way)) = (arrival.length(), way) {
            let length = length.to_string();
            query::put("sizeBytes", &way, &length, usize::MAX, &mut first)?;
        }
        first.extend_from_slice(&call.fields());
        return Ok((vec![first], false));
    }
    let most = PIECE.min(arrival.bounds().largest() / 2);
    Ok(match arrival.piece(most).await? {
        None => (Vec::new(), true),
        Some(piece) => {
            let mut message = Vec::with_capacity(piece.len() + 8);
            wire::bytes(field, &piece, &mut message);
            (vec![message], false)
        }
    })
}
