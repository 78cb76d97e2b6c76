//! What a version's own examples say of it.

use serde::Serialize;

use super::format::{method_name, time};
use crate::failure::Failure;
use tipserve_api::v1;

/// The document of `analyze --json`.
#[derive(Debug, Serialize)]
pub(crate) struct AnalysisDocument {
    pub version: String,
    pub method: String,
    pub advice: String,
    pub example_count: i64,
    pub scored_count: i64,
    pub accuracy: f64,
    pub accuracy_error: f64,
    pub cross_entropy: f64,
    pub expected_calibration_error: f64,
    pub curve: Vec<CurvePointDocument>,
    pub forecast: Option<ForecastDocument>,
    pub classes: Vec<ClassAnalysisDocument>,
    /// Row i, column j: left-out examples of class i taken for class j.
    pub confusion: Vec<Vec<i64>>,
    pub confused: Vec<ConfusedDocument>,
    pub suspects: Vec<SuspectDocument>,
    pub suspect_count: i64,
    /// What `confusion` counts off its diagonal.
    pub misclassified: Vec<SuspectDocument>,
    pub duplicates: Vec<DuplicateDocument>,
    pub duplicate_count: i64,
    pub duplicate_similarity: f64,
    pub reliability: Vec<ReliabilityDocument>,
    pub skipped: Vec<String>,
    /// None if the server does not say.
    pub traffic: Option<ExampleTrafficDocument>,
}

/// Which examples the version's traffic came near.
#[derive(Debug, Serialize)]
pub(crate) struct ExampleTrafficDocument {
    pub since: Option<String>,
    pub item_count: i64,
    pub enough_count: i64,
    /// None before there are `enough_count` items.
    pub unmatched_count: Option<i64>,
    pub unmatched: Vec<UnmatchedDocument>,
}

/// An example that was the nearest one of no item.
#[derive(Debug, Serialize)]
pub(crate) struct UnmatchedDocument {
    pub example_id: String,
    pub class_index: i32,
    pub display_name: String,
}

/// The accuracy that a number of shots gives.
#[derive(Debug, Serialize)]
pub(crate) struct CurvePointDocument {
    pub shots: i32,
    pub accuracy: f64,
    pub low: f64,
    pub high: f64,
    pub draws: i32,
}

/// Accuracy at twice the shots.
#[derive(Debug, Serialize)]
pub(crate) struct ForecastDocument {
    pub shots: i32,
    pub accuracy: f64,
    pub low: f64,
    pub high: f64,
}

/// How well a class's own examples are told.
#[derive(Debug, Serialize)]
pub(crate) struct ClassAnalysisDocument {
    pub index: i32,
    pub display_name: String,
    pub example_count: i32,
    pub scored_count: i32,
    pub accuracy: f64,
    pub precision: f64,
    pub expected_gain: f64,
    /// The probability from which its answers have the requested precision.
    pub precision_threshold: Option<PrecisionThresholdDocument>,
}

/// A threshold for a precision, and its evidence.
#[derive(Debug, Serialize)]
pub(crate) struct PrecisionThresholdDocument {
    pub threshold: f64,
    pub precision: f64,
    pub precision_low: f64,
    pub borne_out: bool,
    pub recall: f64,
    pub count: i64,
}

/// Two classes taken for one another.
#[derive(Debug, Serialize)]
pub(crate) struct ConfusedDocument {
    pub index: i32,
    pub display_name: String,
    pub other_index: i32,
    pub other_display_name: String,
    pub count: i64,
    pub reverse_count: i64,
}

/// An example whose label is doubtful.
#[derive(Debug, Serialize)]
pub(crate) struct SuspectDocument {
    pub example_id: String,
    pub class_index: i32,
    pub display_name: String,
    pub probability: f64,
    pub suggested_index: i32,
    pub suggested_display_name: String,
    pub suggested_probability: f32,
}

/// Two examples that are the same, or nearly.
#[derive(Debug, Serialize)]
pub(crate) struct DuplicateDocument {
    pub example_id: String,
    pub class_index: i32,
    pub display_name: String,
    pub other_example_id: String,
    pub other_class_index: i32,
    pub other_display_name: String,
    pub similarity: f64,
    pub exact: bool,
}

/// Answers of about the same probability.
#[derive(Debug, Serialize)]
pub(crate) struct ReliabilityDocument {
    pub low: f64,
    pub high: f64,
    pub count: i64,
    pub probability: f64,
    pub accuracy: f64,
}

impl AnalysisDocument {
    /// # Errors
    /// If the confusion matrix is neither left out nor of the classes' size.
    pub(crate) fn new(m: v1::AnalyzeVersionResponse) -> Result<Self, Failure> {
        let (classes, entries) = (m.classes.len(), m.confusion.len());
        if entries != 0 && Some(entries) != classes.checked_mul(classes) {
            return Err(Failure::Broken(format!(
                "the server's confusion matrix has {entries} entries for {classes} classes"
            )));
        }
        Ok(Self {
            method: method_name(m.method),
            version: m.version,
            advice: m.advice,
            example_count: m.example_count,
            scored_count: m.scored_count,
            accuracy: m.accuracy,
            accuracy_error: m.accuracy_error,
            cross_entropy: m.cross_entropy,
            expected_calibration_error: m.expected_calibration_error,
            curve: m.curve.into_iter().map(Into::into).collect(),
            forecast: m.forecast.map(|it| ForecastDocument {
                shots: it.shots,
                accuracy: it.accuracy,
                low: it.low,
                high: it.high,
            }),
            confusion: (m.confusion.chunks(classes.max(1)))
                .map(<[i64]>::to_vec)
                .collect(),
            classes: m.classes.into_iter().map(Into::into).collect(),
            confused: m.confused.into_iter().map(Into::into).collect(),
            suspects: m.suspects.into_iter().map(Into::into).collect(),
            suspect_count: m.suspect_count,
            misclassified: m.misclassified.into_iter().map(Into::into).collect(),
            duplicates: m.duplicates.into_iter().map(Into::into).collect(),
            duplicate_count: m.duplicate_count,
            duplicate_similarity: m.duplicate_similarity,
            reliability: m.reliability.into_iter().map(Into::into).collect(),
            skipped: m.skipped,
            traffic: m.traffic.map(Into::into),
        })
    }
}

impl From<v1::ExampleTraffic> for ExampleTrafficDocument {
    fn from(it: v1::ExampleTraffic) -> Self {
        let unmatched = it.unmatched.into_iter();
        Self {
            since: time(it.since),
            item_count: it.item_count,
            enough_count: it.enough_count,
            unmatched_count: it.unmatched_count,
            unmatched: unmatched
                .map(|example| UnmatchedDocument {
                    example_id: example.example_id,
                    class_index: example.class_index,
                    display_name: example.display_name,
                })
                .collect(),
        }
    }
}

impl From<v1::LearningCurvePoint> for CurvePointDocument {
    fn from(it: v1::LearningCurvePoint) -> Self {
        Self {
            shots: it.shots,
            accuracy: it.accuracy,
            low: it.low,
            high: it.high,
            draws: it.draws,
        }
    }
}

impl From<v1::ClassAnalysis> for ClassAnalysisDocument {
    fn from(it: v1::ClassAnalysis) -> Self {
        Self {
            index: it.index,
            display_name: it.display_name,
            example_count: it.example_count,
            scored_count: it.scored_count,
            accuracy: it.accuracy,
            precision: it.precision,
            expected_gain: it.expected_gain,
            precision_threshold: it
                .precision_threshold
                .map(|found| PrecisionThresholdDocument {
                    threshold: found.threshold,
                    precision: found.precision,
                    precision_low: found.precision_low,
                    borne_out: found.borne_out,
                    recall: found.recall,
                    count: found.count,
                }),
        }
    }
}

impl From<v1::ConfusedClasses> for ConfusedDocument {
    fn from(it: v1::ConfusedClasses) -> Self {
        Self {
            index: it.index,
            display_name: it.display_name,
            other_index: it.other_index,
            other_display_name: it.other_display_name,
            count: it.count,
            reverse_count: it.reverse_count,
        }
    }
}

impl From<v1::SuspectExample> for SuspectDocument {
    fn from(it: v1::SuspectExample) -> Self {
        let suggested = it.suggested.unwrap_or_default();
        Self {
            example_id: it.example_id,
            class_index: it.class_index,
            display_name: it.display_name,
            probability: it.probability,
            suggested_index: suggested.index,
            suggested_display_name: suggested.display_name,
            suggested_probability: suggested.probability,
        }
    }
}

impl From<v1::DuplicatePair> for DuplicateDocument {
    fn from(it: v1::DuplicatePair) -> Self {
        Self {
            example_id: it.example_id,
            class_index: it.class_index,
            display_name: it.display_name,
            other_example_id: it.other_example_id,
            other_class_index: it.other_class_index,
            other_display_name: it.other_display_name,
            similarity: it.similarity,
            exact: it.exact,
        }
    }
}

impl From<v1::ReliabilityBin> for ReliabilityDocument {
    fn from(it: v1::ReliabilityBin) -> Self {
        Self {
            low: it.low,
            high: it.high,
            count: it.count,
            probability: it.probability,
            accuracy: it.accuracy,
        }
    }
}
