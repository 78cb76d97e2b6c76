//! Pieces of the wire format. Fields appended one after the other make a
//! message, and messages appended to each other are merged by the decoder: that
//! is how path, query and body become one.

use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};

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
    decode_key(&mut message).ok().map(|(number, _)| number)
}

/// What a message has in a field of texts, bytes or messages, one after the other;
/// nothing more after what is no message.
pub fn each(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    let mut rest = message;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (field, kind) = decode_key(&mut rest).ok()?;
            if kind != WireType::LengthDelimited {
                skip_field(kind, field, &mut rest, DecodeContext::default()).ok()?;
                continue;
            }
            let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            let (content, after) = rest.split_at_checked(length)?;
            rest = after;
            if field == number {
                return Some(content);
            }
        }
        None
    })
}
