//! Between the API's messages and the house's own types.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::request::RequestError;
use crate::{
    proto::v1 as pb,
    store::{FineTuneRecord, Manifest},
    tip::{
        make::HeadRequest,
        spec::{
            Candidate, ClassBalance, HeadSpec, KeyDtype, Method, SearchGrid, Selection,
            SelectionSource,
        },
    },
};

/// Largest α, β, λ, s_α and s_β that are taken.
const MOST: f64 = 1e6;

/// A time as the API has it.
pub fn timestamp(time: DateTime<Utc>) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.timestamp(),
        nanos: i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(0),
    }
}

/// A version as the API has it.
pub fn version(manifest: &Manifest) -> pb::Version {
    let details = &manifest.details;
    let classes = details
        .classes
        .iter()
        .enumerate()
        .map(|(index, class)| pb::ClassInfo {
            index: index as i32,
            display_name: class.display_name.clone(),
            example_count: class.example_count as i32,
            validation_count: class.validation_count as i32,
        })
        .collect();
    pb::Version {
        name: manifest.resource_name(),
        version: manifest.version.as_i64(),
        create_time: Some(timestamp(manifest.create_time)),
        parent: details.parent.clone().unwrap_or_default(),
        description: details.description.clone(),
        labels: details
            .labels
            .clone()
            .into_iter()
            .collect::<HashMap<_, _>>(),
        classes,
        width: details.width as i32,
        key_count: details.key_count as i64,
        views: i32::try_from(details.views).unwrap_or(i32::MAX),
        bundle_fingerprint: details.bundle_fingerprint.clone(),
        head: Some(head(&details.head)),
        size_bytes: manifest.tensors.size as i64,
        fine_tune: details.fine_tune.as_ref().map(fine_tune),
        created_by: details.created_by.clone(),
        bundle_name: details.bundle_name.clone(),
        source: None,
    }
}

fn head(spec: &HeadSpec) -> pb::Head {
    pb::Head {
        method: method(spec.method) as i32,
        alpha: spec.alpha,
        beta: spec.beta,
        lambda: spec.lambda,
        logit_scale: spec.logit_scale,
        class_balance: match spec.class_balance {
            ClassBalance::Sum => pb::ClassBalance::Sum,
            ClassBalance::Mean => pb::ClassBalance::Mean,
        } as i32,
        temperature: spec.temperature,
        selection: Some(selection(&spec.selection)),
        key_dtype: match spec.key_dtype {
            KeyDtype::F32 => pb::KeyDtype::F32,
            KeyDtype::Bf16 => pb::KeyDtype::Bf16,
            KeyDtype::F16 => pb::KeyDtype::F16,
        } as i32,
    }
}

fn method(method: Method) -> pb::Method {
    match method {
        Method::ZeroShot => pb::Method::ZeroShot,
        Method::TipAdapter => pb::Method::TipAdapter,
        Method::Gda => pb::Method::Gda,
        Method::Proker => pb::Method::Proker,
        Method::ClassMean => pb::Method::ClassMean,
        Method::TipAdapterF => pb::Method::TipAdapterF,
    }
}

fn source(source: SelectionSource) -> pb::SelectionSource {
    match source {
        SelectionSource::Given => pb::SelectionSource::Given,
        SelectionSource::Validation => pb::SelectionSource::Validation,
        SelectionSource::LeaveOneOut => pb::SelectionSource::LeaveOneOut,
        SelectionSource::Default => pb::SelectionSource::Default,
        SelectionSource::HeldBackViews => pb::SelectionSource::HeldBackViews,
    }
}

fn selection(selection: &Selection) -> pb::Selection {
    pb::Selection {
        source: source(selection.source) as i32,
        example_count: selection.example_count as i64,
        score: selection.score.clone(),
        grid: selection.grid.clone(),
        candidates: selection.candidates.iter().map(candidate).collect(),
        reason: selection.reason.clone(),
    }
}

fn candidate(candidate: &Candidate) -> pb::Candidate {
    pb::Candidate {
        method: method(candidate.method) as i32,
        alpha: candidate.alpha,
        beta: candidate.beta,
        lambda: candidate.lambda,
        accuracy: candidate.accuracy,
        cross_entropy: candidate.cross_entropy,
        skipped: candidate.skipped.clone().unwrap_or_default(),
    }
}

fn fine_tune(record: &FineTuneRecord) -> pb::FineTuneRecord {
    pb::FineTuneRecord {
        epochs: i32::try_from(record.epochs).unwrap_or(i32::MAX),
        best_epoch: i32::try_from(record.best_epoch).unwrap_or(i32::MAX),
        seed: record.seed,
        loss: record.loss,
        accuracy_before: record.accuracy_before,
        accuracy_after: record.accuracy_after,
        source: source(record.source) as i32,
        seconds: record.seconds,
    }
}

fn positive(field: &str, value: Option<f64>) -> Result<Option<f64>, RequestError> {
    match value {
        Some(number) if !(number > 0.0 && number <= MOST) => Err(RequestError::invalid(
            field,
            format!("{number} is not over 0 and at most {MOST}"),
        )),
        value => Ok(value),
    }
}

/// A grid as asked for; none where the server decides.
///
/// # Errors
/// Scales out of range.
pub fn grid(field: &str, grid: Option<pb::SearchGrid>) -> Result<Option<SearchGrid>, RequestError> {
    use pb::search_grid::Kind;
    let Some(grid) = grid else { return Ok(None) };
    let scale = |name: &str, value: f64, default: f64| {
        if value == 0.0 {
            return Ok(default);
        }
        if !(0.1..=1000.0).contains(&value) {
            return Err(RequestError::invalid(
                format!("{field}.{name}"),
                format!("{value} is not in 0.1 to 1000"),
            ));
        }
        Ok(value)
    };
    match Kind::try_from(grid.kind) {
        Ok(Kind::Official) => Ok(Some(SearchGrid::Official {
            beta_scale: scale("beta_scale", grid.beta_scale, 7.0)?,
            alpha_scale: scale("alpha_scale", grid.alpha_scale, 3.0)?,
        })),
        Ok(Kind::Wide) => Ok(Some(SearchGrid::Wide)),
        Ok(Kind::Unspecified) => Ok(None),
        Err(_) => Err(RequestError::invalid(
            format!("{field}.kind"),
            format!("{} is not a kind of grid", grid.kind),
        )),
    }
}

/// How a specification wants its head made.
///
/// # Errors
/// Values that are no method, balance or dtype, or out of range.
pub fn head_request(spec: &pb::CacheSpec) -> Result<HeadRequest, RequestError> {
    let unknown = |field: &str, value: i32| {
        RequestError::invalid(field, format!("{value} is not one of its values"))
    };
    let method = match pb::Method::try_from(spec.method) {
        Ok(pb::Method::Unspecified | pb::Method::Auto) => None,
        Ok(pb::Method::ZeroShot) => Some(Method::ZeroShot),
        Ok(pb::Method::TipAdapter) => Some(Method::TipAdapter),
        Ok(pb::Method::Gda) => Some(Method::Gda),
        Ok(pb::Method::Proker) => Some(Method::Proker),
        Ok(pb::Method::ClassMean) => Some(Method::ClassMean),
        Ok(pb::Method::TipAdapterF) => {
            return Err(RequestError::invalid(
                "spec.method",
                "METHOD_TIP_ADAPTER_F is made by FineTune, from a version",
            ));
        }
        Err(_) => return Err(unknown("spec.method", spec.method)),
    };
    Ok(HeadRequest {
        method,
        alpha: positive("spec.alpha", spec.alpha)?,
        beta: positive("spec.beta", spec.beta)?,
        lambda: positive("spec.lambda", spec.lambda)?,
        class_balance: match pb::ClassBalance::try_from(spec.class_balance) {
            Ok(pb::ClassBalance::Unspecified | pb::ClassBalance::Sum) => ClassBalance::Sum,
            Ok(pb::ClassBalance::Mean) => ClassBalance::Mean,
            Err(_) => return Err(unknown("spec.class_balance", spec.class_balance)),
        },
        grid: grid("spec.grid", spec.grid)?.unwrap_or(SearchGrid::Wide),
        key_dtype: match pb::KeyDtype::try_from(spec.key_dtype) {
            Ok(pb::KeyDtype::Unspecified | pb::KeyDtype::F32) => KeyDtype::F32,
            Ok(pb::KeyDtype::Bf16) => KeyDtype::Bf16,
            Ok(pb::KeyDtype::F16) => KeyDtype::F16,
            Err(_) => return Err(unknown("spec.key_dtype", spec.key_dtype)),
        },
    })
}
