//! `AnalyzeVersion`: a version in, what its own examples say about it out.

use std::{sync::Arc, time::Instant};

use tonic::Response;

use super::super::{
    Context, confidence::share, config_stream::within, convert::timestamp, error::ApiError,
    reference, request::RequestError, submit::CancelOnDrop,
};
use super::advice::advice;
use crate::{
    auth::Caller,
    catalog::{ExampleNames, ExampleTraffic},
};
use tip_adapter::{
    analysis::{Analysis, AnalysisOptions, Suspect},
    precision::PrecisionCurve,
};
use tipserve_api::v1 as pb;

/// Entries of a list if the client does not say.
const DEFAULT_LIST: usize = 50;
/// Most entries of a list.
const MAX_LIST: usize = 1000;
/// Draws of a point of the curve if the client does not say.
const DEFAULT_DRAWS: usize = 5;
/// Most draws of a point of the curve.
const MAX_DRAWS: usize = 50;
/// The precision that thresholds are for if the client does not say.
const DEFAULT_PRECISION: f64 = 0.95;
/// Most classes for which the confusion matrix is returned.
const MAX_CONFUSION: usize = 1000;

/// Serves one AnalyzeVersion, until its deadline or a shutdown.
pub async fn serve(
    context: &Arc<Context>,
    caller: Caller,
    deadline: Option<Instant>,
    request: pb::AnalyzeVersionRequest,
) -> Result<Response<pb::AnalyzeVersionResponse>, ApiError> {
    let reference = reference(&caller, &request.cache)?;
    let list_limit = bounded("list_limit", request.list_limit, DEFAULT_LIST, MAX_LIST)?;
    let options = AnalysisOptions {
        list_limit,
        duplicate_similarity: similarity("duplicate_similarity", request.duplicate_similarity)?,
        draws: bounded("draws", request.draws, DEFAULT_DRAWS, MAX_DRAWS)?,
        seed: request.seed,
    };
    let precision = share("precision", request.precision.unwrap_or(DEFAULT_PRECISION))?;
    // Dropped with this future: a client that goes away stops the work.
    let cancel = CancelOnDrop::new();
    let (identity, cancelled) = (caller.quota(), Arc::clone(&cancel.0));
    let analysing = context
        .catalog
        .analyse(&reference, options, identity.as_deref(), cancelled);
    let analysed = within(context, deadline, async { Ok(analysing.await?) });
    let (names, analysis) = analysed.await?;
    let traffic = context.catalog.example_traffic(names.manifest()).await;
    Ok(Response::new(pb::AnalyzeVersionResponse {
        traffic: traffic.map(|traffic| example_traffic(&names, &traffic, list_limit)),
        ..message(&names, &analysis, precision)
    }))
}

/// Which examples the version's items came near.
fn example_traffic(
    names: &ExampleNames,
    traffic: &ExampleTraffic,
    list_limit: usize,
) -> pb::ExampleTraffic {
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let unmatched = traffic.unmatched.as_deref();
    let listed = unmatched.unwrap_or_default().iter().take(list_limit);
    pb::ExampleTraffic {
        since: Some(timestamp(traffic.since.into())),
        item_count: signed(traffic.items),
        enough_count: signed(traffic.enough),
        unmatched_count: unmatched.map(|keys| count(keys.len())),
        unmatched: listed
            .map(|key| {
                let class = names.class_of(*key).unwrap_or(usize::MAX);
                pb::UnmatchedExample {
                    example_id: names.example_id(*key),
                    class_index: int(class),
                    display_name: names.class_name(class).to_owned(),
                }
            })
            .collect(),
    }
}

/// A count from a request: 0 stands for the default.
pub(super) fn bounded(
    field: &str,
    asked: i32,
    default: usize,
    most: usize,
) -> Result<usize, RequestError> {
    match usize::try_from(asked) {
        Ok(0) => Ok(default),
        Ok(count) if count <= most => Ok(count),
        _ => Err(RequestError::invalid(
            field,
            format!("{asked} is not in 0 to {most}"),
        )),
    }
}

/// A cosine from which pictures count as near-duplicates.
pub(super) fn similarity(field: &str, asked: Option<f64>) -> Result<Option<f64>, RequestError> {
    match asked {
        Some(value) if !(value > 0.0 && value <= 1.0) => Err(RequestError::invalid(
            field,
            format!("{value} is not over 0 and at most 1"),
        )),
        asked => Ok(asked),
    }
}

fn message(
    names: &ExampleNames,
    analysis: &Analysis,
    precision: f64,
) -> pb::AnalyzeVersionResponse {
    let name = |class: usize| names.class_name(class).to_owned();
    let id = |key: usize| names.example_id(key);
    let suspect = |suspect: &Suspect| pb::SuspectExample {
        example_id: id(suspect.key),
        class_index: int(suspect.class),
        display_name: name(suspect.class),
        probability: suspect.probability,
        suggested: Some(pb::ClassScore {
            index: int(suspect.suggested),
            display_name: name(suspect.suggested),
            logit: suspect.suggested_logit as f32,
            probability: suspect.suggested_probability as f32,
        }),
    };
    pb::AnalyzeVersionResponse {
        version: names.manifest().resource_name(),
        method: analysis.method.number(),
        advice: advice(analysis, &name, &id),
        example_count: count(analysis.example_count),
        scored_count: count(analysis.scored_count),
        accuracy: analysis.accuracy,
        accuracy_error: analysis.accuracy_error,
        cross_entropy: analysis.cross_entropy,
        expected_calibration_error: analysis.expected_calibration_error,
        curve: (analysis.curve.iter())
            .map(|point| pb::LearningCurvePoint {
                shots: int(point.shots),
                accuracy: point.accuracy,
                low: point.low,
                high: point.high,
                draws: int(point.draws),
            })
            .collect(),
        forecast: analysis.forecast.map(|forecast| pb::LearningForecast {
            shots: int(forecast.shots),
            accuracy: forecast.accuracy,
            low: forecast.low,
            high: forecast.high,
        }),
        classes: (analysis.classes.iter().enumerate())
            .map(|(index, class)| pb::ClassAnalysis {
                index: int(index),
                display_name: name(index),
                example_count: int(class.example_count),
                scored_count: int(class.scored_count),
                accuracy: class.accuracy,
                precision: class.precision,
                expected_gain: class.expected_gain,
                precision_threshold: (names.precision_curve(index))
                    .map(|curve| precision_threshold(curve, precision)),
            })
            .collect(),
        confusion: confusion(analysis),
        confused: confused(names, analysis),
        suspects: analysis.suspects.iter().map(suspect).collect(),
        suspect_count: count(analysis.suspect_count),
        misclassified: analysis.misclassified.iter().map(suspect).collect(),
        duplicates: duplicates(names, analysis),
        duplicate_count: count(analysis.duplicate_count),
        duplicate_similarity: analysis.duplicate_similarity,
        reliability: (analysis.reliability.iter())
            .map(|bin| pb::ReliabilityBin {
                low: bin.low,
                high: bin.high,
                count: bin.count as i64,
                probability: bin.probability,
                accuracy: bin.accuracy,
            })
            .collect(),
        skipped: analysis.skipped.clone(),
        traffic: None,
    }
}

/// The whole matrix, row by row.
fn confusion(analysis: &Analysis) -> Vec<i64> {
    let classes = analysis.classes.len();
    if classes > MAX_CONFUSION || analysis.scored_count == 0 {
        return Vec::new();
    }
    let mut matrix = vec![0; classes * classes];
    for &(class, taken, count) in &analysis.confusion {
        if let Some(cell) = matrix.get_mut(class * classes + taken) {
            *cell = count as i64;
        }
    }
    matrix
}

fn precision_threshold(curve: &PrecisionCurve, precision: f64) -> pb::PrecisionThreshold {
    let found = curve.threshold(precision);
    pb::PrecisionThreshold {
        threshold: found.threshold,
        precision: found.precision,
        precision_low: found.low,
        borne_out: found.is_borne_out(precision),
        recall: found.recall,
        count: i64::from(found.taken),
    }
}

fn int(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The pairs of classes that are confused most.
fn confused(names: &ExampleNames, analysis: &Analysis) -> Vec<pb::ConfusedClasses> {
    let name = |class: usize| names.class_name(class).to_owned();
    (analysis.confused.iter())
        .map(|pair| pb::ConfusedClasses {
            index: int(pair.class),
            display_name: name(pair.class),
            other_index: int(pair.other),
            other_display_name: name(pair.other),
            count: pair.count as i64,
            reverse_count: pair.reverse as i64,
        })
        .collect()
}

/// Pairs of examples that are the same, or nearly.
fn duplicates(names: &ExampleNames, analysis: &Analysis) -> Vec<pb::DuplicatePair> {
    let name = |class: usize| names.class_name(class).to_owned();
    (analysis.duplicates.iter())
        .map(|pair| {
            let class = |key| names.class_of(key).unwrap_or(usize::MAX);
            let (first, second) = (class(pair.first), class(pair.second));
            pb::DuplicatePair {
                example_id: names.example_id(pair.first),
                class_index: int(first),
                display_name: name(first),
                other_example_id: names.example_id(pair.second),
                other_class_index: int(second),
                other_display_name: name(second),
                similarity: pair.similarity,
                exact: pair.is_exact(),
            }
        })
        .collect()
}
