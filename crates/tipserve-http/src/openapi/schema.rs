//! Messages and enums as JSON schemas.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{
    EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor,
    prost_types::source_code_info::Location,
};
use serde_json::{Map, Value, json};

/// The schemas that a document refers to.
#[derive(Default)]
pub struct Schemas {
    made: BTreeMap<String, Value>,
    begun: BTreeSet<String>,
}

/// A reference to a component.
pub fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

/// What a proto says of a thing, in one line.
pub fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let locations = info
        .map(|info| info.location.as_slice())
        .unwrap_or_default();
    let location = locations.iter().find(|location| location.path == path);
    let said = location.map(Location::leading_comments).unwrap_or_default();
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    lines.join(" ").trim().to_owned()
}

fn name_of(full_name: &str) -> String {
    full_name
        .strip_prefix("tipserve.v1.")
        .unwrap_or(full_name)
        .to_owned()
}

impl Schemas {
    /// Every schema that was referred to, by name.
    pub fn finish(self) -> BTreeMap<String, Value> {
        self.made
    }

    /// The schema of a message: a reference, or inline for well-known types.
    pub fn of(&mut self, message: &MessageDescriptor) -> Value {
        match message.full_name() {
            "google.protobuf.Duration" => {
                return json!({"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]{1,9})?s$"});
            }
            "google.protobuf.Timestamp" => {
                return json!({"type": "string", "format": "date-time"});
            }
            "google.protobuf.FieldMask" => {
                return json!({"type": "string", "description": "Fields, with commas."});
            }
            "google.protobuf.Empty" => return json!({"type": "object"}),
            "google.protobuf.Any" => {
                return json!({
                    "type": "object",
                    "properties": {"@type": {"type": "string"}},
                    "required": ["@type"],
                    "additionalProperties": true,
                });
            }
            _ => {}
        }
        let name = name_of(message.full_name());
        if self.begun.insert(name.clone()) {
            let schema = self.message(message);
            self.made.insert(name.clone(), schema);
        }
        reference("schemas", &name)
    }

    fn message(&mut self, message: &MessageDescriptor) -> Value {
        let mut properties = Map::new();
        for field in message.fields() {
            let mut schema = self.value(&field);
            let said = comment(&message.parent_file(), field.path());
            if !said.is_empty()
                && let Some(schema) = schema.as_object_mut()
            {
                schema.insert("description".to_owned(), said.into());
            }
            properties.insert(field.json_name().to_owned(), schema);
        }
        json!({
            "type": "object",
            "description": comment(&message.parent_file(), message.path()),
            "properties": properties,
        })
    }

    /// The schema of a field's value.
    pub fn value(&mut self, field: &FieldDescriptor) -> Value {
        if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
            let value = entry
                .get_field(2)
                .map_or(json!({}), |value| self.value(&value));
            return json!({"type": "object", "additionalProperties": value});
        }
        let one = self.kind(&field.kind());
        match field.is_list() {
            true => json!({"type": "array", "items": one}),
            false => one,
        }
    }

    fn kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Double => json!({"type": "number", "format": "double"}),
            Kind::Float => json!({"type": "number", "format": "float"}),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                json!({"type": "integer", "format": "int32"})
            }
            Kind::Uint32 | Kind::Fixed32 => {
                json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": u32::MAX})
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"})
            }
            Kind::Uint64 | Kind::Fixed64 => {
                json!({"type": "string", "format": "uint64", "pattern": "^[0-9]+$"})
            }
            Kind::Bool => json!({"type": "boolean"}),
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Kind::Enum(values) => self.names(values),
            Kind::Message(message) => self.of(message),
        }
    }

    fn names(&mut self, values: &EnumDescriptor) -> Value {
        let name = name_of(values.full_name());
        if self.begun.insert(name.clone()) {
            let file = values.parent_file();
            let said: Vec<String> = values
                .values()
                .map(|value| format!("`{}`: {}", value.name(), comment(&file, value.path())))
                .collect();
            let about = comment(&file, values.path());
            let names: Vec<String> = values.values().map(|v| v.name().to_owned()).collect();
            let schema = json!({
                "type": "string",
                "enum": names,
                "description": format!("{about}\n\n{}", said.join("\n\n")),
            });
            self.made.insert(name.clone(), schema);
        }
        reference("schemas", &name)
    }
}
