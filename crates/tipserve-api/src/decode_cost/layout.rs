//! What each message takes in memory, read from the descriptors.

use std::{collections::HashMap, sync::LazyLock};

use prost::Message as _;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet, MessageOptions,
    field_descriptor_proto::{Label, Type},
};

use super::DEPTH;
use crate::DESCRIPTORS;

/// What a message is in memory.
pub(super) struct Shape {
    pub fields: HashMap<u32, Field>,
}

pub(super) struct Field {
    pub kind: Kind,
    /// What each element takes in a list or map; 0 for a field that is part
    /// of its message.
    pub element: usize,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// The index of its shape.
    Message(usize),
    Text,
    Varint,
    Fixed(usize),
}

pub(super) struct Shapes {
    pub all: Vec<Shape>,
    pub by_name: HashMap<String, usize>,
}

pub(super) static SHAPES: LazyLock<Shapes> = LazyLock::new(|| Shapes::read(DESCRIPTORS));

/// Bytes of a value of some type in memory, as prost lays it out: an upper
/// bound.
pub(super) struct Layout<'a> {
    pub messages: HashMap<String, &'a DescriptorProto>,
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

    pub fn message(&self, name: &str, depth: usize) -> usize {
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
            .is_some_and(MessageOptions::map_entry)
    }
}

/// Every message of a file, with its full name (".package.Outer.Inner").
pub(super) fn collect<'a>(
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
    /// The shapes of a set of descriptors; none if it cannot be read.
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
                        Some((number, shape_of(&layout, &indices, field)))
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

fn shape_of(
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
