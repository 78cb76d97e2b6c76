//! How well versions classify.

use serde::Serialize;

use super::rejected::RejectedDocument;
use crate::failure::Failure;
use tipserve_api::v1;

/// What `evaluate --json` prints. `top1` to `count` are those of the first
/// version.
#[derive(Debug, Serialize)]
pub(crate) struct EvaluateDocument {
    pub top1: f64,
    pub top5: f64,
    pub zero_shot_top1: Option<f64>,
    pub count: i64,
    pub evaluations: Vec<EvaluationDocument>,
    pub rejected: Vec<RejectedDocument>,
    pub rejected_count: i64,
    pub matched_by: String,
    pub seconds: f64,
}

/// How well one version did.
#[derive(Debug, Serialize)]
pub(crate) struct EvaluationDocument {
    pub version: String,
    pub count: i64,
    pub top1: f64,
    pub top5: f64,
    pub zero_shot_top1: Option<f64>,
    pub cross_entropy: f64,
    pub expected_calibration_error: f64,
    pub classes: Vec<ClassEvaluationDocument>,
    /// Row i, column j: examples of class i taken for class j. Empty if there
    /// are more classes than the server gives a matrix for.
    pub confusion: Vec<Vec<i64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<UnknownDocument>,
    /// Of versions with several labels an example: the figures above but
    /// `count` and `cross_entropy` are 0 then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multi_label: Option<MultiLabelDocument>,
}

/// How well independent classes were answered.
#[derive(Debug, Serialize)]
pub(crate) struct MultiLabelDocument {
    pub mean_average_precision: f64,
    pub micro_f1: f64,
    pub macro_f1: f64,
    pub precision: f64,
    pub recall: f64,
    pub classes: Vec<LabelDocument>,
}

/// How well one of several independent classes did.
#[derive(Debug, Serialize)]
pub(crate) struct LabelDocument {
    pub index: i32,
    pub display_name: String,
    pub count: i64,
    pub average_precision: f64,
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
}

impl From<v1::MultiLabelEvaluation> for MultiLabelDocument {
    fn from(found: v1::MultiLabelEvaluation) -> Self {
        let classes = found.classes.into_iter();
        Self {
            mean_average_precision: found.mean_average_precision,
            micro_f1: found.micro_f1,
            macro_f1: found.macro_f1,
            precision: found.precision,
            recall: found.recall,
            classes: classes
                .map(|class| LabelDocument {
                    index: class.index,
                    display_name: class.display_name,
                    count: class.count,
                    average_precision: class.average_precision,
                    precision: class.precision,
                    recall: class.recall,
                    f1: class.f1,
                })
                .collect(),
        }
    }
}

/// How well pictures of unknown classes are told from the others.
#[derive(Debug, Serialize)]
pub(crate) struct UnknownDocument {
    pub count: i64,
    pub auroc: f64,
    pub false_positive_rate: f64,
    pub threshold: Option<f64>,
    pub accepted: f64,
    pub rejected: f64,
    pub accepted_top1: f64,
}

/// How well one class did.
#[derive(Debug, Serialize)]
pub(crate) struct ClassEvaluationDocument {
    pub index: i32,
    pub display_name: String,
    pub count: i64,
    pub accuracy: f64,
}

impl EvaluationDocument {
    /// # Errors
    /// If the confusion matrix is neither left out nor of the classes' size.
    pub(crate) fn new(evaluation: v1::Evaluation) -> Result<Self, Failure> {
        let classes = evaluation.classes.len();
        let entries = evaluation.confusion.len();
        if entries != 0 && Some(entries) != classes.checked_mul(classes) {
            return Err(Failure::Broken(format!(
                "the server's confusion matrix has {entries} entries for {classes} classes"
            )));
        }
        Ok(Self {
            version: evaluation.version,
            count: evaluation.count,
            top1: evaluation.top1,
            top5: evaluation.top5,
            zero_shot_top1: evaluation.zero_shot_top1,
            cross_entropy: evaluation.cross_entropy,
            expected_calibration_error: evaluation.expected_calibration_error,
            multi_label: evaluation.multi_label.map(Into::into),
            unknown: evaluation.unknown.map(|it| UnknownDocument {
                count: it.count,
                auroc: it.auroc,
                false_positive_rate: it.false_positive_rate,
                threshold: it.threshold,
                accepted: it.accepted,
                rejected: it.rejected,
                accepted_top1: it.accepted_top1,
            }),
            confusion: evaluation
                .confusion
                .chunks(classes.max(1))
                .map(<[i64]>::to_vec)
                .collect(),
            classes: evaluation
                .classes
                .into_iter()
                .map(|class| ClassEvaluationDocument {
                    index: class.index,
                    display_name: class.display_name,
                    count: class.count,
                    accuracy: class.accuracy,
                })
                .collect(),
        })
    }
}
