//! Lists of floating-point numbers, such as embeddings: thousands of digits in
//! a message. They are parsed from the text itself, since serde's handling of
//! each number costs more than the classification.

use std::str::FromStr;

use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{FieldDescriptor, Kind};

/// Whether a field is a packed list of floating-point numbers.
pub fn are_packed(field: &FieldDescriptor) -> bool {
    field.is_list() && field.is_packed() && matches!(field.kind(), Kind::Float | Kind::Double)
}

/// Appends a list of numbers that is JSON already. False if it holds anything
/// but finite numbers, or makes `out` larger than `limit`: then the appended
/// bytes are invalid.
pub fn put(field: &FieldDescriptor, list: &str, limit: usize, out: &mut Vec<u8>) -> bool {
    let Some(inside) = list.strip_prefix('[').and_then(|l| l.strip_suffix(']')) else {
        return false;
    };
    let inside = inside.trim_ascii();
    match field.kind() {
        Kind::Float => packed(field.number(), inside, limit, out, |value: f32, out| {
            out.extend_from_slice(&value.to_le_bytes());
            value.is_finite()
        }),
        Kind::Double => packed(field.number(), inside, limit, out, |value: f64, out| {
            out.extend_from_slice(&value.to_le_bytes());
            value.is_finite()
        }),
        _ => false,
    }
}

fn packed<T: FromStr>(
    number: u32,
    inside: &str,
    limit: usize,
    out: &mut Vec<u8>,
    append: impl Fn(T, &mut Vec<u8>) -> bool,
) -> bool {
    let count = match inside {
        "" => 0,
        _ => 1 + inside.bytes().filter(|byte| *byte == b',').count(),
    };
    let bytes = count.saturating_mul(size_of::<T>());
    if out.len().saturating_add(bytes) > limit {
        return false;
    }
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes as u64, out);
    out.reserve(bytes);
    let mut values = inside.split(',').take(count);
    values.all(|value| {
        let value = value.trim_ascii();
        // Only JSON's numbers: Rust would also read "inf".
        let is_number = value.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        is_number && value.parse().is_ok_and(|value| append(value, out))
    })
}
