//! How much memory decoding a message would take, found from its bytes alone.
//!
//! An empty element of a repeated field has two bytes on the wire and a hundred
//! or more in memory, so that a message within every limit on its size can fill
//! the memory before any of its fields is looked at. [`check`] walks the wire
//! format once, without allocating, adds up what each element will take by its
//! type, and refuses what passes [`allowed`].

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::LazyLock,
};

use prost::{
    Message as _,
    encoding::{WireType, decode_key, decode_varint},
};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

use crate::DESCRIPTORS;

/// Bytes of memory that each byte of a message may take.
pub const FACTOR: usize = 8;
/// Bytes that any message may take besides: short names and ids have more
/// overhead than content.
pub const ALLOWANCE: usize = 1 << 20;

/// Bytes that a message of `wire` bytes may take once decoded.
pub const fn allowed(wire: usize) -> usize {
    wire.saturating_mul(FACTOR).saturating_add(ALLOWANCE)
}

/// Why a message is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CostError {
    /// It would take too much memory.
    TooManyElements(Excess),
    /// It is not well-formed; prost's decoder says how.
    Malformed,
}

/// By how much a message passes its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    /// Its bytes on the wire.
    pub wire: usize,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the message of {} bytes has so many elements that decoding it would take over {} \
             bytes, its limit max_decoded_bytes = {FACTOR} times its bytes and {ALLOWANCE} more; \
             send fewer elements a message",
            self.wire,
            allowed(self.wire)
        )
    }
}

/// Whether decoding `bytes` as the message `name` ("package.Message") stays
/// within [`allowed`]. A message that is not in this crate's [`DESCRIPTORS`] is
/// let through.
///
/// # Errors
/// [`CostError`].
pub fn check(name: &str, bytes: &[u8]) -> Result<(), CostError> {
    let Some(&shape) = SHAPES.by_name.get(name) else {
        return Ok(());
    };
    let mut walk = Walk {
        left: allowed(bytes.len()),
        wire: bytes.len(),
    };
    walk.message(shape, bytes)
}

/// Bytes that decoding `bytes` as the message `name` takes, without what
/// vectors reserve to grow (at most as much again, and half of that while they
/// do). None where the message is malformed or not known.
pub fn cost(name: &str, bytes: &[u8]) -> Option<usize> {
    let shape = *SHAPES.by_name.get(name)?;
    let mut walk = Walk {
        left: usize::MAX,
        wire: bytes.len(),
    };
    walk.message(shape, bytes).ok()?;
    Some(usize::MAX - walk.left)
}

/// The largest message that [`check`] lets nest; prost stops at the same depth.
const DEPTH: usize = 100;

struct Walk {
    left: usize,
    wire: usize,
}

impl Walk {
    fn take(&mut self, bytes: usize) -> Result<(), CostError> {
        self.left = self
            .left
            .checked_sub(bytes)
            .ok_or(CostError::TooManyElements(Excess { wire: self.wire }))?;
        Ok(())
    }

    fn message(&mut self, shape: usize, bytes: &[u8]) -> Result<(), CostError> {
        self.nested(shape, bytes, DEPTH)
    }

    fn nested(&mut self, shape: usize, mut bytes: &[u8], depth: usize) -> Result<(), CostError> {
        let depth = depth.checked_sub(1).ok_or(CostError::Malformed)?;
        let shape = SHAPES.all.get(shape).ok_or(CostError::Malformed)?;
        while !bytes.is_empty() {
            let (number, wire) = decode_key(&mut bytes).map_err(|_| CostError::Malformed)?;
            let field = shape.fields.get(&number);
            match wire {
                WireType::Varint => {
                    decode_varint(&mut bytes).map_err(|_| CostError::Malformed)?;
                    self.take(field.map_or(0, |field| field.element))?;
                }
                WireType::ThirtyTwoBit | WireType::SixtyFourBit => {
                    let width = if wire == WireType::ThirtyTwoBit { 4 } else { 8 };
                    bytes = bytes.get(width..).ok_or(CostError::Malformed)?;
                    self.take(field.map_or(0, |field| field.element))?;
                }
                WireType::LengthDelimited => {
                    let length = decode_varint(&mut bytes).map_err(|_| CostError::Malformed)?;
                    let length = usize::try_from(length).map_err(|_| CostError::Malformed)?;
                    let (content, rest) =
                        bytes.split_at_checked(length).ok_or(CostError::Malformed)?;
                    bytes = rest;
                    if let Some(field) = field {
                        self.content(field, content, depth)?;
                    }
                }
                // Groups are not in proto3: prost skips them.
                WireType::StartGroup | WireType::EndGroup => {}
            }
        }
        Ok(())
    }

    fn content(&mut self, field: &Field, content: &[u8], depth: usize) -> Result<(), CostError> {
        match field.kind {
            Kind::Message(shape) => {
                self.take(field.element)?;
                self.nested(shape, content, depth)
            }
            Kind::Text => self.take(field.element.saturating_add(content.len())),
            Kind::Varint => {
                // Each value ends with the one byte whose top bit is clear.
                let values = content.iter().filter(|byte| **byte < 0x80).count();
                self.take(values.saturating_mul(field.element))
            }
            Kind::Fixed(width) => self.take((content.len() / width).saturating_mul(field.element)),
        }
    }
}

/// What a message is in memory.
struct Shape {
    fields: HashMap<u32, Field>,
}

struct Field {
    kind: Kind,
    /// What each element takes in a list or map; 0 for a field that is part
    /// of its message.
    element: usize,
}

#[derive(Clone, Copy)]
enum Kind {
    /// The index of its shape.
    Message(usize),
    Text,
    Varint,
    Fixed(usize),
}

struct Shapes {
    all: Vec<Shape>,
    by_name: HashMap<String, usize>,
}

static SHAPES: LazyLock<Shapes> = LazyLock::new(|| Shapes::read(DESCRIPTORS));

/// Bytes of a value of some type in memory, as prost lays it out: an upper
/// bound.
struct Layout<'a> {
    messages: HashMap<String, &'a DescriptorProto>,
}

const POINTER: usize = size_of::<usize>();
const STRING: usize = 3 * POINTER;
const BYTES: usize = 4 * POINTER;
const MAP: usize = 6 * POINTER;
/// What a map's table takes beside its entries: a control byte each, and a
/// seventh of it empty at the least.
const MAP_OVERHEAD: usize = 2;

impl Layout<'_> {
    fn value(&self, field: &FieldDescriptorProto, depth: usize) -> usize {
        match field.r#type() {
            Type::String => STRING,
            Type::Bytes => BYTES,
            Type::Double
            | Type::Int64
            | Type::Uint64
            | Type::Fixed64
            | Type::Sfixed64
            | Type::Sint64 => 8,
            Type::Bool => 1,
            Type::Message | Type::Group => self.message(field.type_name(), depth),
            Type::Float
            | Type::Int32
            | Type::Fixed32
            | Type::Uint32
            | Type::Enum
            | Type::Sfixed32
            | Type::Sint32 => 4,
        }
    }

    fn message(&self, name: &str, depth: usize) -> usize {
        let (Some(message), Some(depth)) = (self.messages.get(name), depth.checked_sub(1)) else {
            return POINTER;
        };
        // The fields of a oneof share their place.
        let mut shared: HashMap<i32, usize> = HashMap::new();
        let mut size = 0;
        for field in &message.field {
            let value = match field.label() {
                Label::Repeated if self.is_map(field) => MAP,
                Label::Repeated => STRING,
                _ if self.is_plain(field) => self.value(field, depth) + POINTER,
                _ => self.value(field, depth),
            };
            match field.oneof_index {
                Some(index) if !field.proto3_optional() => {
                    let place = shared.entry(index).or_default();
                    *place = value.max(*place);
                }
                _ if field.proto3_optional() => size += value + value.min(POINTER),
                _ => size += value,
            }
        }
        size += shared.values().map(|value| value + POINTER).sum::<usize>();
        size.next_multiple_of(POINTER)
    }

    /// Whether a message has numbers alone: then its `Option` needs a tag of its
    /// own, which a pointer's would share.
    fn is_plain(&self, field: &FieldDescriptorProto) -> bool {
        self.messages.get(field.type_name()).is_some_and(|message| {
            message.field.iter().all(|field| {
                field.label() != Label::Repeated
                    && !matches!(field.r#type(), Type::String | Type::Bytes | Type::Message)
            })
        })
    }

    fn is_map(&self, field: &FieldDescriptorProto) -> bool {
        self.messages
            .get(field.type_name())
            .and_then(|message| message.options.as_ref())
            .is_some_and(|options| options.map_entry())
    }
}

/// Every message of a file, with its full name (".package.Outer.Inner").
fn collect<'a>(
    messages: &mut HashMap<String, &'a DescriptorProto>,
    prefix: &str,
    of: &'a [DescriptorProto],
) {
    for message in of {
        let name = format!("{prefix}.{}", message.name());
        collect(messages, &name, &message.nested_type);
        messages.insert(name, message);
    }
}

impl Shapes {
    /// The shapes of a set of descriptors; none where it cannot be read.
    fn read(descriptors: &[u8]) -> Shapes {
        let set = FileDescriptorSet::decode(descriptors).unwrap_or_default();
        let mut layout = Layout {
            messages: HashMap::new(),
        };
        for file in &set.file {
            let package = match file.package() {
                "" => String::new(),
                package => format!(".{package}"),
            };
            collect(&mut layout.messages, &package, &file.message_type);
        }
        let names: Vec<&String> = layout.messages.keys().collect();
        let indices: HashMap<&str, usize> = names
            .iter()
            .enumerate()
            .map(|(index, name)| (name.as_str(), index))
            .collect();
        let all = names
            .iter()
            .filter_map(|name| layout.messages.get(*name))
            .map(|message| Shape {
                fields: message
                    .field
                    .iter()
                    .filter_map(|field| {
                        let number = u32::try_from(field.number()).ok()?;
                        Some((number, shape(&layout, &indices, field)))
                    })
                    .collect(),
            })
            .collect();
        let by_name = indices
            .iter()
            .map(|(name, index)| (name.trim_start_matches('.').to_owned(), *index))
            .collect();
        Shapes { all, by_name }
    }
}

fn shape(
    layout: &Layout<'_>,
    indices: &HashMap<&str, usize>,
    field: &FieldDescriptorProto,
) -> Field {
    let kind = match field.r#type() {
        Type::Message | Type::Group => match indices.get(field.type_name()) {
            Some(index) => Kind::Message(*index),
            None => Kind::Text,
        },
        Type::String | Type::Bytes => Kind::Text,
        Type::Double | Type::Fixed64 | Type::Sfixed64 => Kind::Fixed(8),
        Type::Float | Type::Fixed32 | Type::Sfixed32 => Kind::Fixed(4),
        _ => Kind::Varint,
    };
    let element = match field.label() {
        Label::Repeated if layout.is_map(field) => layout.value(field, DEPTH) * MAP_OVERHEAD,
        Label::Repeated => layout.value(field, DEPTH),
        // In its message; but of a oneof that is sent again and again, or a
        // message in a message, only the last one stays.
        _ => 0,
    };
    Field { kind, element }
}

/// Names of the messages that [`check`] knows.
pub fn known_messages() -> HashSet<&'static str> {
    SHAPES.by_name.keys().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{inference, v1};

    fn size_of_element(name: &str) -> usize {
        let set = FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors");
        let mut layout = Layout {
            messages: HashMap::new(),
        };
        for file in &set.file {
            let package = format!(".{}", file.package());
            collect(&mut layout.messages, &package, &file.message_type);
        }
        layout.message(name, DEPTH)
    }

    #[test]
    fn the_layout_is_an_upper_bound_and_not_a_wild_one() {
        for (name, real) in [
            (".tipserve.v1.ClassSpec", size_of::<v1::ClassSpec>()),
            (".tipserve.v1.Example", size_of::<v1::Example>()),
            (".tipserve.v1.Item", size_of::<v1::Item>()),
            (".tipserve.v1.Input", size_of::<v1::Input>()),
            (".tipserve.v1.LabelledItem", size_of::<v1::LabelledItem>()),
            (".tipserve.v1.CacheSpec", size_of::<v1::CacheSpec>()),
            (
                ".inference.ModelInferRequest.InferInputTensor",
                size_of::<inference::model_infer_request::InferInputTensor>(),
            ),
            (
                ".inference.ModelInferRequest.InferRequestedOutputTensor",
                size_of::<inference::model_infer_request::InferRequestedOutputTensor>(),
            ),
        ] {
            let bound = size_of_element(name);
            assert!(bound >= real, "{name}: {bound} is under {real}");
            assert!(bound <= 2 * real, "{name}: {bound} is far over {real}");
        }
    }

    /// Every repeated field of every request, at any depth: a megabyte of empty
    /// elements is refused, a few are not.
    #[test]
    fn every_repeated_field_of_every_request_is_counted() {
        let mut seen = 0;
        for name in known_messages() {
            let shape = SHAPES.by_name[name];
            for (number, field) in &SHAPES.all[shape].fields {
                if field.element < 2 * FACTOR {
                    continue;
                }
                let key = u8::try_from(number << 3 | 2).ok().filter(|key| *key < 0x80);
                let Some(key) = key else { continue };
                let element = [key, 0];
                if matches!(field.kind, Kind::Varint | Kind::Fixed(_)) {
                    continue;
                }
                seen += 1;
                assert_eq!(check(name, &element.repeat(100)), Ok(()), "{name}.{number}");
                assert!(
                    matches!(
                        check(name, &element.repeat(1 << 19)),
                        Err(CostError::TooManyElements(_))
                    ),
                    "{name}.{number} with elements of {} bytes",
                    field.element
                );
            }
        }
        assert!(seen > 20, "{seen}");
    }

    #[test]
    fn what_clients_send_passes() {
        let classes = |count: usize| v1::CreateCacheRequest {
            payload: Some(v1::create_cache_request::Payload::Spec(v1::CacheSpec {
                classes: (0..count)
                    .map(|index| v1::ClassSpec {
                        display_name: index.to_string(),
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            })),
        };
        let dark = inference::ModelInferRequest {
            inputs: vec![inference::model_infer_request::InferInputTensor {
                contents: Some(inference::InferTensorContents {
                    uint_contents: vec![0; 3 << 20],
                    ..Default::default()
                }),
                ..Default::default()
            }],
            ..Default::default()
        };
        let texts = v1::EmbedRequest {
            texts: vec!["cat".to_owned(); 10_000],
            ..Default::default()
        };
        for (name, bytes) in [
            (
                "tipserve.v1.CreateCacheRequest",
                classes(10).encode_to_vec(),
            ),
            (
                "tipserve.v1.CreateCacheRequest",
                classes(100_000).encode_to_vec(),
            ),
            ("inference.ModelInferRequest", dark.encode_to_vec()),
            ("tipserve.v1.EmbedRequest", texts.encode_to_vec()),
        ] {
            assert_eq!(check(name, &bytes), Ok(()), "{name}, {} bytes", bytes.len());
        }
    }

    #[test]
    fn what_is_malformed_is_left_to_the_decoder() {
        for bytes in [&[0x0a][..], &[0x0a, 0xff], &[0x0a, 5, 1], &[0x80; 12]] {
            assert_eq!(
                check("tipserve.v1.EmbedRequest", bytes),
                Err(CostError::Malformed),
                "{bytes:?}"
            );
        }
    }
}
