//! What decoding really allocates, against what it was said to cost.

// A test stops where something is not as it says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use peak_alloc::PeakAlloc;
use prost::{
    Message, Name,
    encoding::{WireType, encode_key, encode_varint},
};
use prost_types::{
    DescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tipserve_api::{
    DESCRIPTORS,
    decode_cost::{allowed, check, cost},
    inference, v1,
};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// A vector that grows holds its old half beside a new whole, which may be
/// half empty.
const GROWTH: usize = 3;
/// The message itself, and the smallest vectors (four elements).
const BESIDES: usize = 16 << 10;

/// Decodes, and gives the most bytes that were allocated at once.
fn decode<M: Message + Default>(bytes: &[u8]) -> usize {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let message = M::decode(bytes).expect("well-formed");
    let peak = MEMORY.peak_usage() - before;
    drop(message);
    peak
}

type Decode = fn(&[u8]) -> usize;

/// Every request that can be large, with its name.
fn requests() -> Vec<(String, Decode)> {
    macro_rules! requests {
        ($($message:ty),* $(,)?) => {
            vec![$((<$message>::full_name(), decode::<$message> as Decode)),*]
        };
    }
    requests![
        v1::CreateCacheRequest,
        v1::AddExamplesRequest,
        v1::ImportVersionRequest,
        v1::ClassifyRequest,
        v1::ClassifyStreamRequest,
        v1::EmbedRequest,
        v1::EvaluateRequest,
        inference::ModelInferRequest,
    ]
}

struct Messages(Vec<(String, DescriptorProto)>);

impl Messages {
    fn read() -> Messages {
        let set = FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors");
        let mut all = Vec::new();
        for file in set.file {
            for message in file.message_type {
                collect(
                    &mut all,
                    &format!(".{}", file.package.clone().unwrap_or_default()),
                    message,
                );
            }
        }
        Messages(all)
    }

    fn get(&self, name: &str) -> &DescriptorProto {
        let found = self.0.iter().find(|(known, _)| known == name);
        &found.unwrap_or_else(|| panic!("{name}")).1
    }

    /// Ways to repeated fields: each with the last field's type.
    fn ways(&self, name: &str, before: &[u32], found: &mut Vec<(Vec<u32>, Type)>) {
        for field in &self.get(name).field {
            let mut way = before.to_vec();
            way.push(u32::try_from(field.number()).expect("a number"));
            if field.label() == Label::Repeated {
                found.push((way.clone(), field.r#type()));
            }
            if field.r#type() == Type::Message {
                self.ways(field.type_name(), &way, found);
            }
        }
    }
}

fn collect(all: &mut Vec<(String, DescriptorProto)>, prefix: &str, message: DescriptorProto) {
    let name = format!("{prefix}.{}", message.name());
    for nested in message.nested_type.clone() {
        collect(all, &name, nested);
    }
    all.push((name, message));
}

/// `count` elements at the end of a way, of `content` each.
fn message(way: &[u32], kind: Type, content: &[u8], count: usize) -> Vec<u8> {
    let (last, outer) = way.split_last().expect("a way");
    let mut bytes = Vec::new();
    match kind {
        Type::Message | Type::String | Type::Bytes => {
            for _ in 0..count {
                encode_key(*last, WireType::LengthDelimited, &mut bytes);
                encode_varint(content.len() as u64, &mut bytes);
                bytes.extend(content);
            }
        }
        packed => {
            let width = match packed {
                Type::Float | Type::Fixed32 | Type::Sfixed32 => 4,
                Type::Double | Type::Fixed64 | Type::Sfixed64 => 8,
                _ => 1,
            };
            encode_key(*last, WireType::LengthDelimited, &mut bytes);
            encode_varint((count * width) as u64, &mut bytes);
            bytes.resize(bytes.len() + count * width, 1);
        }
    }
    for number in outer.iter().rev() {
        let inner = std::mem::take(&mut bytes);
        encode_key(*number, WireType::LengthDelimited, &mut bytes);
        encode_varint(inner.len() as u64, &mut bytes);
        bytes.extend(inner);
    }
    bytes
}

/// One test in this binary: the allocator counts for the whole process.
#[test]
fn decoding_takes_no_more_than_it_was_said_to_cost() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let messages = Messages::read();
    let (mut tried, mut refused) = (0, 0);
    for (name, decode) in requests() {
        let mut ways = Vec::new();
        messages.ways(&format!(".{name}"), &[], &mut ways);
        for (way, kind) in ways {
            for _ in 0..12 {
                let count = 1 << random.random_range(0..19);
                let content = match (kind, random.random_bool(0.5)) {
                    (Type::String | Type::Bytes, true) => vec![b'a'; random.random_range(1..20)],
                    _ => Vec::new(),
                };
                let bytes = message(&way, kind, &content, random.random_range(1..=count));
                let cost = cost(&name, &bytes).expect("well-formed");
                let passes = check(&name, &bytes).is_ok();
                assert_eq!(passes, cost <= allowed(bytes.len()), "{name} {way:?}");
                tried += 1;
                if !passes {
                    refused += 1;
                    continue;
                }
                let taken = decode(&bytes);
                assert!(
                    taken <= GROWTH * cost + BESIDES,
                    "{name} {way:?}: {} bytes, said to cost {cost}, took {taken}",
                    bytes.len()
                );
            }
        }
    }
    println!("{tried} messages, {refused} of them refused");
    assert!(tried > 200 && refused > 0);
}
