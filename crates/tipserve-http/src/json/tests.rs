//! Messages of every request, made up, shown as JSON by prost-reflect and read
//! back by this crate: an independent writer of the same format.

use std::collections::HashMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    SerializeOptions, Value,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;

const LARGEST: usize = 1 << 20;

fn pool() -> DescriptorPool {
    crate::rules::pool(tipserve_api::DESCRIPTORS).expect("a pool")
}

/// The requests of all methods that HTTP has.
fn requests() -> Vec<MessageDescriptor> {
    let routes = crate::rules::routes(&pool()).expect("routes");
    routes.iter().map(|route| route.rpc.input.clone()).collect()
}

fn text(chance: &mut StdRng) -> String {
    const LETTERS: [char; 8] = ['a', 'ß', '\u{1f408}', '"', '\\', '\n', '\u{7f}', ' '];
    let length = chance.random_range(0..6);
    (0..length)
        .map(|_| LETTERS[chance.random_range(0..LETTERS.len())])
        .collect()
}

fn scalar(kind: &Kind, chance: &mut StdRng) -> Value {
    match kind {
        Kind::Double => Value::F64(f64::from_bits(chance.random())),
        Kind::Float => Value::F32(f32::from_bits(chance.random())),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(chance.random()),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(chance.random()),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(chance.random()),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(chance.random()),
        Kind::Bool => Value::Bool(chance.random()),
        Kind::String => Value::String(text(chance)),
        Kind::Bytes => {
            let length = chance.random_range(0..300);
            let bytes: Vec<u8> = (0..length).map(|_| chance.random()).collect();
            Value::Bytes(bytes.into())
        }
        Kind::Enum(values) => {
            let at = chance.random_range(0..values.values().len());
            let value = values.values().nth(at).expect("a value");
            Value::EnumNumber(value.number())
        }
        Kind::Message(message) => Value::Message(made_up(message, chance)),
    }
}

fn value(field: &FieldDescriptor, chance: &mut StdRng) -> Value {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else {
            unreachable!("a map has entries")
        };
        let of = entry.get_field(2).expect("a value").kind();
        let entries: HashMap<_, _> = (0..chance.random_range(0..4))
            .map(|_| (MapKey::String(text(chance)), scalar(&of, chance)))
            .collect();
        return Value::Map(entries);
    }
    match field.cardinality() {
        Cardinality::Repeated => {
            let count = chance.random_range(0..5);
            Value::List((0..count).map(|_| scalar(&field.kind(), chance)).collect())
        }
        _ => scalar(&field.kind(), chance),
    }
}

fn made_up(message: &MessageDescriptor, chance: &mut StdRng) -> DynamicMessage {
    let mut made = DynamicMessage::new(message.clone());
    match message.full_name() {
        "google.protobuf.Duration" | "google.protobuf.Timestamp" => {
            let seconds: i64 = chance.random_range(0..4_000_000_000);
            made.set_field_by_name("seconds", Value::I64(seconds));
            let nanos = chance.random_range(0..1_000_000_000);
            made.set_field_by_name("nanos", Value::I32(nanos));
        }
        // Of a type that is known: of another it cannot be shown.
        "google.protobuf.Any" => {
            let kind = "type.googleapis.com/google.rpc.ErrorInfo".to_owned();
            made.set_field_by_name("type_url", Value::String(kind));
        }
        "google.protobuf.FieldMask" => {
            let paths = ["name", "latest.key_count"].map(|path| Value::String(path.to_owned()));
            made.set_field_by_name("paths", Value::List(paths.to_vec()));
        }
        _ => {
            for field in message.fields() {
                if chance.random_bool(0.6) {
                    let value = value(&field, chance);
                    made.set_field(&field, value);
                }
            }
        }
    }
    made
}

/// Not a number is equal to nothing, but the same message; maps have no order.
fn same(one: &DynamicMessage, other: &DynamicMessage) -> bool {
    serde_json::to_value(one).expect("JSON") == serde_json::to_value(other).expect("JSON")
}

#[test]
fn every_request_is_read_as_another_writer_shows_it() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    for message in requests() {
        for turn in 0..40 {
            let made = made_up(&message, &mut chance);
            let options = SerializeOptions::new()
                .use_proto_field_name(turn % 2 == 0)
                .use_enum_numbers(turn % 3 == 0)
                .stringify_64_bit_integers(turn % 5 != 0);
            let mut json = Vec::new();
            let mut serializer = serde_json::Serializer::new(&mut json);
            made.serialize_with_options(&mut serializer, &options)
                .expect("JSON");
            let shown = String::from_utf8_lossy(&json);
            let mut wire = Vec::new();
            write::write(&message, &json, LARGEST, &mut wire)
                .unwrap_or_else(|error| panic!("{}: {error}: {shown}", message.full_name()));
            let read = DynamicMessage::decode(message.clone(), wire.as_slice()).expect("decodes");
            assert!(same(&made, &read), "{}: {shown}", message.full_name());
        }
    }
}

/// The answers of all methods with an HTTP route, and the errors.
fn answers() -> Vec<MessageDescriptor> {
    let pool = pool();
    let routes = crate::rules::routes(&pool).expect("routes");
    let status = pool.get_message_by_name("google.rpc.RetryInfo");
    let outputs = routes.iter().map(|route| route.rpc.output.clone());
    outputs.chain(status).collect()
}

#[test]
fn every_answer_is_shown_as_another_writer_shows_it() {
    use prost::Message as _;
    let seed = rand::random();
    println!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    for message in answers() {
        for style in [Style::Proto, Style::Plain] {
            for _ in 0..20 {
                let made = made_up(&message, &mut chance);
                let options = SerializeOptions::new()
                    .skip_default_fields(false)
                    .stringify_64_bit_integers(style == Style::Proto)
                    .use_proto_field_name(style == Style::Plain);
                let mut json = Vec::new();
                made.serialize_with_options(&mut serde_json::Serializer::new(&mut json), &options)
                    .expect("JSON");
                let wanted: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
                let mut shown = Vec::new();
                render(&message, &made.encode_to_vec(), style, &mut shown)
                    .unwrap_or_else(|error| panic!("{}: {error}", message.full_name()));
                let read: serde_json::Value = serde_json::from_slice(&shown)
                    .unwrap_or_else(|error| panic!("{}: {error}", message.full_name()));
                assert_eq!(read, wanted, "{}", message.full_name());
            }
        }
    }
}

#[test]
fn packed_answers_are_read_back_to_the_same_message() {
    use prost::Message as _;
    let seed = rand::random();
    println!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    for message in requests() {
        for _ in 0..20 {
            let made = made_up(&message, &mut chance);
            let mut json = Vec::new();
            render(&message, &made.encode_to_vec(), Style::Packed, &mut json).expect("JSON");
            let mut wire = Vec::new();
            write::write(&message, &json, LARGEST, &mut wire)
                .unwrap_or_else(|error| panic!("{}: {error}", message.full_name()));
            let read = DynamicMessage::decode(message.clone(), wire.as_slice()).expect("decodes");
            assert!(same(&made, &read), "{}", message.full_name());
        }
    }
}

#[test]
fn bytes_that_are_no_message_are_an_error() {
    use prost::Message as _;
    let mut chance = StdRng::seed_from_u64(rand::random());
    for message in answers() {
        let whole = made_up(&message, &mut chance).encode_to_vec();
        for _ in 0..20 {
            let mut altered = whole.clone();
            for byte in &mut altered {
                if chance.random_bool(0.05) {
                    *byte = chance.random();
                }
            }
            let mut shown = Vec::new();
            if render(&message, &altered, Style::Proto, &mut shown).is_ok() {
                serde_json::from_slice::<serde::de::IgnoredAny>(&shown).expect("JSON");
            }
        }
    }
}

#[test]
fn cut_and_altered_json_is_an_error_or_a_message_and_never_more() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    for message in requests() {
        for _ in 0..20 {
            let json = serde_json::to_vec(&made_up(&message, &mut chance)).expect("JSON");
            let mut altered = json.clone();
            for _ in 0..3 {
                let at = chance.random_range(0..altered.len());
                altered[at] = chance.random();
            }
            altered.truncate(chance.random_range(0..=json.len()));
            let mut wire = Vec::new();
            if write::write(&message, &altered, LARGEST, &mut wire).is_ok() {
                DynamicMessage::decode(message.clone(), wire.as_slice()).expect("decodes");
            }
        }
    }
}

#[test]
fn a_message_over_its_limit_is_not_written_on() {
    let pool = pool();
    let message = pool
        .get_message_by_name("tipserve.v1.EmbedRequest")
        .expect("a message");
    let json = format!(
        r#"{{"inputs":[{{"embedding":{{"values":[{}1]}}}}]}}"#,
        "1,".repeat(1 << 20)
    );
    let mut wire = Vec::new();
    let refused = write::write(&message, json.as_bytes(), 1 << 16, &mut wire);
    assert_eq!(refused, Err(JsonError::TooLarge(1 << 16)));
    assert!(wire.len() < 1 << 17, "{}", wire.len());
}

/// The fields of an embedding from a list of numbers.
fn values(list: &str) -> Result<Vec<f32>, JsonError> {
    use prost::Message as _;
    let message = pool().get_message_by_name("tipserve.v1.Embedding");
    let json = format!(r#"{{"values":{list}}}"#);
    let mut wire = Vec::new();
    write::write(
        &message.expect("a message"),
        json.as_bytes(),
        LARGEST,
        &mut wire,
    )?;
    let read = tipserve_api::v1::Embedding::decode(wire.as_slice()).expect("decodes");
    Ok(read.values)
}

#[test]
fn numbers_are_read_to_the_last_bit_however_they_are_written() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let wanted: Vec<f32> = (0..4000)
        .map(|_| f32::from_bits(chance.random()))
        .filter(|value| value.is_finite())
        .collect();
    let ways: [fn(&f32) -> String; 4] = [
        |value| value.to_string(),
        |value| format!("{value:e}"),
        |value| f64::from(*value).to_string(),
        |value| format!("\n\t {:e} ", f64::from(*value)),
    ];
    for way in ways {
        let list: Vec<String> = wanted.iter().map(way).collect();
        let read = values(&format!("[{}]", list.join(","))).expect("numbers");
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&read), bits(&wanted));
    }
}

#[test]
fn odd_lists_of_numbers_are_read_or_refused_by_name() {
    assert_eq!(values("[]"), Ok(vec![]));
    assert_eq!(values(" [ ] "), Ok(vec![]));
    assert_eq!(values("null"), Ok(vec![]));
    assert_eq!(values("[1, -2.5e0,\"3\"]"), Ok(vec![1.0, -2.5, 3.0]));
    assert_eq!(values("[\"-Infinity\"]"), Ok(vec![f32::NEG_INFINITY]));
    for (list, field) in [
        ("[1,null]", "values[1]"),
        ("[1,2,1e39]", "values[2]"),
        ("[1,true]", "values[1]"),
        ("[1,\"inf\"]", "values[1]"),
        ("[1,[2]]", "values[1]"),
        ("[1,{\"a\":[2,3]}]", "values[1]"),
        ("\"1,2\"", "values"),
        ("{\"0\":1}", "values"),
        ("7", "values"),
    ] {
        let Err(JsonError::Field { field: named, .. }) = values(list) else {
            panic!("{list} is taken");
        };
        assert_eq!(named, field, "{list}");
    }
    let packed = |values: &[f32]| {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        format!("\"{}\"", BASE64_STANDARD.encode(bytes))
    };
    for list in [&[][..], &[1.5], &[0.1, -2.0, 3e30]] {
        assert_eq!(values(&packed(list)), Ok(list.to_vec()));
    }
    for cut in ["\"AAAAAAA=\"", "\"AA\"", "\"@@@@\""] {
        assert!(matches!(values(cut), Err(JsonError::Field { field, .. }) if field == "values"));
    }
    for broken in [
        "[1,]", "[,1]", "[1 2]", "[1", "[01]", "[+1]", "[1.]", "[NaN]",
    ] {
        assert!(
            matches!(values(broken), Err(JsonError::Syntax(_))),
            "{broken}"
        );
    }
}
