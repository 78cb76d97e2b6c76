//! The JSON documents: stable field names, held apart from the wire's types
//! so that the one can change without the other. docs/cli.md lists them.

use std::collections::BTreeMap;

use prost_types::Timestamp;
use serde::Serialize;

use crate::{proto::v1, telemetry::code_name};

/// A cache.
#[derive(Debug, Serialize)]
pub struct CacheDocument {
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

/// A version of a cache.
#[derive(Debug, Serialize)]
pub struct VersionDocument {
    pub name: String,
    pub cache: String,
    pub version: i64,
    pub create_time: Option<String>,
    pub parent: Option<String>,
    pub description: String,
    pub labels: BTreeMap<String, String>,
    pub classes: Vec<ClassDocument>,
    pub width: i32,
    pub key_count: i64,
    pub views: i32,
    pub bundle_fingerprint: String,
    pub bundle_name: String,
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
        Self {
            cache: cache.split('/').next().unwrap_or_default().to_owned(),
            version: version.version,
            create_time: time(version.create_time),
            parent: Some(version.parent).filter(|parent| !parent.is_empty()),
            description: version.description,
            labels: version.labels.into_iter().collect(),
            classes: version.classes.into_iter().map(Into::into).collect(),
            width: version.width,
            key_count: version.key_count,
            views: version.views,
            bundle_fingerprint: version.bundle_fingerprint,
            bundle_name: version.bundle_name,
            size_bytes: version.size_bytes,
            created_by: version.created_by,
            source: version.source.map(Into::into),
            head: version.head.map(Into::into),
            fine_tune: version.fine_tune.map(Into::into),
            name: version.name,
        }
    }
}

/// A class of a version.
#[derive(Debug, Serialize)]
pub struct ClassDocument {
    pub index: i32,
    pub display_name: String,
    pub example_count: i32,
    pub validation_count: i32,
}

impl From<v1::ClassInfo> for ClassDocument {
    fn from(class: v1::ClassInfo) -> Self {
        Self {
            index: class.index,
            display_name: class.display_name,
            example_count: class.example_count,
            validation_count: class.validation_count,
        }
    }
}

/// What the making of a version took in.
#[derive(Debug, Serialize)]
pub struct SourceDocument {
    pub received: i64,
    pub rejected: i64,
    pub inherited: i64,
    pub removed: i64,
}

impl From<v1::SourceCounts> for SourceDocument {
    fn from(source: v1::SourceCounts) -> Self {
        Self {
            received: source.received,
            rejected: source.rejected,
            inherited: source.inherited,
            removed: source.removed,
        }
    }
}

/// An example of a version.
#[derive(Debug, Serialize)]
pub struct ExampleDocument {
    pub example_id: String,
    pub class_index: i32,
    pub display_name: String,
    pub validation: bool,
}

impl From<v1::ExampleInfo> for ExampleDocument {
    fn from(example: v1::ExampleInfo) -> Self {
        Self {
            example_id: example.example_id,
            class_index: example.class_index,
            display_name: example.display_name,
            validation: example.validation,
        }
    }
}

/// A head's numbers.
#[derive(Debug, Serialize)]
pub struct HeadDocument {
    pub method: String,
    pub alpha: f64,
    pub beta: f64,
    pub lambda: f64,
    pub logit_scale: f64,
    pub class_balance: String,
    pub temperature: f64,
    pub key_dtype: String,
    pub selection: Option<SelectionDocument>,
}

impl From<v1::Head> for HeadDocument {
    fn from(head: v1::Head) -> Self {
        Self {
            method: method_name(head.method),
            alpha: head.alpha,
            beta: head.beta,
            lambda: head.lambda,
            logit_scale: head.logit_scale,
            class_balance: short(head.class_balance().as_str_name(), "CLASS_BALANCE_"),
            temperature: head.temperature,
            key_dtype: short(head.key_dtype().as_str_name(), "KEY_DTYPE_"),
            selection: head.selection.map(Into::into),
        }
    }
}

/// On what a head's numbers were chosen.
#[derive(Debug, Serialize)]
pub struct SelectionDocument {
    pub source: String,
    pub example_count: i64,
    pub score: String,
    pub grid: String,
    pub reason: String,
    pub candidates: Vec<CandidateDocument>,
}

impl From<v1::Selection> for SelectionDocument {
    fn from(selection: v1::Selection) -> Self {
        Self {
            source: short(selection.source().as_str_name(), "SELECTION_SOURCE_"),
            example_count: selection.example_count,
            score: selection.score,
            grid: selection.grid,
            reason: selection.reason,
            candidates: selection.candidates.into_iter().map(Into::into).collect(),
        }
    }
}

/// One method with its best numbers.
#[derive(Debug, Serialize)]
pub struct CandidateDocument {
    pub method: String,
    pub alpha: f64,
    pub beta: f64,
    pub lambda: f64,
    pub accuracy: f64,
    pub cross_entropy: f64,
    pub skipped: Option<String>,
}

impl From<v1::Candidate> for CandidateDocument {
    fn from(candidate: v1::Candidate) -> Self {
        Self {
            method: method_name(candidate.method),
            alpha: candidate.alpha,
            beta: candidate.beta,
            lambda: candidate.lambda,
            accuracy: candidate.accuracy,
            cross_entropy: candidate.cross_entropy,
            skipped: Some(candidate.skipped).filter(|why| !why.is_empty()),
        }
    }
}

/// What fine-tuning did.
#[derive(Debug, Serialize)]
pub struct FineTuneDocument {
    pub epochs: i32,
    pub best_epoch: i32,
    pub seed: u64,
    pub loss: f64,
    pub accuracy_before: f64,
    pub accuracy_after: f64,
    pub source: String,
    pub seconds: f64,
}

impl From<v1::FineTuneRecord> for FineTuneDocument {
    fn from(record: v1::FineTuneRecord) -> Self {
        Self {
            epochs: record.epochs,
            best_epoch: record.best_epoch,
            seed: record.seed,
            loss: record.loss,
            accuracy_before: record.accuracy_before,
            accuracy_after: record.accuracy_after,
            source: short(record.source().as_str_name(), "SELECTION_SOURCE_"),
            seconds: record.seconds,
        }
    }
}

/// A fine-tuning run.
#[derive(Debug, Serialize)]
pub struct RunDocument {
    pub name: String,
    pub state: String,
    pub parent: String,
    pub create_time: Option<String>,
    pub end_time: Option<String>,
    pub alias_moved: bool,
    pub progress: Option<ProgressDocument>,
    pub error: Option<ItemError>,
    pub version: Option<VersionDocument>,
}

impl From<v1::FineTuneRun> for RunDocument {
    fn from(run: v1::FineTuneRun) -> Self {
        Self {
            state: short(run.state().as_str_name(), "STATE_"),
            parent: run.parent,
            create_time: time(run.create_time),
            end_time: time(run.end_time),
            alias_moved: run.alias_moved,
            progress: run.progress.map(Into::into),
            error: run.error.map(Into::into),
            version: run.version.map(Into::into),
            name: run.name,
        }
    }
}

/// How far a run is.
#[derive(Debug, Serialize)]
pub struct ProgressDocument {
    pub epoch: i32,
    pub epochs: i32,
    pub step: i64,
    pub steps: i64,
    pub loss: f64,
    pub train_accuracy: f64,
    pub validation_accuracy: Option<f64>,
    pub learning_rate: f64,
    pub seconds_left: Option<f64>,
}

impl From<v1::FineTuneProgress> for ProgressDocument {
    fn from(progress: v1::FineTuneProgress) -> Self {
        Self {
            epoch: progress.epoch,
            epochs: progress.epochs,
            step: progress.step,
            steps: progress.steps,
            loss: progress.loss,
            train_accuracy: progress.train_accuracy,
            validation_accuracy: progress.validation_accuracy,
            learning_rate: progress.learning_rate,
            seconds_left: progress
                .time_left
                .map(|left| left.seconds as f64 + f64::from(left.nanos) * 1e-9),
        }
    }
}

/// Why one item failed, by the server's or by the client's own account.
#[derive(Clone, Debug, Serialize)]
pub struct ItemError {
    pub code: String,
    pub reason: Option<String>,
    pub message: String,
}

impl From<tonic_types::Status> for ItemError {
    fn from(status: tonic_types::Status) -> Self {
        use tonic_types::RpcStatusExt as _;
        Self {
            code: code_name(tonic::Code::from_i32(status.code)).to_owned(),
            reason: status
                .get_details_error_info()
                .map(|info| info.reason)
                .filter(|reason| !reason.is_empty()),
            message: status.message,
        }
    }
}

/// An example or item that could not be used.
#[derive(Clone, Debug, Serialize)]
pub struct RejectedDocument {
    pub id: String,
    #[serde(flatten)]
    pub error: ItemError,
}

impl From<v1::RejectedExample> for RejectedDocument {
    fn from(rejected: v1::RejectedExample) -> Self {
        Self {
            id: rejected.example_id,
            error: ItemError {
                code: code_name(tonic::Code::from_i32(rejected.code)).to_owned(),
                reason: Some(rejected.reason).filter(|reason| !reason.is_empty()),
                message: rejected.message,
            },
        }
    }
}

/// What the server serves.
#[derive(Debug, Serialize)]
pub struct ServerDocument {
    pub address: String,
    pub version: String,
    pub device: String,
    pub dtype: String,
    pub bundle: BundleDocument,
    pub limits: BTreeMap<String, i64>,
}

/// The bundle that the server serves.
#[derive(Debug, Serialize)]
pub struct BundleDocument {
    pub name: String,
    pub fingerprint: String,
    pub width: i32,
    pub image_size: i32,
    pub has_image_encoder: bool,
    pub has_text_encoder: bool,
    pub logit_scale: f64,
    pub templates: Vec<String>,
}

impl ServerDocument {
    /// Of the server's answer and the address that it was had from.
    pub fn of(info: v1::ServerInfo, address: &str) -> Self {
        let bundle = info.bundle.unwrap_or_default();
        Self {
            address: address.to_owned(),
            version: info.version,
            device: info.device,
            dtype: info.dtype,
            bundle: BundleDocument {
                name: bundle.name,
                fingerprint: bundle.fingerprint,
                width: bundle.width,
                image_size: bundle.image_size,
                has_image_encoder: bundle.has_image_encoder,
                has_text_encoder: bundle.has_text_encoder,
                logit_scale: bundle.logit_scale,
                templates: bundle.templates,
            },
            limits: info.limits.into_iter().collect(),
        }
    }
}

/// RFC 3339 in UTC; `None` where the time is absent or beyond the calendar.
pub fn time(timestamp: Option<Timestamp>) -> Option<String> {
    let timestamp = timestamp?;
    let nanos = u32::try_from(timestamp.nanos).ok()?;
    let moment = chrono::DateTime::from_timestamp(timestamp.seconds, nanos)?;
    Some(moment.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

/// "METHOD_TIP_ADAPTER" as "tip_adapter"; a number that a newer server may
/// send as "method_9".
pub fn method_name(method: i32) -> String {
    match v1::Method::try_from(method) {
        Ok(method) => short(method.as_str_name(), "METHOD_"),
        Err(_) => format!("method_{method}"),
    }
}

fn short(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_times_are_rfc3339() {
        assert_eq!(method_name(v1::Method::TipAdapterF as i32), "tip_adapter_f");
        assert_eq!(method_name(99), "method_99");
        let at = Timestamp {
            seconds: 1_700_000_000,
            nanos: 500_000_000,
        };
        assert_eq!(time(Some(at)).as_deref(), Some("2023-11-14T22:13:20.500Z"));
        assert_eq!(time(None), None);
    }
}
