//! Fields by their paths, from a request's path, query or form.

use prost_reflect::{Cardinality, FieldDescriptor, Kind, MessageDescriptor};

use crate::json::{
    JsonError, scalar, well_known, wire,
    write::{self, field_of},
};

/// How deep a bare name is looked for.
const DEPTH: usize = 3;

/// The fields from a message down to the one that `name` is: "options.topK", or
/// a bare name that only one message within has ("topK").
pub fn resolve(message: &MessageDescriptor, name: &str) -> Option<Vec<FieldDescriptor>> {
    let mut fields: Vec<FieldDescriptor> = Vec::new();
    let mut within = message.clone();
    for part in name.split('.') {
        if let Some(last) = fields.last() {
            match (last.is_list() || last.is_map(), last.kind()) {
                (false, Kind::Message(inner)) => within = inner,
                _ => return None,
            }
        }
        match field_of(&within, part) {
            Some(field) => fields.push(field),
            None if fields.is_empty() && !name.contains('.') => return bare(message, name),
            None => return None,
        }
    }
    Some(fields)
}

/// The only field of this name in the messages within; none if there are two.
fn bare(message: &MessageDescriptor, name: &str) -> Option<Vec<FieldDescriptor>> {
    let mut level = vec![(message.clone(), Vec::new())];
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        let mut found = Vec::new();
        for (message, way) in level {
            for field in message.fields() {
                let Kind::Message(inner) = field.kind() else {
                    continue;
                };
                if field.is_list() || field.is_map() || inner.full_name().starts_with("google.") {
                    continue;
                }
                let mut way: Vec<FieldDescriptor> = way.clone();
                way.push(field);
                if let Some(field) = field_of(&inner, name) {
                    let mut whole = way.clone();
                    whole.push(field);
                    found.push(whole);
                }
                next.push((inner, way));
            }
        }
        if let Some(first) = found.pop() {
            return found.is_empty().then_some(first);
        }
        level = next;
    }
    None
}

/// Appends a value to the message, within the messages on the path to its
/// field.
///
/// # Errors
/// What is wrong with the text.
pub fn put(
    name: &str,
    way: &[FieldDescriptor],
    text: &str,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), JsonError> {
    match way {
        [] => Ok(()),
        [field] => put_value(name, field, text, limit, out),
        [field, rest @ ..] => {
            wire::delimited(field.number(), out, |out| put(name, rest, text, limit, out))
        }
    }
}

fn put_value(
    name: &str,
    field: &FieldDescriptor,
    text: &str,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), JsonError> {
    let number = field.number();
    if let Kind::Message(message) = field.kind() {
        if field.is_map() {
            return Err(JsonError::field(name, "a map cannot be given so"));
        }
        return match well_known::from_text(message.full_name(), text) {
            Some(Ok(bytes)) => {
                wire::bytes(number, &bytes, out);
                Ok(())
            }
            Some(Err(problem)) => Err(JsonError::field(name, problem)),
            None => wire::delimited(number, out, |out| {
                write::write(&message, text.as_bytes(), limit, out)
            })
            .map_err(|error| within(name, error)),
        };
    }
    scalar::put_text(&field.kind(), Some(number), text, out)
        .map_err(|problem| JsonError::field(name, problem))
}

/// An error of JSON that is the value of a field.
fn within(name: &str, error: JsonError) -> JsonError {
    match error {
        JsonError::Field { field, problem } => JsonError::field(format!("{name}.{field}"), problem),
        JsonError::Syntax(problem) => JsonError::field(name, format!("it is no JSON: {problem}")),
        JsonError::TooLarge(limit) => JsonError::TooLarge(limit),
    }
}

/// The fields that were given and may be given once.
#[derive(Debug, Default)]
pub struct Singular(Vec<Vec<u32>>);

impl Singular {
    /// Takes note of a field.
    ///
    /// # Errors
    /// It was given before, and is no list.
    pub fn take(&mut self, name: &str, way: &[FieldDescriptor]) -> Result<(), JsonError> {
        let mut fields = way.iter();
        if fields.any(|field| field.cardinality() == Cardinality::Repeated) {
            return Ok(());
        }
        let numbers: Vec<u32> = way.iter().map(FieldDescriptor::number).collect();
        if self.0.contains(&numbers) {
            return Err(JsonError::field(name, "it is there twice"));
        }
        self.0.push(numbers);
        Ok(())
    }
}

/// The message that a query is.
///
/// # Errors
/// A parameter that is not a field, is repeated, or has an invalid value.
pub fn parse(message: &MessageDescriptor, query: &str) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::new();
    let mut singular = Singular::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let way = resolve(message, &name).ok_or_else(|| {
            let shown: String = name.chars().take(80).collect();
            JsonError::field(shown, "there is no such parameter")
        })?;
        singular.take(&name, &way)?;
        put(&name, &way, &value, usize::MAX, &mut out)?;
    }
    Ok(out)
}
