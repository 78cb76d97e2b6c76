//! `Evaluate`'s report on a version.

use super::{
    super::confidence::{DEFAULT_ACCEPT, Reject},
    Card, Version,
};
use crate::catalog::Scorecard;
use tip_adapter::evaluate_labels::LabelEvaluation;
use tipserve_api::v1 as pb;

/// A version's results as the API's message.
pub(super) fn evaluation(version: &Version) -> pb::Evaluation {
    match &version.card {
        Card::OneLabel(card) => of_one_label(version, card),
        Card::MultiLabel(card) => of_labels(version, &card.finish()),
    }
}

fn of_one_label(version: &Version, card: &Scorecard) -> pb::Evaluation {
    let (report, zero_shot) = card.finish();
    let classes = report
        .per_class
        .iter()
        .enumerate()
        .map(|(index, class)| pb::ClassEvaluation {
            index: index as i32,
            display_name: version.classifier.class_name(index).to_owned(),
            count: class.count as i64,
            accuracy: class.accuracy,
        })
        .collect();
    pb::Evaluation {
        version: version.classifier.name.clone(),
        count: report.count as i64,
        top1: report.top1,
        top5: report.top5,
        zero_shot_top1: zero_shot.map(|report| report.top1),
        cross_entropy: report.cross_entropy,
        expected_calibration_error: report.expected_calibration_error,
        classes,
        confusion: report.confusion.iter().map(|count| *count as i64).collect(),
        unknown: unknown(version),
        multi_label: None,
    }
}

fn of_labels(version: &Version, found: &LabelEvaluation) -> pb::Evaluation {
    let classes = found.classes.iter().enumerate();
    let classes = classes.map(|(index, class)| pb::LabelEvaluation {
        index: index as i32,
        display_name: version.classifier.class_name(index).to_owned(),
        count: class.positives as i64,
        average_precision: class.average_precision,
        precision: class.at_threshold.precision,
        recall: class.at_threshold.recall,
        f1: class.at_threshold.f1,
    });
    pb::Evaluation {
        version: version.classifier.name.clone(),
        count: found.count as i64,
        cross_entropy: found.cross_entropy,
        multi_label: Some(pb::MultiLabelEvaluation {
            mean_average_precision: found.mean_average_precision,
            micro_f1: found.micro.f1,
            macro_f1: found.macro_f1,
            precision: found.micro.precision,
            recall: found.micro.recall,
            classes: classes.collect(),
        }),
        ..pb::Evaluation::default()
    }
}

/// How well items of unknown classes are told; none if there are none and the
/// caller gave no threshold.
fn unknown(version: &Version) -> Option<pb::UnknownEvaluation> {
    let figures = version.scores.figures();
    let unseen = version.classifier.manifest.details.head.unseen.as_ref();
    let of_share = |accept| unseen.and_then(|scores| scores.threshold(accept));
    let (threshold, at) = match &version.rejecting {
        Some(rejecting) => {
            let threshold = match rejecting.by {
                Reject::Threshold(threshold) => Some(threshold),
                Reject::Accept(accept) => of_share(accept),
                Reject::Precision(_) => None,
            };
            (threshold, Some(rejecting.margins.at(0.0)))
        }
        None => {
            figures?;
            let threshold = of_share(DEFAULT_ACCEPT);
            (threshold, threshold.map(|at| version.scores.at(at)))
        }
    };
    Some(pb::UnknownEvaluation {
        count: figures.map_or(0, |found| i64::try_from(found.count).unwrap_or(i64::MAX)),
        auroc: figures.map_or(0.0, |found| found.auroc),
        false_positive_rate: figures.map_or(0.0, |found| found.false_positive_rate),
        threshold,
        accepted: at.map_or(0.0, |at| at.accepted),
        rejected: at.map_or(0.0, |at| at.rejected),
        accepted_top1: at.map_or(0.0, |at| at.accepted_accuracy),
    })
}
