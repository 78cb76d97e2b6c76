//! JSON to the wire format, written while it is read: no tree of values is
//! made, so that memory is bounded by the message that comes of it.

use std::fmt;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::{
    JsonError, numbers,
    reader::{Reader, Value},
    scalar::{self, Scalar},
    well_known, wire,
};

/// Appends the message that `json` is to `out`, which may grow to `limit`
/// bytes.
///
/// # Errors
/// What is wrong with it, and where.
pub fn write(
    message: &MessageDescriptor,
    json: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), JsonError> {
    let mut writing = Writing {
        reader: Reader::new(json),
        limit,
    };
    match writing.reader.value()? {
        Value::Object => writing.members(message, &Path::Root, out)?,
        _ => return Err(JsonError::field("body", "expected an object")),
    }
    writing.reader.end()
}

/// Where a value is within the request, for errors.
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    fn wrong(&self, problem: impl Into<String>) -> JsonError {
        JsonError::field(self.to_string(), problem)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A message's field by either of its names.
pub fn field_of(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message
        .get_field_by_json_name(name)
        .or_else(|| message.get_field_by_name(name))
}

/// The fields that an object has had: few, so lists will do.
#[derive(Default)]
struct Seen {
    fields: Vec<u32>,
    oneofs: Vec<(String, String)>,
}

impl Seen {
    fn add(&mut self, field: &FieldDescriptor, path: &Path<'_>) -> Result<(), JsonError> {
        if self.fields.contains(&field.number()) {
            return Err(path.wrong("it is there twice"));
        }
        self.fields.push(field.number());
        Ok(())
    }

    /// Notes that a field has a value, which no other of its oneof may have.
    fn add_set(&mut self, field: &FieldDescriptor, path: &Path<'_>) -> Result<(), JsonError> {
        let Some(of) = field.containing_oneof().filter(|one| !one.is_synthetic()) else {
            return Ok(());
        };
        let name = field.json_name();
        if let Some((_, other)) = self.oneofs.iter().find(|(one, _)| one == of.name()) {
            return Err(path.wrong(format!("only one of {other} and {name} can be set")));
        }
        self.oneofs.push((of.name().to_owned(), name.to_owned()));
        Ok(())
    }
}

/// What a single value is written as.
struct Target<'a> {
    kind: &'a Kind,
    /// The field's number; elements of a packed list have none.
    number: Option<u32>,
    path: &'a Path<'a>,
}

/// A message in the course of being written.
struct Writing<'a> {
    reader: Reader<'a>,
    limit: usize,
}

impl Writing<'_> {
    fn check_size(&self, out: &[u8]) -> Result<(), JsonError> {
        match out.len() <= self.limit {
            true => Ok(()),
            false => Err(JsonError::TooLarge(self.limit)),
        }
    }

    /// The members of an object that has begun, as a message without its length.
    fn members(
        &mut self,
        message: &MessageDescriptor,
        path: &Path<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        let mut seen = Seen::default();
        let mut first = true;
        while let Some(name) = self.reader.member(first)? {
            first = false;
            let Some(field) = field_of(message, &name) else {
                let shown: String = name.chars().take(80).collect();
                return Err(Path::Field(path, &shown).wrong("there is no such field"));
            };
            let path = Path::Field(path, field.json_name());
            seen.add(&field, &path)?;
            let before = out.len();
            self.field(&field, &path, out)?;
            self.check_size(out)?;
            if out.len() > before {
                seen.add_set(&field, &path)?;
            }
        }
        Ok(())
    }

    /// The value of a field, of whatever cardinality.
    fn field(
        &mut self,
        field: &FieldDescriptor,
        path: &Path<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        if numbers::are_packed(field) && numbers::put(field, &mut self.reader, self.limit, out)? {
            return Ok(());
        }
        let number = Some(field.number());
        let kind = &field.kind();
        if !field.is_list() && !field.is_map() {
            self.one(&Target { kind, number, path }, out)?;
            return Ok(());
        }
        match (self.reader.value()?, field.is_map()) {
            (Value::Null, _) => Ok(()),
            (Value::Object, true) => self.entries(field, path, out),
            (Value::List, false) if field.is_packed() => {
                let number = None;
                wire::delimited(field.number(), out, |out| {
                    self.elements(&Target { kind, number, path }, out)
                })
            }
            (Value::List, false) => self.elements(&Target { kind, number, path }, out),
            (_, true) => Err(path.wrong("expected an object")),
            (_, false) if numbers::are_packed(field) => {
                let expected = "expected a list of numbers, or base64 of their little-endian bytes";
                Err(path.wrong(expected))
            }
            (_, false) => Err(path.wrong("expected a list")),
        }
    }

    fn entries(
        &mut self,
        field: &FieldDescriptor,
        path: &Path<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        let Kind::Message(entry) = field.kind() else {
            return Err(path.wrong("expected a list"));
        };
        let (Some(key), Some(value)) = (entry.get_field(1), entry.get_field(2)) else {
            return Err(path.wrong("expected a list"));
        };
        let mut first = true;
        while let Some(name) = self.reader.member(first)? {
            first = false;
            let path = Path::Field(path, &name);
            wire::delimited(field.number(), out, |out| {
                scalar::put_text(&key.kind(), Some(1), &name, out)
                    .map_err(|problem| path.wrong(problem))?;
                let of_value = Target {
                    kind: &value.kind(),
                    number: Some(2),
                    path: &path,
                };
                match self.one(&of_value, out)? {
                    true => Ok(()),
                    false => Err(path.wrong("null is no value of a map")),
                }
            })?;
            self.check_size(out)?;
        }
        Ok(())
    }

    fn elements(&mut self, list: &Target<'_>, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let mut index = 0;
        while self.reader.element(index == 0)? {
            let path = Path::Index(list.path, index);
            let element = Target {
                path: &path,
                ..*list
            };
            if !self.one(&element, out)? {
                return Err(path.wrong("null is no element of a list"));
            }
            self.check_size(out)?;
            index += 1;
        }
        Ok(())
    }

    /// One value; false if it is null, which is as if it were absent.
    fn one(&mut self, target: &Target<'_>, out: &mut Vec<u8>) -> Result<bool, JsonError> {
        let Target { kind, number, path } = *target;
        let value = match self.reader.value()? {
            Value::Null => return Ok(false),
            Value::Object => {
                self.object(target, out)?;
                return Ok(true);
            }
            Value::List => {
                let expected = scalar::expected(kind);
                return Err(path.wrong(format!("expected {expected}, not a list")));
            }
            value => value,
        };
        if let (Kind::Message(message), Value::Text(text)) = (kind, &value) {
            let bytes = well_known::from_text(message.full_name(), text)
                .unwrap_or_else(|| Err("expected an object".to_owned()))
                .map_err(|problem| path.wrong(problem))?;
            if let Some(number) = number {
                wire::bytes(number, &bytes, out);
            }
            return Ok(true);
        }
        let scalar = match &value {
            Value::Bool(value) => Scalar::Bool(*value),
            Value::Text(text) => Scalar::Text(text),
            Value::Number(decimal) => match (decimal.to_u64(), decimal.to_i64()) {
                (Some(value), _) => Scalar::Unsigned(value),
                (None, Some(value)) => Scalar::Signed(value),
                (None, None) => match decimal.to_f64() {
                    value if value.is_finite() => Scalar::Float(value, decimal.to_f32()),
                    _ => return Err(path.wrong("the number is too large")),
                },
            },
            Value::Null | Value::List | Value::Object => return Ok(false),
        };
        scalar::put(kind, number, scalar, out).map_err(|problem| path.wrong(problem))?;
        Ok(true)
    }

    fn object(&mut self, target: &Target<'_>, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let Target { kind, number, path } = *target;
        let (Kind::Message(message), Some(number)) = (kind, number) else {
            return Err(path.wrong(format!("expected {}", scalar::expected(kind))));
        };
        if well_known::from_text(message.full_name(), "").is_some() {
            return Err(path.wrong("expected a text"));
        }
        wire::delimited(number, out, |out| self.members(message, path, out))
    }
}
