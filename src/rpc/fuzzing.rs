//! An entry for the fuzz targets in `fuzz/`. Compiled under `--cfg fuzzing`,
//! and in tests, so that it keeps compiling.

// What must not happen ends the run.
#![allow(clippy::expect_used)]

use std::time::Instant;

use prost::Message;

use super::{
    answer::Options,
    caches::listing::{CACHE_FIELDS, EXAMPLE_FIELDS},
    error::ApiError,
    filter::{Filter, Value},
    heads, paging, request,
};
use tipserve_api::v1::{self as pb, classify_stream_request, create_cache_request};
use tipserve_clip::ExifOrientation;
use tipserve_engine::Crop;
use tipserve_store::{AliasName, CacheId, Reference};

const WIDTH: usize = 4;

/// Decodes a request (the first byte says which) and checks it, as far as that
/// needs no server. Every error becomes the status that a client would get.
pub fn message(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind % 7 {
        0 => stream(bytes),
        1 => create(bytes),
        2 => listing(bytes),
        3 => embed(bytes),
        4 => text(bytes),
        5 => fine_tune(bytes),
        _ => filter(bytes),
    }
}

fn said(result: Result<(), impl Into<ApiError>>) {
    if let Err(error) = result {
        let problem: ApiError = error.into();
        let status = problem.to_item_status();
        assert!(status.code > 0 && !status.details.is_empty());
    }
}

fn name(name: &str) {
    if let Ok(reference) = name.parse::<Reference>() {
        // A name that was taken reads back as itself.
        let _ = reference.to_string();
    }
    said(CacheId::parse_name(name).map(drop));
    said(name.parse::<AliasName>().map(drop));
}

fn item(item: pb::Item) {
    said(request::check_id("items.id", &item.id));
    said(request::item_deadline(item.time_limit, None, Instant::now()).map(drop));
    input(item.input);
}

fn input(input: Option<pb::Input>) {
    said(request::content(input, Crop::Centre, WIDTH, ExifOrientation::Apply).map(drop));
}

fn stream(bytes: &[u8]) {
    match pb::ClassifyStreamRequest::decode(bytes).map(|request| request.payload) {
        Ok(Some(classify_stream_request::Payload::Config(config))) => {
            name(&config.cache);
            said(request::priority(config.priority).map(drop));
            said(Options::check(config.options.unwrap_or_default()).map(drop));
        }
        Ok(Some(classify_stream_request::Payload::Items(batch))) => {
            batch.items.into_iter().for_each(item);
        }
        _ => {}
    }
}

fn create(bytes: &[u8]) {
    match pb::CreateCacheRequest::decode(bytes).map(|request| request.payload) {
        Ok(Some(create_cache_request::Payload::Spec(spec))) => {
            name(&spec.cache_id);
            let method = heads::method(spec.method).map(|asked| match asked {
                heads::MethodChoice::This(method) => Some(method),
                _ => None,
            });
            said(method.and_then(|method| {
                let numbers = heads::Numbers {
                    alpha: spec.alpha,
                    beta: spec.beta,
                    lambda: spec.lambda,
                    grid: spec.grid,
                };
                let balance = heads::class_balance(spec.class_balance)?;
                let dtype = heads::key_dtype(spec.key_dtype)?;
                heads::request(method, numbers, balance, dtype).map(drop)
            }));
            for class in spec.classes {
                if let Some(weight) = class.text_weight {
                    said(request::unit("text_weight", weight.values, WIDTH).map(drop));
                }
            }
        }
        Ok(Some(create_cache_request::Payload::Examples(batch))) => {
            for example in batch.examples {
                said(request::check_id("examples.id", &example.example_id));
                input(example.input);
            }
        }
        _ => {}
    }
}

fn listing(bytes: &[u8]) {
    if let Ok(request) = pb::ListCachesRequest::decode(bytes) {
        said(paging::size(request.page_size).map(drop));
        said(Filter::parse(&request.filter, CACHE_FIELDS).map(drop));
        said(paging::mask(
            &mut pb::Cache::default(),
            request.read_mask.as_ref(),
        ));
        name(&request.page_token);
    }
}

fn embed(bytes: &[u8]) {
    if let Ok(request) = pb::EmbedRequest::decode(bytes) {
        request.inputs.into_iter().map(Some).for_each(input);
    }
}

fn text(bytes: &[u8]) {
    name(&String::from_utf8_lossy(bytes));
}

fn fine_tune(bytes: &[u8]) {
    if let Ok(request) = pb::FineTuneRequest::decode(bytes) {
        name(&request.cache);
        name(&request.move_alias);
        said(heads::grid("grid", request.grid).map(drop));
    }
}

fn filter(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for schema in [CACHE_FIELDS, EXAMPLE_FIELDS] {
        match Filter::parse(&text, schema) {
            Err(error) => said(Err(error)),
            Ok(filter) => {
                filter.lets_through(|_, _| Some(Value::Absent));
                filter.lets_through(|_, _| Some(Value::Text(&text)));
            }
        }
    }
}
