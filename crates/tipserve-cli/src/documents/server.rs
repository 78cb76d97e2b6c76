//! A server and its bundle.

use std::collections::BTreeMap;

use serde::Serialize;

use tipserve_api::v1;

/// The document of `info --json`: the server, its bundle, its limits.
#[derive(Debug, Serialize)]
pub(crate) struct ServerDocument {
    pub address: String,
    pub version: String,
    pub device: String,
    pub dtype: String,
    pub text_dtype: String,
    pub bundle: BundleDocument,
    pub limits: BTreeMap<String, i64>,
}

/// The bundle that the server serves.
#[derive(Debug, Serialize)]
pub(crate) struct BundleDocument {
    pub name: String,
    pub fingerprint: String,
    pub width: i32,
    pub image_size: i32,
    pub resize_to: i32,
    pub interpolation: String,
    pub resize: String,
    pub has_image_encoder: bool,
    pub has_text_encoder: bool,
    pub feature_statistics: bool,
    pub logit_scale: f64,
    pub logit_bias: Option<f64>,
    pub templates: Vec<String>,
}

impl ServerDocument {
    /// The document of a server's answer; `address` is where it came from.
    pub fn new(info: v1::ServerInfo, address: &str) -> Self {
        let bundle = info.bundle.unwrap_or_default();
        Self {
            address: address.to_owned(),
            version: info.version,
            device: info.device,
            dtype: info.dtype,
            text_dtype: info.text_dtype,
            bundle: BundleDocument {
                name: bundle.name,
                fingerprint: bundle.fingerprint,
                width: bundle.width,
                image_size: bundle.image_size,
                resize_to: bundle.resize_to,
                interpolation: bundle.interpolation,
                resize: bundle.resize,
                has_image_encoder: bundle.has_image_encoder,
                has_text_encoder: bundle.has_text_encoder,
                feature_statistics: bundle.feature_statistics,
                logit_scale: bundle.logit_scale,
                logit_bias: bundle.logit_bias,
                templates: bundle.templates,
            },
            limits: info.limits.into_iter().collect(),
        }
    }
}
