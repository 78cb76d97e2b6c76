//! The server's own types as the API's messages.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use tip_spec::{
    Candidate, ClassBalance, HeadSpec, KeyDtype, Selection, SelectionSource, Standardised,
    UnlabelledUse,
};
use tipserve_api::v1 as pb;
use tipserve_store::{ExifOrientation, FineTuneRecipe, FineTuneRecord, Manifest, SourceCounts};

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
            threshold: (details.multi_label.as_ref())
                .and_then(|spec| spec.thresholds.get(index).copied()),
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
        class_count: i32::try_from(details.classes.len()).unwrap_or(i32::MAX),
        classes,
        width: details.width as i32,
        key_count: details.key_count as i64,
        views: i32::try_from(details.views).unwrap_or(i32::MAX),
        exif_orientation: exif_orientation(details.exif_orientation) as i32,
        bundle_fingerprint: details.bundle_fingerprint.clone(),
        head: Some(head(&details.head)),
        size_bytes: manifest.tensors.size as i64,
        fine_tune: details.fine_tune.as_ref().map(fine_tune),
        created_by: details.created_by.clone(),
        bundle_name: details.bundle_name.clone(),
        encoder_dtype: details
            .encoder
            .as_ref()
            .map_or_else(String::new, |record| record.dtype.clone()),
        source: details.source.as_ref().map(counts),
        picture_count: i64::try_from(details.pictures).unwrap_or(i64::MAX),
        multi_label: details.multi_label.is_some(),
        part_weights: details.part_weights.iter().map(|part| part.used).collect(),
        unknown_count: (details.contrast.as_ref())
            .map_or(0, |it| i64::try_from(it.count).unwrap_or(i64::MAX)),
    }
}

/// Bytes of a version's classes that lists carry; more are left out.
const LISTED_CLASSES_BYTES: usize = 32 << 10;

/// A version as lists have it: without its classes if they are many.
pub fn listed_version(manifest: &Manifest) -> pb::Version {
    let mut version = version(manifest);
    leave_out_many_classes(&mut version);
    version
}

/// Leaves out the classes, which make a list large; `class_count` stays.
pub fn leave_out_many_classes(version: &mut pb::Version) {
    let bytes = version.classes.iter().map(prost::Message::encoded_len);
    if bytes.sum::<usize>() > LISTED_CLASSES_BYTES {
        version.classes = Vec::new();
    }
}

fn exif_orientation(orientation: ExifOrientation) -> pb::ExifOrientation {
    match orientation {
        ExifOrientation::Apply => pb::ExifOrientation::Apply,
        ExifOrientation::Ignore => pb::ExifOrientation::Ignore,
    }
}

fn counts(source: &SourceCounts) -> pb::SourceCounts {
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    pb::SourceCounts {
        received: count(source.received),
        rejected: count(source.rejected),
        inherited: count(source.inherited),
        removed: count(source.removed),
        without_end_mark: count(source.without_end_mark),
    }
}

fn head(spec: &HeadSpec) -> pb::Head {
    pb::Head {
        method: spec.method.number(),
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
        standardised: standardised(spec.standardised) as i32,
        unlabelled: spec.unlabelled.as_ref().map(unlabelled),
    }
}

fn unlabelled(found: &UnlabelledUse) -> pb::UnlabelledUse {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    pb::UnlabelledUse {
        count: count(found.count),
        used: found.used,
        example_count: count(found.example_count),
        cross_entropy_before: found.cross_entropy_before,
        cross_entropy_after: found.cross_entropy_after,
        accuracy_before: found.accuracy_before,
        accuracy_after: found.accuracy_after,
        reason: found.reason.clone(),
    }
}

fn standardised(whose: Option<Standardised>) -> pb::Standardised {
    match whose {
        None => pb::Standardised::Unspecified,
        Some(Standardised::Own) => pb::Standardised::Own,
        Some(Standardised::Bundle) => pb::Standardised::Bundle,
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
        method: candidate.method.number(),
        alpha: candidate.alpha,
        beta: candidate.beta,
        lambda: candidate.lambda,
        accuracy: candidate.accuracy,
        cross_entropy: candidate.cross_entropy,
        skipped: candidate.skipped.clone().unwrap_or_default(),
        weight: candidate.weight,
        temperature: candidate.temperature,
        standardised: standardised(candidate.standardised) as i32,
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
        recipe: match record.recipe {
            FineTuneRecipe::TipAdapterF => pb::FineTuneRecipe::TipAdapterF,
            FineTuneRecipe::Residual => pb::FineTuneRecipe::Residual,
        } as i32,
        strength: record.strength,
        cross_entropy_before: record.cross_entropy_before,
        cross_entropy_after: record.cross_entropy_after,
        example_count: i64::try_from(record.example_count).unwrap_or(i64::MAX),
    }
}
