//! Renders a message's bytes as JSON without decoding the message first: an
//! answer of thousands of numbers costs little more than their digits.

use std::io::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use prost::encoding::{WireType, decode_key, decode_varint};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions};

use super::{Style, numbers};

/// A message as JSON.
///
/// # Errors
/// If the bytes are not such a message, or hold an `Any` of an unknown type: a
/// defect, since the server itself wrote them.
pub fn render(
    message: &MessageDescriptor,
    bytes: &[u8],
    style: Style,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    if is_well_known(message) {
        return well_known(message, bytes, style, out);
    }
    let values = split(bytes)?;
    out.push(b'{');
    let mut is_first = true;
    for field in message.fields() {
        let mut found = values
            .iter()
            .filter(|(number, _)| *number == field.number())
            .map(|(_, value)| *value)
            .peekable();
        if found.peek().is_none() && field.supports_presence() {
            continue;
        }
        if !std::mem::take(&mut is_first) {
            out.push(b',');
        }
        let name = match style {
            Style::Proto | Style::Packed => field.json_name(),
            Style::Plain => field.name(),
        };
        text(name, out)?;
        out.push(b':');
        value(&field, &mut found, style, out)?;
    }
    out.push(b'}');
    Ok(())
}

/// A field's value on the wire.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
}

/// A message's values, each with its field number.
fn split(mut bytes: &[u8]) -> Result<Vec<(u32, Wire<'_>)>, String> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        let (number, kind) = decode_key(&mut bytes).map_err(|e| e.to_string())?;
        let value = match kind {
            WireType::Varint => Wire::Varint(varint(&mut bytes)?),
            WireType::ThirtyTwoBit => Wire::Fixed32(fixed(&mut bytes)?),
            WireType::SixtyFourBit => Wire::Fixed64(fixed(&mut bytes)?),
            WireType::LengthDelimited => {
                let length = usize::try_from(varint(&mut bytes)?).map_err(|e| e.to_string())?;
                let (value, rest) = bytes.split_at_checked(length).ok_or_else(not_whole)?;
                bytes = rest;
                Wire::Bytes(value)
            }
            WireType::StartGroup | WireType::EndGroup => return Err("it has a group".to_owned()),
        };
        values.push((number, value));
    }
    Ok(values)
}

fn not_whole() -> String {
    "it is not whole".to_owned()
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    decode_varint(bytes).map_err(|e| e.to_string())
}

fn fixed<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], String> {
    let (value, rest) = bytes.split_first_chunk::<N>().ok_or_else(not_whole)?;
    *bytes = rest;
    Ok(*value)
}

/// The value of a field's occurrences; without any, a field without presence
/// has its default.
fn value(
    field: &FieldDescriptor,
    found: &mut dyn Iterator<Item = Wire<'_>>,
    style: Style,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let kind = field.kind();
    if field.is_map() {
        return map(&kind, found, style, out);
    }
    if field.is_list() {
        return list(&kind, found, style, out);
    }
    if let Kind::Message(message) = &kind {
        // Repeated occurrences of a message are merged: their concatenated
        // bytes mean the same.
        let mut all = found.map(content);
        let first = all.next().transpose()?.unwrap_or_default();
        return match all.next() {
            None => render(message, first, style, out),
            Some(second) => {
                let mut merged = [first, second?].concat();
                for more in all {
                    merged.extend_from_slice(more?);
                }
                render(message, &merged, style, out)
            }
        };
    }
    // Of several scalars the last one counts.
    scalar(&kind, found.last().unwrap_or(default(&kind)), style, out)
}

fn content(value: Wire<'_>) -> Result<&[u8], String> {
    match value {
        Wire::Bytes(bytes) => Ok(bytes),
        _ => Err("a message is no message".to_owned()),
    }
}

fn list(
    kind: &Kind,
    found: &mut dyn Iterator<Item = Wire<'_>>,
    style: Style,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    if style == Style::Packed && matches!(kind, Kind::Float | Kind::Double) {
        return encoded(found, out);
    }
    out.push(b'[');
    let start = out.len();
    let comma = |out: &mut Vec<u8>| {
        if out.len() > start {
            out.push(b',');
        }
    };
    let is_packable = !matches!(kind, Kind::String | Kind::Bytes | Kind::Message(_));
    for value in found {
        match (value, kind) {
            (Wire::Bytes(bytes), Kind::Message(message)) => {
                comma(out);
                render(message, bytes, style, out)?;
            }
            (Wire::Bytes(packed), Kind::Float)
                if out.len() == start && numbers::render(packed, out) => {}
            (Wire::Bytes(mut packed), _) if is_packable => {
                while !packed.is_empty() {
                    let value = match default(kind) {
                        Wire::Fixed32(_) => Wire::Fixed32(fixed(&mut packed)?),
                        Wire::Fixed64(_) => Wire::Fixed64(fixed(&mut packed)?),
                        Wire::Varint(_) | Wire::Bytes(_) => Wire::Varint(varint(&mut packed)?),
                    };
                    comma(out);
                    scalar(kind, value, style, out)?;
                }
            }
            (value, _) => {
                comma(out);
                scalar(kind, value, style, out)?;
            }
        }
    }
    out.push(b']');
    Ok(())
}

/// A list of floating-point numbers as base64: on the wire they are
/// little-endian already.
fn encoded(found: &mut dyn Iterator<Item = Wire<'_>>, out: &mut Vec<u8>) -> Result<(), String> {
    let mut numbers = Vec::new();
    for value in found {
        match value {
            Wire::Bytes(packed) => numbers.extend_from_slice(packed),
            Wire::Fixed32(one) => numbers.extend_from_slice(&one),
            Wire::Fixed64(one) => numbers.extend_from_slice(&one),
            Wire::Varint(_) => return Err("a number is something else on the wire".to_owned()),
        }
    }
    base64(&numbers, out)
}

fn map(
    kind: &Kind,
    found: &mut dyn Iterator<Item = Wire<'_>>,
    style: Style,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let Kind::Message(entry) = kind else {
        return Err("a map has no entries".to_owned());
    };
    let (Some(key), Some(of)) = (entry.get_field(1), entry.get_field(2)) else {
        return Err("a map's entries have no key or no value".to_owned());
    };
    out.push(b'{');
    let start = out.len();
    for found in found {
        let values = split(content(found)?)?;
        let of_number = |number: u32| {
            let all = values.iter().filter(move |(given, _)| *given == number);
            all.map(|(_, value)| *value)
        };
        if out.len() > start {
            out.push(b',');
        }
        // JSON's keys are strings, whatever the map's key type.
        let mut name = Vec::new();
        value(&key, &mut of_number(1), style, &mut name)?;
        match name.first() {
            Some(b'"') => out.extend_from_slice(&name),
            _ => text(&String::from_utf8_lossy(&name), out)?,
        }
        out.push(b':');
        value(&of, &mut of_number(2), style, out)?;
    }
    out.push(b'}');
    Ok(())
}

/// The default of a field that is not on the wire.
fn default(kind: &Kind) -> Wire<'static> {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Wire::Fixed64([0; 8]),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Wire::Fixed32([0; 4]),
        Kind::String | Kind::Bytes | Kind::Message(_) => Wire::Bytes(&[]),
        _ => Wire::Varint(0),
    }
}

fn scalar(kind: &Kind, value: Wire<'_>, style: Style, out: &mut Vec<u8>) -> Result<(), String> {
    match (kind, value) {
        (Kind::Float, Wire::Fixed32(bytes)) => {
            let value = f32::from_le_bytes(bytes);
            number(value, value.into(), out)
        }
        (Kind::Double, Wire::Fixed64(bytes)) => {
            let value = f64::from_le_bytes(bytes);
            number(value, value, out)
        }
        (Kind::Fixed32, Wire::Fixed32(bytes)) => integer(u32::from_le_bytes(bytes), false, out),
        (Kind::Sfixed32, Wire::Fixed32(bytes)) => integer(i32::from_le_bytes(bytes), false, out),
        (Kind::Fixed64, Wire::Fixed64(bytes)) => long(u64::from_le_bytes(bytes), style, out),
        (Kind::Sfixed64, Wire::Fixed64(bytes)) => long(i64::from_le_bytes(bytes), style, out),
        (Kind::Int32, Wire::Varint(value)) => integer(value as i32, false, out),
        (Kind::Int64, Wire::Varint(value)) => long(value as i64, style, out),
        (Kind::Uint32, Wire::Varint(value)) => integer(value as u32, false, out),
        (Kind::Uint64, Wire::Varint(value)) => long(value, style, out),
        (Kind::Sint32, Wire::Varint(value)) => integer(zigzag(value) as i32, false, out),
        (Kind::Sint64, Wire::Varint(value)) => long(zigzag(value), style, out),
        (Kind::Bool, Wire::Varint(value)) => {
            out.extend_from_slice(if value == 0 { b"false" } else { b"true" });
            Ok(())
        }
        (Kind::Enum(values), Wire::Varint(value)) => {
            let number = value as i32;
            match values.get_value(number) {
                Some(value) => text(value.name(), out),
                None => integer(number, false, out),
            }
        }
        (Kind::String, Wire::Bytes(bytes)) => {
            text(str::from_utf8(bytes).map_err(|e| e.to_string())?, out)
        }
        (Kind::Bytes, Wire::Bytes(bytes)) => base64(bytes, out),
        (kind, _) => Err(format!("{kind:?} is something else on the wire")),
    }
}

fn base64(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let room = out.get_mut(start..).ok_or_else(not_whole)?;
    let written = BASE64_STANDARD.encode_slice(bytes, room);
    out.truncate(start + written.map_err(|e| e.to_string())?);
    out.push(b'"');
    Ok(())
}

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// A number with the fewest digits that read back to the same.
fn number(value: impl serde::Serialize, wide: f64, out: &mut Vec<u8>) -> Result<(), String> {
    let name = match wide {
        _ if wide.is_finite() => {
            return serde_json::to_writer(out, &value).map_err(|e| e.to_string());
        }
        _ if wide.is_nan() => "NaN",
        _ if wide > 0.0 => "Infinity",
        _ => "-Infinity",
    };
    text(name, out)
}

/// A 64-bit integer, as a string: JSON readers turn numbers into floats, which
/// cannot hold all of them.
fn long(value: impl std::fmt::Display, style: Style, out: &mut Vec<u8>) -> Result<(), String> {
    integer(value, style != Style::Plain, out)
}

fn integer(value: impl std::fmt::Display, quoted: bool, out: &mut Vec<u8>) -> Result<(), String> {
    match quoted {
        true => write!(out, "\"{value}\""),
        false => write!(out, "{value}"),
    }
    .map_err(|e| e.to_string())
}

fn text(value: &str, out: &mut Vec<u8>) -> Result<(), String> {
    serde_json::to_writer(out, value).map_err(|e| e.to_string())
}

/// Messages with a special form in ProtoJSON.
fn is_well_known(message: &MessageDescriptor) -> bool {
    let name = message.full_name();
    name.starts_with("google.protobuf.") && name != "google.protobuf.Empty"
}

fn well_known(
    message: &MessageDescriptor,
    bytes: &[u8],
    style: Style,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let message = DynamicMessage::decode(message.clone(), bytes).map_err(|e| e.to_string())?;
    let options = SerializeOptions::new()
        .skip_default_fields(false)
        .stringify_64_bit_integers(style != Style::Plain)
        .use_proto_field_name(style == Style::Plain);
    let mut serializer = serde_json::Serializer::new(out);
    message
        .serialize_with_options(&mut serializer, &options)
        .map_err(|e| e.to_string())
}
