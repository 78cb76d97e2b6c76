//! Values of one field: from JSON's numbers and texts, and from the text of a
//! path, a query or a form.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{EnumDescriptor, Kind};

/// ProtoJSON takes both alphabets, with and without padding.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// A value as JSON has it.
#[derive(Clone, Copy, Debug)]
pub enum Scalar<'a> {
    /// `true` or `false`, without quotes.
    Bool(bool),
    /// A whole number below 0.
    Signed(i64),
    /// A whole number from 0.
    Unsigned(u64),
    /// A number with a fraction or an exponent: the nearest of 64 bits, and the
    /// nearest of 32. Rounded twice it would not always be that one.
    Float(f64, f32),
    /// A string, its escapes resolved.
    Text(&'a str),
}

/// What a field of a kind takes, for messages to people.
pub fn expected(kind: &Kind) -> &'static str {
    match kind {
        Kind::Double | Kind::Float => "a number",
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "an integer of 32 bits",
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "an integer of 64 bits",
        Kind::Uint32 | Kind::Fixed32 => "an integer of 32 bits from 0",
        Kind::Uint64 | Kind::Fixed64 => "an integer of 64 bits from 0",
        Kind::Bool => "true or false",
        Kind::String => "a text",
        Kind::Bytes => "bytes in base64",
        Kind::Enum(_) => "one of the enum's names",
        Kind::Message(_) => "an object",
    }
}

/// The wire type that values of a kind have.
fn wire_type(kind: &Kind) -> WireType {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => WireType::SixtyFourBit,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => WireType::ThirtyTwoBit,
        Kind::String | Kind::Bytes | Kind::Message(_) => WireType::LengthDelimited,
        _ => WireType::Varint,
    }
}

/// A value in its wire form.
enum Wire<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64([u8; 8]),
    Text(&'a str),
    /// The bytes that a base64 string encodes.
    Base64(&'a str),
}

/// Appends a value, after the field's key where it has a `number` (elements of
/// a packed list have none).
///
/// # Errors
/// What a field of this kind takes instead.
pub fn put(
    kind: &Kind,
    number: Option<u32>,
    value: Scalar<'_>,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let wrong = || format!("expected {}", expected(kind));
    let value = match kind {
        Kind::Enum(values) => enumerated(values, value)?,
        _ => on_the_wire(kind, value).ok_or_else(wrong)?,
    };
    if let Some(number) = number {
        encode_key(number, wire_type(kind), out);
    }
    match value {
        Wire::Varint(value) => encode_varint(value, out),
        Wire::Fixed32(bytes) => out.extend_from_slice(&bytes),
        Wire::Fixed64(bytes) => out.extend_from_slice(&bytes),
        Wire::Text(text) => {
            encode_varint(text.len() as u64, out);
            out.extend_from_slice(text.as_bytes());
        }
        Wire::Base64(text) => {
            base64(text, out).ok_or_else(|| no_base64(text))?;
        }
    }
    Ok(())
}

/// A value of any kind but an enum; `None` if the kind does not accept it.
fn on_the_wire<'a>(kind: &Kind, value: Scalar<'a>) -> Option<Wire<'a>> {
    let int32 = |value| i32::try_from(signed(value)?).ok();
    let uint32 = |value| u32::try_from(unsigned(value)?).ok();
    Some(match (kind, value) {
        (Kind::Bool, Scalar::Bool(value)) => Wire::Varint(value.into()),
        (Kind::String, Scalar::Text(text)) => Wire::Text(text),
        (Kind::Bytes, Scalar::Text(text)) => Wire::Base64(text),
        (Kind::Double, _) => Wire::Fixed64(float(value)?.to_le_bytes()),
        (Kind::Float, _) => Wire::Fixed32(float32(value)?.to_le_bytes()),
        (Kind::Int32, _) => Wire::Varint(i64::from(int32(value)?) as u64),
        (Kind::Int64, _) => Wire::Varint(signed(value)? as u64),
        (Kind::Sint32, _) => Wire::Varint(zigzag(int32(value)?.into())),
        (Kind::Sint64, _) => Wire::Varint(zigzag(signed(value)?)),
        (Kind::Sfixed32, _) => Wire::Fixed32(int32(value)?.to_le_bytes()),
        (Kind::Sfixed64, _) => Wire::Fixed64(signed(value)?.to_le_bytes()),
        (Kind::Uint32, _) => Wire::Varint(uint32(value)?.into()),
        (Kind::Uint64, _) => Wire::Varint(unsigned(value)?),
        (Kind::Fixed32, _) => Wire::Fixed32(uint32(value)?.to_le_bytes()),
        (Kind::Fixed64, _) => Wire::Fixed64(unsigned(value)?.to_le_bytes()),
        _ => return None,
    })
}

fn enumerated<'a>(values: &EnumDescriptor, value: Scalar<'_>) -> Result<Wire<'a>, String> {
    let number = match value {
        Scalar::Text(name) => values.get_value_by_name(name).map(|value| value.number()),
        _ => signed(value).and_then(|number| i32::try_from(number).ok()),
    };
    let number = number.ok_or_else(|| {
        let names: Vec<_> = values.values().map(|v| v.name().to_owned()).collect();
        format!("expected one of {}", names.join(", "))
    })?;
    Ok(Wire::Varint(i64::from(number) as u64))
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Appends a value from the text of a path, a query or a form.
///
/// # Errors
/// What a field of this kind takes instead.
pub fn put_text(
    kind: &Kind,
    number: Option<u32>,
    text: &str,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let value = match (kind, text) {
        (Kind::Bool, "true" | "True" | "1" | "") => Scalar::Bool(true),
        (Kind::Bool, "false" | "False" | "0") => Scalar::Bool(false),
        (Kind::Enum(_), _) => match text.parse() {
            Ok(number) => Scalar::Signed(number),
            Err(_) => Scalar::Text(text),
        },
        _ => Scalar::Text(text),
    };
    put(kind, number, value, out)
}

/// What is said of a text that is no base64.
fn no_base64(text: &str) -> String {
    let hint = match text {
        _ if text.starts_with("data:") => ", alone: without what a data: address has before it",
        _ if text.contains(['\n', '\r', ' ']) => ", without line ends and spaces (base64 -w 0)",
        _ => "",
    };
    format!("{}{hint}", expected(&Kind::Bytes))
}

/// Appends the length and the bytes that a text stands for; gives how many they
/// are.
pub fn base64(text: &str, out: &mut Vec<u8>) -> Option<usize> {
    let digits = text.trim_end_matches('=').len();
    let length = digits / 4 * 3 + (digits % 4 * 3) / 4;
    let engine = match text.contains(['-', '_']) {
        true => URL_SAFE,
        false => STANDARD,
    };
    encode_varint(length as u64, out);
    let start = out.len();
    out.resize(start + length, 0);
    let written = engine.decode_slice(text, out.get_mut(start..)?).ok()?;
    (written == length).then_some(length)
}

fn signed(value: Scalar<'_>) -> Option<i64> {
    match value {
        Scalar::Signed(value) => Some(value),
        Scalar::Unsigned(value) => i64::try_from(value).ok(),
        // "1e3" and "2.0" are integers to JSON.
        Scalar::Float(value, _) => whole(value).map(|value| value as i64),
        Scalar::Text(text) => text.parse().ok(),
        Scalar::Bool(_) => None,
    }
}

fn unsigned(value: Scalar<'_>) -> Option<u64> {
    match value {
        Scalar::Unsigned(value) => Some(value),
        Scalar::Signed(value) => u64::try_from(value).ok(),
        Scalar::Float(value, _) => whole(value).filter(|v| *v >= 0.0).map(|value| value as u64),
        Scalar::Text(text) => text.parse().ok(),
        Scalar::Bool(_) => None,
    }
}

/// A float that is an integer, and one that a float holds exactly.
fn whole(value: f64) -> Option<f64> {
    const EXACT: f64 = (1_u64 << 53) as f64;
    (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value)
}

fn float(value: Scalar<'_>) -> Option<f64> {
    match value {
        Scalar::Float(value, _) => Some(value),
        Scalar::Signed(value) => Some(value as f64),
        Scalar::Unsigned(value) => Some(value as f64),
        Scalar::Text("NaN") => Some(f64::NAN),
        Scalar::Text("Infinity") => Some(f64::INFINITY),
        Scalar::Text("-Infinity") => Some(f64::NEG_INFINITY),
        // Rust would read "inf" and "nan", too.
        Scalar::Text(text) if text.bytes().any(|b| b.is_ascii_digit()) => {
            text.parse().ok().filter(|value: &f64| value.is_finite())
        }
        Scalar::Text(_) | Scalar::Bool(_) => None,
    }
}

/// As a 32-bit number; one that is finite and too large for it is none.
fn float32(value: Scalar<'_>) -> Option<f32> {
    let wide = float(value)?;
    let narrow = match value {
        Scalar::Float(_, narrow) => narrow,
        Scalar::Signed(value) => value as f32,
        Scalar::Unsigned(value) => value as f32,
        Scalar::Text(text) if wide.is_finite() => text.parse().ok()?,
        Scalar::Text(_) | Scalar::Bool(_) => wide as f32,
    };
    (narrow.is_finite() || !wide.is_finite()).then_some(narrow)
}
