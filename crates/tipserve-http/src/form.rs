//! Forms (`multipart/form-data`), part by part as they arrive.

use std::{
    collections::HashSet,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use multer::Multipart;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use tonic::{Code, Status};

use crate::{
    arrival::{Arrival, Reservation},
    bounds::Bounds,
    content::Picture,
    json::{JsonError, wire},
    query::{self, Singular},
    status,
};

/// A part of a form.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The part's name, from its `Content-Disposition`.
    pub name: String,
    /// The name of its file; none if the part is a field and not a picture.
    pub file: Option<String>,
    /// The part's bytes, all of them.
    pub data: Bytes,
}

impl Part {
    /// Roughly the bytes that it holds.
    pub fn size(&self) -> usize {
        let file = self.file.as_ref().map_or(0, String::len);
        // In addition to names and data, the pointers to them.
        self.name.len() + file + self.data.len() + 128
    }
}

/// Most bytes that the parser may hold before it finds where a part begins or
/// its headers end. A connection may deliver some hundred KiB at a time.
const MOST_KEPT: usize = 1 << 20;

/// A form, read part by part as its body arrives.
pub struct Form {
    parts: Multipart<'static>,
    /// Whether the parser needs more bytes.
    hungry: Arc<AtomicBool>,
    bounds: Arc<dyn Bounds>,
    reservation: Reservation,
    read: Arc<Read>,
    length: Option<usize>,
}

/// What has been read of a form.
#[derive(Default)]
struct Read {
    /// Bytes since the parser last handed something out: what it holds.
    kept: AtomicUsize,
    /// The number of the present message: a part, or the whole form.
    message: AtomicUsize,
}

/// The bytes of a form, for a parser that would take all there are before it
/// looks at any of them: it gets the next ones only when it is out of bytes.
struct Fed {
    bytes: BoxStream<'static, Result<Bytes, Status>>,
    hungry: Arc<AtomicBool>,
}

impl Stream for Fed {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.hungry.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let next = self.bytes.poll_next_unpin(task);
        if next.is_ready() {
            self.hungry.store(false, Ordering::Relaxed);
        }
        next
    }
}

/// Polls the parser, and feeds it while it waits for nothing but bytes.
async fn feeding<T>(hungry: &AtomicBool, mut parse: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    poll_fn(|task| {
        loop {
            if let Poll::Ready(parsed) = parse(task) {
                return Poll::Ready(parsed);
            }
            // Still unfed: the body has no bytes yet, and will wake the task.
            if hungry.swap(true, Ordering::Relaxed) {
                return Poll::Pending;
            }
        }
    })
    .await
}

impl Form {
    /// Reads a body as a form.
    pub fn new(arrival: Arrival, boundary: &str) -> Form {
        let bounds = Arc::clone(arrival.bounds());
        let length = arrival.length();
        let read = Arc::new(Read::default());
        let counts = Arc::clone(&read);
        let parser = Reservation::new(Arc::clone(&bounds));
        let bytes = stream::try_unfold(
            (arrival, parser, 0),
            move |(mut arrival, mut parser, seen)| {
                let counts = Arc::clone(&counts);
                async move {
                    let message = counts.message.load(Ordering::Relaxed);
                    if message != seen {
                        arrival.next_message();
                    }
                    let Some(bytes) = arrival.bytes().await? else {
                        return Ok::<_, Status>(None);
                    };
                    let kept = counts.kept.fetch_add(bytes.len(), Ordering::Relaxed);
                    let largest = arrival.bounds().largest();
                    match kept {
                        0 => parser.release(),
                        _ if kept + bytes.len() > MOST_KEPT.min(2 * largest) => {
                            return Err(endless());
                        }
                        _ => {}
                    }
                    let most = MOST_KEPT.min(largest);
                    parser.reserve((kept + bytes.len()).min(most), most).await?;
                    Ok(Some((bytes, (arrival, parser, message))))
                }
            },
        );
        let hungry = Arc::new(AtomicBool::new(false));
        let fed = Fed {
            bytes: Box::pin(bytes),
            hungry: Arc::clone(&hungry),
        };
        Form {
            parts: Multipart::new(fed, boundary),
            hungry,
            reservation: Reservation::new(Arc::clone(&bounds)),
            bounds,
            read,
            length,
        }
    }

    /// Reserves all of the form, for methods that take it as one message.
    ///
    /// # Errors
    /// If it is over the limit, or no bytes came free in time.
    pub async fn reserve_whole(&mut self) -> Result<(), Status> {
        let whole = self.length.unwrap_or(self.bounds.largest());
        self.reservation.reserve(whole, whole).await
    }

    /// The next part. The last one's reservation is given back, unless the
    /// whole form is reserved.
    ///
    /// # Errors
    /// A malformed form, or one over a bound.
    pub async fn next(&mut self, is_whole: bool) -> Result<Option<Part>, Status> {
        if !is_whole {
            self.reservation.release();
            self.read.message.fetch_add(1, Ordering::Relaxed);
        }
        let Some(mut field) = feeding(&self.hungry, |task| self.parts.poll_next_field(task))
            .await
            .map_err(broken)?
        else {
            return Ok(None);
        };
        self.read.kept.store(0, Ordering::Relaxed);
        let name = field.name().unwrap_or_default().to_owned();
        let kind = field.content_type().map(|kind| kind.type_().as_str());
        let file = match (field.file_name(), kind) {
            (Some(file), _) => Some(file.to_owned()),
            (None, Some("image")) => Some(String::new()),
            (None, _) => None,
        };
        let mut data = BytesMut::new();
        while let Some(chunk) = feeding(&self.hungry, |task| field.poll_next_unpin(task))
            .await
            .transpose()
            .map_err(broken)?
        {
            self.read.kept.store(0, Ordering::Relaxed);
            data.extend_from_slice(&chunk);
            let largest = self.bounds.largest();
            self.reservation.reserve(data.len(), largest).await?;
        }
        Ok(Some(Part {
            name,
            file,
            data: data.freeze(),
        }))
    }
}

/// The refusal of a form whose parser would have to hold ever more.
fn endless() -> Status {
    let message = format!(
        "the form cannot be read: after {MOST_KEPT} bytes there is no boundary, or no end to the \
         headers of a part"
    );
    status::error(Code::InvalidArgument, "FORM_INVALID", message)
}

/// A form's error: a bound's, where the parser passed one on, or its own.
fn broken(error: multer::Error) -> Status {
    match error {
        multer::Error::StreamReadFailed(inner) => match inner.downcast::<Status>() {
            Ok(status) => *status,
            Err(other) => Status::from_error(other),
        },
        other => {
            let message = format!("the form cannot be read: {other}");
            status::error(Code::InvalidArgument, "FORM_INVALID", message)
        }
    }
}

/// What is said of a part that is neither a picture nor a field.
const NO_FIELD: &str =
    "there is no such field; a picture is a part with a file name (curl -F NAME=@FILE)";

/// Appends the field that a part is.
///
/// # Errors
/// A part that is not a field of the message, is there twice, or has an invalid value.
pub fn put_field(
    message: &MessageDescriptor,
    part: &Part,
    limit: usize,
    singular: &mut Singular,
    out: &mut Vec<u8>,
) -> Result<(), Status> {
    let way = query::resolve(message, &part.name)
        .ok_or_else(|| JsonError::field(&part.name, NO_FIELD))?;
    singular.take(&part.name, &way)?;
    let text = str::from_utf8(&part.data)
        .map_err(|_| JsonError::field(&part.name, "it is neither a picture nor text"))?;
    query::put(&part.name, &way, text, limit, out)?;
    Ok(())
}

/// Where a streamed request takes pictures: `examples.examples[].input`.
#[derive(Clone, Debug)]
pub struct Batch {
    batch: FieldDescriptor,
    list: FieldDescriptor,
    id: FieldDescriptor,
    class_name: Option<FieldDescriptor>,
    picture: Picture,
}

impl Batch {
    /// Where the messages of a method take pictures, if they do.
    pub fn of(message: &MessageDescriptor) -> Option<Batch> {
        message.fields().find_map(|batch| {
            let Kind::Message(within) = batch.kind() else {
                return None;
            };
            let list = within.fields().find(FieldDescriptor::is_list)?;
            let Kind::Message(element) = list.kind() else {
                return None;
            };
            let id = element
                .get_field_by_name("id")
                .or_else(|| element.get_field_by_name("example_id"))?;
            Some(Batch {
                batch,
                list,
                id,
                class_name: element.get_field_by_name("class_name"),
                picture: Picture::of(&element)?,
            })
        })
    }

    /// Whether its pictures have classes.
    pub fn has_classes(&self) -> bool {
        self.class_name.is_some()
    }

    /// The field of the input.
    pub fn input(&self) -> &FieldDescriptor {
        &self.picture.input
    }

    /// The message with one picture.
    pub fn picture(&self, id: &str, class: &str, file: &[u8]) -> Vec<u8> {
        let size = file.len();
        self.message(id, class, size, |out| {
            wire::bytes(self.picture.file.number(), file, out);
        })
    }

    /// The message with one input, whose fields `put` appends: about this many
    /// bytes.
    pub fn message(
        &self,
        id: &str,
        class: &str,
        size: usize,
        put: impl FnOnce(&mut Vec<u8>),
    ) -> Vec<u8> {
        type Never = std::convert::Infallible;
        let mut out = Vec::with_capacity(size + id.len() + 40);
        let Ok(()) = wire::delimited(self.batch.number(), &mut out, |out| {
            wire::delimited(self.list.number(), out, |out| {
                wire::bytes(self.id.number(), id.as_bytes(), out);
                if let Some(field) = &self.class_name {
                    wire::bytes(field.number(), class.as_bytes(), out);
                }
                wire::delimited(self.picture.input.number(), out, |out| {
                    put(out);
                    Ok::<(), Never>(())
                })
            })
        });
        out
    }
}

/// The classes of a specification: where they stand, and their names so far.
#[derive(Clone, Debug)]
pub struct Classes {
    spec: FieldDescriptor,
    classes: FieldDescriptor,
    name: FieldDescriptor,
}

impl Classes {
    /// Where a method's first message has its classes, if it makes them all.
    pub fn of(message: &MessageDescriptor) -> Option<Classes> {
        let spec = message.get_field_by_name("spec")?;
        let Kind::Message(within) = spec.kind() else {
            return None;
        };
        let classes = within.get_field_by_name("classes")?;
        let Kind::Message(class) = classes.kind() else {
            return None;
        };
        let name = class.get_field_by_name("display_name")?;
        Some(Classes {
            spec,
            classes,
            name,
        })
    }

    /// The names that a first message has: each once, and read without decoding it,
    /// since it may be all empty classes, of which each takes a hundred times its bytes.
    pub fn names(&self, message: &[u8]) -> HashSet<String> {
        wire::each(message, self.spec.number())
            .flat_map(|spec| wire::each(spec, self.classes.number()))
            .map(|class| {
                wire::each(class, self.name.number())
                    .last()
                    .unwrap_or_default()
            })
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect()
    }

    /// Appends a class to a first message.
    pub fn put(&self, name: &str, out: &mut Vec<u8>) {
        let Ok(()) = wire::delimited(self.spec.number(), out, |out| {
            wire::delimited(self.classes.number(), out, |out| {
                wire::bytes(self.name.number(), name.as_bytes(), out);
                Ok::<(), std::convert::Infallible>(())
            })
        });
    }
}

#[cfg(test)]
mod tests;
