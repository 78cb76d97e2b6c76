use std::collections::HashMap;

use prost::Message as _;
use prost_types::FileDescriptorSet;

use super::{
    layout::{Kind, Layout, collect},
    *,
};
use crate::{DESCRIPTORS, inference, v1};

fn size_of_element(name: &str) -> usize {
    let set = FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors");
    let mut layout = Layout {
        messages: HashMap::new(),
    };
    for file in &set.file {
        let package = format!(".{}", file.package());
        collect(&mut layout.messages, &package, &file.message_type);
    }
    layout.message(name, DEPTH)
}

#[test]
fn the_layout_is_an_upper_bound_and_not_a_wild_one() {
    for (name, real) in [
        (".tipserve.v1.ClassSpec", size_of::<v1::ClassSpec>()),
        (".tipserve.v1.Example", size_of::<v1::Example>()),
        (".tipserve.v1.Item", size_of::<v1::Item>()),
        (".tipserve.v1.Input", size_of::<v1::Input>()),
        (".tipserve.v1.LabelledItem", size_of::<v1::LabelledItem>()),
        (".tipserve.v1.CacheSpec", size_of::<v1::CacheSpec>()),
        (
            ".inference.ModelInferRequest.InferInputTensor",
            size_of::<inference::model_infer_request::InferInputTensor>(),
        ),
        (
            ".inference.ModelInferRequest.InferRequestedOutputTensor",
            size_of::<inference::model_infer_request::InferRequestedOutputTensor>(),
        ),
    ] {
        let bound = size_of_element(name);
        assert!(bound >= real, "{name}: {bound} is under {real}");
        assert!(bound <= 2 * real, "{name}: {bound} is far over {real}");
    }
}

/// Every repeated field of every request, at any depth: a megabyte of empty
/// elements is refused, a few are not.
#[test]
fn every_repeated_field_of_every_request_is_counted() {
    let mut seen = 0;
    for name in known_messages() {
        let shape = SHAPES.by_name[name];
        for (number, field) in &SHAPES.all[shape].fields {
            if field.element < 2 * FACTOR {
                continue;
            }
            let key = u8::try_from(number << 3 | 2).ok().filter(|key| *key < 0x80);
            let Some(key) = key else { continue };
            let element = [key, 0];
            if matches!(field.kind, Kind::Varint | Kind::Fixed(_)) {
                continue;
            }
            seen += 1;
            assert_eq!(check(name, &element.repeat(100)), Ok(()), "{name}.{number}");
            assert!(
                matches!(
                    check(name, &element.repeat(1 << 19)),
                    Err(CostError::TooManyElements(_))
                ),
                "{name}.{number} with elements of {} bytes",
                field.element
            );
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn what_clients_send_passes() {
    let classes = |count: usize| v1::CreateCacheRequest {
        payload: Some(v1::create_cache_request::Payload::Spec(v1::CacheSpec {
            classes: (0..count)
                .map(|index| v1::ClassSpec {
                    display_name: index.to_string(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        })),
    };
    let dark = inference::ModelInferRequest {
        inputs: vec![inference::model_infer_request::InferInputTensor {
            contents: Some(inference::InferTensorContents {
                uint_contents: vec![0; 3 << 20],
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..Default::default()
    };
    let texts = v1::EmbedRequest {
        texts: vec!["cat".to_owned(); 10_000],
        ..Default::default()
    };
    for (name, bytes) in [
        (
            "tipserve.v1.CreateCacheRequest",
            classes(10).encode_to_vec(),
        ),
        (
            "tipserve.v1.CreateCacheRequest",
            classes(100_000).encode_to_vec(),
        ),
        ("inference.ModelInferRequest", dark.encode_to_vec()),
        ("tipserve.v1.EmbedRequest", texts.encode_to_vec()),
    ] {
        assert_eq!(check(name, &bytes), Ok(()), "{name}, {} bytes", bytes.len());
    }
}

#[test]
fn what_is_malformed_is_left_to_the_decoder() {
    for bytes in [&[0x0a][..], &[0x0a, 0xff], &[0x0a, 5, 1], &[0x80; 12]] {
        assert_eq!(
            check("tipserve.v1.EmbedRequest", bytes),
            Err(CostError::Malformed),
            "{bytes:?}"
        );
    }
}
