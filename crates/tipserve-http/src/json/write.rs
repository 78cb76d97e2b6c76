//! JSON to the wire format, written while it is read: no tree of values is
//! made, so that memory is bounded by the message that comes of it.

use std::{cell::RefCell, fmt};

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde::{
    Deserialize as _,
    de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    JsonError, numbers,
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
    let writing = Writing {
        limit,
        error: RefCell::default(),
    };
    let mut parser = serde_json::Deserializer::from_slice(json);
    let seed = MessageSeed {
        writing: &writing,
        message,
        path: &Path::Root,
        out,
    };
    let read = seed.deserialize(&mut parser).and_then(|()| parser.end());
    let Err(error) = read else {
        return Ok(());
    };
    Err(match (error.is_data(), writing.error.take()) {
        (true, Some(error)) | (false, Some(error @ JsonError::TooLarge(_))) => error,
        (true, None) => JsonError::field("body", error.to_string()),
        (false, _) => JsonError::Syntax(error.to_string()),
    })
}

/// What a whole message shares.
struct Writing {
    limit: usize,
    /// The innermost error, with its path; serde's has none.
    error: RefCell<Option<JsonError>>,
}

impl Writing {
    fn fail<E: serde::de::Error>(&self, path: &Path<'_>, problem: impl fmt::Display) -> E {
        let problem = problem.to_string();
        let error = E::custom(&problem);
        let mut first = self.error.borrow_mut();
        if first.is_none() {
            *first = Some(JsonError::field(path.to_string(), problem));
        }
        error
    }

    fn check_size<E: serde::de::Error>(&self, out: &[u8]) -> Result<(), E> {
        if out.len() <= self.limit {
            return Ok(());
        }
        *self.error.borrow_mut() = Some(JsonError::TooLarge(self.limit));
        Err(E::custom("too large"))
    }
}

/// Where a value is within the request, for errors.
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
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

/// Reads an object into a message, without the message's length.
struct MessageSeed<'a> {
    writing: &'a Writing,
    message: &'a MessageDescriptor,
    path: &'a Path<'a>,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = Seen::default();
        while let Some(found) = map.next_key_seed(FieldName(self.message))? {
            let field = match found {
                Ok(field) => field,
                Err(name) => {
                    let problem = "there is no such field";
                    let path = Path::Field(self.path, &name);
                    return Err(self.writing.fail(&path, problem));
                }
            };
            let path = Path::Field(self.path, field.json_name());
            if seen.fields.contains(&field.number()) {
                return Err(self.writing.fail(&path, "it is there twice"));
            }
            seen.fields.push(field.number());
            let before = self.out.len();
            let value = ValueSeed {
                writing: self.writing,
                field: &field,
                path: &path,
                out: self.out,
            };
            if let Err(error) = map.next_value_seed(value) {
                // An error of serde's own has no path yet.
                let _: A::Error = self.writing.fail(&path, &error);
                return Err(error);
            }
            self.writing.check_size(self.out)?;
            if self.out.len() > before
                && let Some(of) = field.containing_oneof().filter(|one| !one.is_synthetic())
            {
                if let Some((_, other)) = seen.oneofs.iter().find(|(name, _)| name == of.name()) {
                    let problem =
                        format!("only one of {other} and {} can be set", field.json_name());
                    return Err(self.writing.fail(&path, problem));
                }
                let set = (of.name().to_owned(), field.json_name().to_owned());
                seen.oneofs.push(set);
            }
        }
        Ok(())
    }
}

/// The fields that an object has had: few, so lists will do.
#[derive(Default)]
struct Seen {
    fields: Vec<u32>,
    oneofs: Vec<(String, String)>,
}

/// Reads a name as the message's field, or as itself if there is none.
struct FieldName<'a>(&'a MessageDescriptor);

impl<'de> DeserializeSeed<'de> for FieldName<'_> {
    type Value = Result<FieldDescriptor, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName<'_> {
    type Value = Result<FieldDescriptor, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(field_of(self.0, name).ok_or_else(|| name.chars().take(80).collect()))
    }
}

/// A message's field by either of its names.
pub fn field_of(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message
        .get_field_by_json_name(name)
        .or_else(|| message.get_field_by_name(name))
}

/// Reads the value of a field, of whatever cardinality.
struct ValueSeed<'a> {
    writing: &'a Writing,
    field: &'a FieldDescriptor,
    path: &'a Path<'a>,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if numbers::are_packed(self.field) {
            let raw = <&RawValue>::deserialize(deserializer)?;
            let before = self.out.len();
            let limit = self.writing.limit;
            if numbers::put(self.field, raw.get(), limit, self.out) {
                return Ok(());
            }
            // Reading it value by value finds the error and its path.
            self.out.truncate(before);
            let mut values = serde_json::Deserializer::from_str(raw.get());
            return values.deserialize_any(self).map_err(D::Error::custom);
        }
        if self.field.is_map() || self.field.is_list() {
            return deserializer.deserialize_any(self);
        }
        let element = Element {
            writing: self.writing,
            kind: &self.field.kind(),
            number: Some(self.field.number()),
            path: self.path,
            out: self.out,
        };
        element.deserialize(deserializer).map(|_| ())
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.field.is_map() {
            "an object"
        } else {
            "a list"
        })
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        if self.field.is_map() {
            return Err(self.writing.fail(self.path, "expected an object"));
        }
        let number = self.field.number();
        let packed = self.field.is_packed();
        let elements = Elements {
            writing: self.writing,
            kind: &self.field.kind(),
            number: (!packed).then_some(number),
            path: self.path,
        };
        if packed {
            wire::delimited(number, self.out, |out| elements.read(list, out))
        } else {
            elements.read(list, self.out)
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Kind::Message(entry) = self.field.kind() else {
            return Err(self.writing.fail(self.path, "expected a list"));
        };
        let (true, Some(key), Some(value)) =
            (self.field.is_map(), entry.get_field(1), entry.get_field(2))
        else {
            return Err(self.writing.fail(self.path, "expected a list"));
        };
        while let Some(name) = map.next_key::<String>()? {
            let path = Path::Field(self.path, &name);
            wire::delimited(self.field.number(), self.out, |out| {
                scalar::put_text(&key.kind(), Some(1), &name, out)
                    .map_err(|problem| self.writing.fail(&path, problem))?;
                let element = Element {
                    writing: self.writing,
                    kind: &value.kind(),
                    number: Some(2),
                    path: &path,
                    out,
                };
                match map.next_value_seed(element)? {
                    true => Ok(()),
                    false => Err(self.writing.fail(&path, "null is no value of a map")),
                }
            })?;
            self.writing.check_size(self.out)?;
        }
        Ok(())
    }
}

/// Reads the elements of a list.
struct Elements<'a> {
    writing: &'a Writing,
    kind: &'a Kind,
    number: Option<u32>,
    path: &'a Path<'a>,
}

impl Elements<'_> {
    fn read<'de, A: SeqAccess<'de>>(&self, mut list: A, out: &mut Vec<u8>) -> Result<(), A::Error> {
        let mut index = 0;
        loop {
            let path = Path::Index(self.path, index);
            let element = Element {
                writing: self.writing,
                kind: self.kind,
                number: self.number,
                path: &path,
                out,
            };
            match list.next_element_seed(element) {
                Ok(None) => return Ok(()),
                Ok(Some(true)) => {}
                Ok(Some(false)) => {
                    return Err(self.writing.fail(&path, "null is no element of a list"));
                }
                Err(error) => {
                    let _: A::Error = self.writing.fail(&path, &error);
                    return Err(error);
                }
            }
            self.writing.check_size(out)?;
            index += 1;
        }
    }
}

/// Reads one value; false if it is null, which is as if it were absent.
struct Element<'a> {
    writing: &'a Writing,
    kind: &'a Kind,
    number: Option<u32>,
    path: &'a Path<'a>,
    out: &'a mut Vec<u8>,
}

impl Element<'_> {
    fn put<E: serde::de::Error>(self, value: Scalar<'_>) -> Result<bool, E> {
        match scalar::put(self.kind, self.number, value, self.out) {
            Ok(()) => Ok(true),
            Err(problem) => Err(self.writing.fail(self.path, problem)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Element<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(scalar::expected(self.kind))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<bool, E> {
        self.put(Scalar::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<bool, E> {
        self.put(Scalar::Signed(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<bool, E> {
        self.put(Scalar::Unsigned(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<bool, E> {
        self.put(Scalar::Float(value))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<bool, E> {
        let Kind::Message(message) = self.kind else {
            return self.put(Scalar::Text(text));
        };
        match well_known::from_text(message.full_name(), text) {
            Some(Ok(bytes)) => {
                if let Some(number) = self.number {
                    wire::bytes(number, &bytes, self.out);
                }
                Ok(true)
            }
            Some(Err(problem)) => Err(self.writing.fail(self.path, problem)),
            None => Err(self.writing.fail(self.path, "expected an object")),
        }
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<bool, A::Error> {
        let (Kind::Message(message), Some(number)) = (self.kind, self.number) else {
            let problem = format!("expected {}", scalar::expected(self.kind));
            return Err(self.writing.fail(self.path, problem));
        };
        if well_known::from_text(message.full_name(), "").is_some() {
            return Err(self.writing.fail(self.path, "expected a text"));
        }
        wire::delimited(number, self.out, |out| {
            let seed = MessageSeed {
                writing: self.writing,
                message,
                path: self.path,
                out,
            };
            seed.visit_map(map)
        })?;
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<bool, A::Error> {
        let problem = format!("expected {}, not a list", scalar::expected(self.kind));
        Err(A::Error::custom(
            self.writing.fail::<A::Error>(self.path, problem),
        ))
    }
}
