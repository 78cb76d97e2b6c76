//! How much memory decoding a message would take, found from its bytes alone.
//!
//! An empty element of a repeated field has two bytes on the wire and a hundred
//! or more in memory, so that a message within every limit on its size can fill
//! the memory before any of its fields is looked at. [`check`] walks the wire
//! format once, without allocating, adds up what each element will take by its
//! type, and refuses what passes [`allowed`].

mod layout;

use std::{collections::HashSet, fmt};

use prost::encoding::{WireType, decode_key, decode_varint};

use layout::{Field, Kind, SHAPES};

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
            "the message of {} bytes has too many elements: decoding it would take more than {} \
             bytes, its limit max_decoded_bytes ({FACTOR} times its bytes, plus {ALLOWANCE}); send \
             fewer elements in a message",
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
/// do). None if the message is malformed or not known.
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

/// Bytes that a text or byte string with any content takes at least: the
/// smallest capacity of a growing vector of bytes.
const SHORTEST: usize = 8;

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
            Kind::Text if content.is_empty() => self.take(field.element),
            Kind::Text => self.take(field.element.saturating_add(content.len().max(SHORTEST))),
            Kind::Varint => {
                // Each value ends with the one byte whose top bit is clear.
                let values = content.iter().filter(|byte| **byte < 0x80).count();
                self.take(values.saturating_mul(field.element))
            }
            Kind::Fixed(width) => self.take((content.len() / width).saturating_mul(field.element)),
        }
    }
}

/// Names of the messages that [`check`] knows.
pub fn known_messages() -> HashSet<&'static str> {
    SHAPES.by_name.keys().map(String::as_str).collect()
}

#[cfg(test)]
mod tests;
