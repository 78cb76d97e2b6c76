//! `GetServerInfo`.

use std::collections::BTreeMap;

use tonic::Response;

use super::{
    Context,
    messages::{MAX_CONTROL_MESSAGE_BYTES, MAX_PROBE_MESSAGE_BYTES},
};
use crate::{
    auth::{Caller, MAX_ADDRESS_PROBE_STREAMS, MAX_PROBE_STREAMS},
    catalog::{
        LoadedBundle, MAX_BUNDLES, MAX_CREATED_BY_BYTES, MAX_DESCRIPTION_BYTES, MAX_ID_BYTES,
        MAX_LABEL_KEY_BYTES, MAX_LABEL_VALUE_BYTES, MAX_LABELS, MAX_METADATA_ENTRIES,
        MAX_MULTI_LABEL_CLASSES, MAX_NAME_BYTES, MAX_SELECTION_LABELS, MAX_URI_BYTES, OpenBundles,
    },
};
use tipserve_api::v1 as pb;
use tipserve_clip::{Agreement, PartSpec, Size};
use tipserve_engine::EngineSettings;
use tipserve_store::MAX_REQUEST_ID_BYTES;

/// What is served here and within which limits, and who is asking.
pub fn serve(context: &Context, caller: &Caller) -> Response<pb::ServerInfo> {
    let open = context.catalog.bundles().open();
    let model = &open.default.model;
    let default = bundle(&open.default);
    Response::new(pb::ServerInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        bundle: Some(pb::BundleInfo {
            // A client that resizes does it for every cache alike.
            resize: match prepare_alike(&open) {
                true => default.resize.clone(),
                false => RESIZED_BY_THE_SERVER.to_owned(),
            },
            ..default
        }),
        bundles: open.iter().map(|loaded| bundle(loaded)).collect(),
        device: model.device.clone(),
        dtype: model.precision.name().to_owned(),
        text_dtype: model
            .text_precision
            .map_or_else(String::new, |precision| precision.name().to_owned()),
        limits: limits(context, open.default.engine.settings())
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

/// The limits by name: settings, as [`SETTINGS`](crate::config::SETTINGS)
/// declares them, and what is fixed.
fn limits(context: &Context, settings: &EngineSettings) -> BTreeMap<&'static str, i64> {
    let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    let decided = [
        ("max_batch", settings.max_batch),
        ("resident_bytes", context.catalog.resident_bytes()),
    ];
    let fixed = [
        ("max_address_probe_streams", MAX_ADDRESS_PROBE_STREAMS),
        ("max_bundles", MAX_BUNDLES),
        ("max_control_message_bytes", MAX_CONTROL_MESSAGE_BYTES),
        ("max_created_by_bytes", MAX_CREATED_BY_BYTES),
        ("max_description_bytes", MAX_DESCRIPTION_BYTES),
        ("max_embed_items", super::embed::MAX_ITEMS),
        (
            "max_evaluated_labels",
            super::evaluate::MAX_EVALUATED_LABELS,
        ),
        ("max_filter_bytes", super::filter::MAX_BYTES),
        ("max_id_bytes", MAX_ID_BYTES),
        ("max_label_key_bytes", MAX_LABEL_KEY_BYTES),
        ("max_label_value_bytes", MAX_LABEL_VALUE_BYTES),
        ("max_labels", MAX_LABELS),
        ("max_metadata_entries", MAX_METADATA_ENTRIES),
        ("max_multi_label_classes", MAX_MULTI_LABEL_CLASSES),
        ("max_name_bytes", MAX_NAME_BYTES),
        ("max_pool", tip_adapter::suggest::POOL_LIMIT),
        ("max_probe_message_bytes", MAX_PROBE_MESSAGE_BYTES),
        ("max_probe_streams", MAX_PROBE_STREAMS),
        ("max_prompt_bytes", super::create::MAX_PROMPT_BYTES),
        ("max_request_id_bytes", MAX_REQUEST_ID_BYTES),
        ("max_selection_labels", MAX_SELECTION_LABELS),
        ("max_uri_bytes", MAX_URI_BYTES),
        ("max_versions", super::evaluate::MAX_VERSIONS),
    ];
    let mut limits = context.limits.named.clone();
    let others = decided.into_iter().chain(fixed);
    limits.extend(others.map(|(name, value)| (name, number(value))));
    limits
}

/// The bundle, as the API describes it.
pub(super) fn bundle(loaded: &LoadedBundle) -> pb::BundleInfo {
    let model = &loaded.model;
    let mut info = pb::BundleInfo {
        name: model.name.clone(),
        fingerprint: model.fingerprint.clone(),
        width: model.width as i32,
        has_image_encoder: loaded.engine.takes_pictures(),
        has_text_encoder: model.has_text,
        logit_scale: model.logit_scale,
        logit_bias: model.logit_bias,
        templates: model.templates.clone(),
        int8: model.int8.as_ref().map(agreement),
        feature_statistics: model.statistics.is_some(),
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

/// Whether all bundles make the same pixels of a picture.
fn prepare_alike(open: &OpenBundles) -> bool {
    let prepared = |loaded: &LoadedBundle| {
        let image = loaded.model.image.as_ref();
        let of = |part: PartSpec| (part.size, part.resize, part.resize_to, part.interpolation);
        image.map(|image| image.parts().into_iter().map(of).collect::<Vec<_>>())
    };
    let mut all = open.iter().filter_map(|loaded| prepared(loaded));
    let first = all.next();
    all.all(|other| Some(other) == first)
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
