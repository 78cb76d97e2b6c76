//! Caches, their versions, classes and examples.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{finetune::FineTuneDocument, format::time, head::HeadDocument};
use tipserve_api::v1;

/// A cache: its aliases, and its newest version.
#[derive(Debug, Serialize)]
pub(crate) struct CacheDocument {
    pub name: String,
    pub cache: String,
    pub create_time: Option<String>,
    pub version_count: i32,
    pub aliases: BTreeMap<String, i64>,
    pub etag: String,
    pub latest: Option<VersionDocument>,
}

impl From<v1::Cache> for CacheDocument {
    fn from(cache: v1::Cache) -> Self {
        Self {
            cache: cache
                .name
                .strip_prefix("caches/")
                .unwrap_or(&cache.name)
                .to_owned(),
            name: cache.name,
            create_time: time(cache.create_time),
            version_count: cache.version_count,
            aliases: cache.aliases.into_iter().collect(),
            etag: cache.etag,
            latest: cache.latest.map(Into::into),
        }
    }
}

impl CacheDocument {
    /// "stable → 3, next → 4".
    pub fn alias_list(&self) -> String {
        let aliases = self
            .aliases
            .iter()
            .map(|(alias, version)| format!("{alias} → {version}"));
        aliases.collect::<Vec<_>>().join(", ")
    }
}

/// A version of a cache.
#[derive(Debug, Serialize)]
pub(crate) struct VersionDocument {
    pub name: String,
    pub cache: String,
    pub version: i64,
    pub create_time: Option<String>,
    pub parent: Option<String>,
    pub description: String,
    pub labels: BTreeMap<String, String>,
    pub classes: Vec<ClassDocument>,
    /// How many there are: lists leave out many.
    #[serde(skip)]
    pub class_count: usize,
    pub width: i32,
    pub key_count: i64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub multi_label: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub unknown_count: i64,
    pub views: i32,
    pub exif_orientation: &'static str,
    pub bundle_fingerprint: String,
    pub bundle_name: String,
    pub encoder_dtype: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub part_weights: Vec<f64>,
    pub size_bytes: i64,
    pub created_by: String,
    pub source: Option<SourceDocument>,
    pub head: Option<HeadDocument>,
    pub fine_tune: Option<FineTuneDocument>,
}

impl From<v1::Version> for VersionDocument {
    fn from(version: v1::Version) -> Self {
        let cache = version
            .name
            .strip_prefix("caches/")
            .unwrap_or(&version.name);
        // Servers from before it was recorded ignore it.
        let exif_orientation = match version.exif_orientation() {
            v1::ExifOrientation::Apply => "apply",
            v1::ExifOrientation::Ignore | v1::ExifOrientation::Unspecified => "ignore",
        };
        Self {
            cache: cache.split('/').next().unwrap_or_default().to_owned(),
            version: version.version,
            create_time: time(version.create_time),
            parent: Some(version.parent).filter(|parent| !parent.is_empty()),
            description: version.description,
            labels: version.labels.into_iter().collect(),
            // Older servers do not say it, and leave nothing out.
            class_count: usize::try_from(version.class_count)
                .unwrap_or_default()
                .max(version.classes.len()),
            classes: version.classes.into_iter().map(Into::into).collect(),
            width: version.width,
            key_count: version.key_count,
            multi_label: version.multi_label,
            unknown_count: version.unknown_count,
            views: version.views,
            exif_orientation,
            bundle_fingerprint: version.bundle_fingerprint,
            bundle_name: version.bundle_name,
            encoder_dtype: version.encoder_dtype,
            part_weights: version.part_weights,
            size_bytes: version.size_bytes,
            created_by: version.created_by,
            source: version.source.map(Into::into),
            head: version.head.map(Into::into),
            fine_tune: version.fine_tune.map(Into::into),
            name: version.name,
        }
    }
}

fn is_zero(count: &i64) -> bool {
    *count == 0
}

/// A class of a version.
#[derive(Debug, Serialize)]
pub(crate) struct ClassDocument {
    pub index: i32,
    pub display_name: String,
    pub example_count: i32,
    pub validation_count: i32,
    /// From which probability it belongs to an answer, of independent labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
}

impl From<v1::ClassInfo> for ClassDocument {
    fn from(class: v1::ClassInfo) -> Self {
        Self {
            index: class.index,
            display_name: class.display_name,
            example_count: class.example_count,
            validation_count: class.validation_count,
            threshold: class.threshold,
        }
    }
}

/// What the making of a version took in.
#[derive(Debug, Serialize)]
pub(crate) struct SourceDocument {
    pub received: i64,
    pub rejected: i64,
    pub inherited: i64,
    pub removed: i64,
    pub without_end_mark: i64,
}

impl From<v1::SourceCounts> for SourceDocument {
    fn from(source: v1::SourceCounts) -> Self {
        Self {
            received: source.received,
            rejected: source.rejected,
            inherited: source.inherited,
            removed: source.removed,
            without_end_mark: source.without_end_mark,
        }
    }
}

/// An example of a version.
#[derive(Debug, Serialize)]
pub(crate) struct ExampleDocument {
    pub example_id: String,
    pub class_index: i32,
    pub display_name: String,
    pub validation: bool,
    /// Whether it is of none of the classes.
    pub unknown: bool,
    /// Of independent labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub class_indices: Vec<i32>,
}

impl From<v1::ExampleInfo> for ExampleDocument {
    fn from(example: v1::ExampleInfo) -> Self {
        Self {
            example_id: example.example_id,
            class_index: example.class_index,
            display_name: example.display_name,
            validation: example.validation,
            unknown: example.unknown,
            class_indices: example.class_indices,
        }
    }
}
