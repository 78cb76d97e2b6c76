//! Pieces of the wire format. Fields appended one after the other make a
//! message, and messages appended to each other are merged by the decoder: that
//! is how path, query and body become one.

use prost::encoding::{WireType, encode_key, encode_varint};

/// Appends what `content` writes as a field of its own length.
pub fn delimited<E>(
    number: u32,
    out: &mut Vec<u8>,
    content: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    encode_key(number, WireType::LengthDelimited, out);
    sized(out, content)
}

/// Appends a length and what `content` writes. The length is known only
/// afterwards; most are of one byte, so one is kept for it.
pub fn sized<E>(
    out: &mut Vec<u8>,
    content: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let at = out.len();
    out.push(0);
    content(out)?;
    let length = out.len() - at - 1;
    let mut prefix = Vec::with_capacity(5);
    encode_varint(length as u64, &mut prefix);
    if let ([one], Some(place)) = (prefix.as_slice(), out.get_mut(at)) {
        *place = *one;
    } else {
        out.splice(at..=at, prefix);
    }
    Ok(())
}

/// Appends bytes as a field.
pub fn bytes(number: u32, content: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

/// The number of the first field of a message.
pub fn first_field(mut message: &[u8]) -> Option<u32> {
    prost::encoding::decode_key(&mut message)
        .ok()
        .map(|(number, _)| number)
}
