//! `GetServerInfo`.

use std::collections::BTreeMap;

use tonic::Response;

use super::{
    Context,
    messages::{MAX_CONTROL_MESSAGE_BYTES, MAX_PROBE_MESSAGE_BYTES},
};
use crate::catalog::{
    MAX_CREATED_BY_BYTES, MAX_DESCRIPTION_BYTES, MAX_ID_BYTES, MAX_LABEL_KEY_BYTES,
    MAX_LABEL_VALUE_BYTES, MAX_LABELS, MAX_NAME_BYTES,
};
use tipserve_api::v1 as pb;
use tipserve_store::MAX_REQUEST_ID_BYTES;

/// What is served here, and within which limits.
pub fn serve(context: &Context) -> Response<pb::ServerInfo> {
    let model = context.catalog.model();
    Response::new(pb::ServerInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        bundle: Some(bundle(context)),
        device: model.device.clone(),
        dtype: model.dtype.clone(),
        limits: limits(context)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    })
}

fn bundle(context: &Context) -> pb::BundleInfo {
    let model = context.catalog.model();
    pb::BundleInfo {
        name: model.name.clone(),
        fingerprint: model.fingerprint.clone(),
        width: model.width as i32,
        image_size: model.image_size as i32,
        resize_to: model.resize_to as i32,
        interpolation: model
            .interpolation
            .map_or_else(String::new, |kernel| kernel.name().to_owned()),
        has_image_encoder: context.engine.takes_pictures(),
        has_text_encoder: model.has_text,
        logit_scale: model.logit_scale,
        templates: model.templates.clone(),
    }
}

/// The limits by name: settings, as [`SETTINGS`](crate::config::SETTINGS)
/// declares them, and what is fixed.
fn limits(context: &Context) -> BTreeMap<&'static str, i64> {
    let settings = context.engine.settings();
    let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    let decided = [
        ("max_batch", settings.max_batch),
        ("resident_bytes", context.catalog.resident_bytes()),
    ];
    let fixed = [
        ("max_control_message_bytes", MAX_CONTROL_MESSAGE_BYTES),
        ("max_created_by_bytes", MAX_CREATED_BY_BYTES),
        ("max_description_bytes", MAX_DESCRIPTION_BYTES),
        ("max_embed_items", super::embed::MAX_ITEMS),
        ("max_filter_bytes", super::filter::MAX_BYTES),
        ("max_id_bytes", MAX_ID_BYTES),
        ("max_label_key_bytes", MAX_LABEL_KEY_BYTES),
        ("max_label_value_bytes", MAX_LABEL_VALUE_BYTES),
        ("max_labels", MAX_LABELS),
        ("max_name_bytes", MAX_NAME_BYTES),
        ("max_probe_message_bytes", MAX_PROBE_MESSAGE_BYTES),
        ("max_prompt_bytes", super::create::MAX_PROMPT_BYTES),
        ("max_request_id_bytes", MAX_REQUEST_ID_BYTES),
        ("max_versions", super::evaluate::MAX_VERSIONS),
    ];
    let mut limits = context.limits.named.clone();
    let others = decided.into_iter().chain(fixed);
    limits.extend(others.map(|(name, value)| (name, number(value))));
    limits
}
