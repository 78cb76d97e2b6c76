//! `GetServerInfo`.

use tonic::Response;

use super::Context;
use crate::auth::Caller;
use crate::catalog::{
    MAX_CREATED_BY_BYTES, MAX_DESCRIPTION_BYTES, MAX_ID_BYTES, MAX_LABEL_KEY_BYTES,
    MAX_LABEL_VALUE_BYTES, MAX_LABELS, MAX_METADATA_ENTRIES, MAX_NAME_BYTES, MAX_URI_BYTES, Model,
};
use tipserve_api::v1 as pb;
use tipserve_clip::{Agreement, PartSpec, Size};

/// What is served here and within which limits, and who is asking.
pub fn serve(context: &Context, caller: &Caller) -> Response<pb::ServerInfo> {
    let model = context.catalog.model();
    Response::new(pb::ServerInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        bundle: Some(bundle(model, context.engine.takes_pictures())),
        device: model.device.clone(),
        dtype: model.precision.name().to_owned(),
        text_dtype: model
            .text_precision
            .map_or_else(String::new, |precision| precision.name().to_owned()),
        limits: limits(context)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        caller: Some(pb::CallerInfo {
            name: match caller.is_known() {
                true => caller.who(),
                false => String::new(),
            },
            role: caller.role().to_string(),
            cache_prefix: caller.prefix().to_owned(),
        }),
    })
}

/// The limits by name; all but the constant ones are settings.
fn limits(context: &Context) -> Vec<(&'static str, i64)> {
    let limits = &context.limits;
    let settings = context.engine.settings();
    let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    vec![
        ("max_message_bytes", number(limits.max_message_bytes)),
        ("stream_window", number(limits.stream_window)),
        ("max_classes", number(limits.max_classes)),
        ("max_examples", number(limits.max_examples)),
        ("max_create_bytes", number(limits.max_create_bytes)),
        ("max_import_bytes", number(limits.max_import_bytes)),
        ("max_id_bytes", number(MAX_ID_BYTES)),
        (
            "max_picture_bytes",
            i64::try_from(limits.picture.encoded_bytes).unwrap_or(i64::MAX),
        ),
        (
            "max_pixels",
            i64::try_from(limits.picture.pixels).unwrap_or(i64::MAX),
        ),
        ("max_side", i64::from(limits.picture.side)),
        (
            "max_frames",
            i64::try_from(limits.picture.frames).unwrap_or(i64::MAX),
        ),
        (
            "max_decoder_bytes",
            i64::try_from(limits.picture.decoder_bytes).unwrap_or(i64::MAX),
        ),
        ("max_streams", number(limits.max_streams)),
        (
            "max_connection_streams",
            i64::from(limits.max_connection_streams),
        ),
        ("max_token_streams", number(limits.max_token_streams)),
        ("max_connections", number(limits.max_connections)),
        (
            "max_address_connections",
            number(limits.max_address_connections),
        ),
        (
            "max_connection_age_seconds",
            i64::try_from(limits.max_connection_age_seconds).unwrap_or(i64::MAX),
        ),
        ("max_unfinished_bytes", number(limits.max_unfinished_bytes)),
        (
            "message_seconds",
            i64::try_from(limits.message_seconds).unwrap_or(i64::MAX),
        ),
        ("max_prompts", number(limits.max_prompts)),
        ("max_prompt_bytes", number(super::create::MAX_PROMPT_BYTES)),
        (
            "max_control_message_bytes",
            number(super::messages::MAX_CONTROL_MESSAGE_BYTES),
        ),
        (
            "max_probe_message_bytes",
            number(super::messages::MAX_PROBE_MESSAGE_BYTES),
        ),
        ("max_embed_items", number(super::embed::MAX_ITEMS)),
        ("queue_items", number(settings.queue_items)),
        ("queue_bytes", number(settings.queue_bytes)),
        ("max_batch", number(settings.max_batch)),
        (
            "embedding_cache_bytes",
            number(settings.embedding_cache_bytes),
        ),
        ("resident_bytes", number(context.catalog.resident_bytes())),
        ("max_name_bytes", number(MAX_NAME_BYTES)),
        ("max_description_bytes", number(MAX_DESCRIPTION_BYTES)),
        ("max_created_by_bytes", number(MAX_CREATED_BY_BYTES)),
        ("max_labels", number(MAX_LABELS)),
        ("max_label_key_bytes", number(MAX_LABEL_KEY_BYTES)),
        ("max_label_value_bytes", number(MAX_LABEL_VALUE_BYTES)),
        ("max_uri_bytes", number(MAX_URI_BYTES)),
        ("max_metadata_entries", number(MAX_METADATA_ENTRIES)),
        ("max_filter_bytes", number(super::filter::MAX_BYTES)),
        ("max_versions", number(super::evaluate::MAX_VERSIONS)),
        ("max_pool", number(tip_adapter::suggest::POOL_LIMIT)),
        (
            "max_request_id_bytes",
            number(tipserve_store::MAX_REQUEST_ID_BYTES),
        ),
    ]
}

/// The bundle that is served, as the API describes it.
fn bundle(model: &Model, takes_pictures: bool) -> pb::BundleInfo {
    let mut info = pb::BundleInfo {
        name: model.name.clone(),
        fingerprint: model.fingerprint.clone(),
        width: model.width as i32,
        has_image_encoder: takes_pictures,
        has_text_encoder: model.has_text,
        logit_scale: model.logit_scale,
        logit_bias: model.logit_bias,
        templates: model.templates.clone(),
        int8: model.int8.as_ref().map(agreement),
        ..pb::BundleInfo::default()
    };
    let Some(image) = &model.image else {
        return info;
    };
    // A client can prepare one square of a picture; only the server can do
    // anything else.
    let one_square =
        image.parts.is_empty() && image.size.is_square() && image.resize_to.is_square();
    let parts = image.parts();
    let longest = |size: fn(&PartSpec) -> Size| {
        let sides = parts.iter().map(|part| size(part).longest());
        sides.max().map_or(0, |side| side as i32)
    };
    info.image_size = longest(|part| part.size);
    info.resize_to = longest(|part| part.resize_to);
    let kernel = parts.first().map(|part| part.interpolation.name());
    info.interpolation = kernel.unwrap_or_default().to_owned();
    info.resize = match one_square {
        true => image.resize.name(),
        false => RESIZED_BY_THE_SERVER,
    }
    .to_owned();
    info
}

/// The value of `BundleInfo.resize` if a client cannot do what the server does.
const RESIZED_BY_THE_SERVER: &str = "server";

fn agreement(found: &Agreement) -> pb::EncoderAgreement {
    pb::EncoderAgreement {
        source: found.source.clone(),
        count: i64::try_from(found.count).unwrap_or(i64::MAX),
        cosine_least: found.cosine_least,
        cosine_mean: found.cosine_mean,
        noise: found.noise,
        neighbour: found.neighbour,
        head: found.head,
    }
}
