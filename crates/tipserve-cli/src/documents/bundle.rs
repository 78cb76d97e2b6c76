//! A bundle and its state on a server.

use serde::Serialize;

use super::format::time;
use tipserve_api::v1::{self, bundle::State};

/// A bundle that is loaded, or could be.
#[derive(Debug, Serialize)]
pub(crate) struct LoadedBundleDocument {
    pub folder: String,
    pub name: String,
    pub fingerprint: String,
    /// "available", "loading", "ready", "unloading".
    pub state: String,
    pub is_default: bool,
    pub width: i32,
    pub has_image_encoder: bool,
    pub has_text_encoder: bool,
    pub feature_statistics: bool,
    pub device: String,
    pub dtype: String,
    pub text_dtype: String,
    pub load_time: Option<String>,
    pub load_seconds: Option<f64>,
    pub in_flight_items: i64,
}

impl From<v1::Bundle> for LoadedBundleDocument {
    fn from(bundle: v1::Bundle) -> Self {
        let state = match bundle.state() {
            State::Unspecified => "unspecified",
            State::Available => "available",
            State::Loading => "loading",
            State::Ready => "ready",
            State::Unloading => "unloading",
        };
        let info = bundle.info.unwrap_or_default();
        let seconds =
            |took: prost_types::Duration| took.seconds as f64 + f64::from(took.nanos) / 1e9;
        Self {
            folder: bundle.folder,
            name: info.name,
            fingerprint: info.fingerprint,
            state: state.to_owned(),
            is_default: bundle.is_default,
            width: info.width,
            has_image_encoder: info.has_image_encoder,
            has_text_encoder: info.has_text_encoder,
            feature_statistics: info.feature_statistics,
            device: bundle.device,
            dtype: bundle.dtype,
            text_dtype: bundle.text_dtype,
            load_time: time(bundle.load_time),
            load_seconds: bundle.load_duration.map(seconds),
            in_flight_items: bundle.in_flight_items,
        }
    }
}
