//! The probability from which a class is in an answer.
//!
//! The threshold of a class has the highest F1 on unseen examples. Few
//! positives determine it badly, so in logits it is drawn towards the threshold
//! that is best for all classes together (micro F1), which counts as five
//! positives.

use tch::Tensor;

use crate::dimensions::{as_count, column_count};
use crate::{error::TipError, precision::PrecisionCurve};

/// How many positives the common threshold counts as.
const STRENGTH: f64 = 5.0;

/// Probabilities are kept this far from 0 and 1.
const LEAST: f64 = 1e-6;

/// Thresholds and curves of each class from probabilities and labels, f64
/// [Q, N], and the micro F1 at these thresholds.
pub(super) fn choose(
    probabilities: &Tensor,
    labels: &Tensor,
) -> Result<(Vec<f64>, Vec<PrecisionCurve>, f64), TipError> {
    let classes = as_count(column_count(labels)?)?;
    // Class by class.
    let flat = |t: &Tensor| -> Result<Vec<f64>, TipError> {
        Ok(Vec::<f64>::try_from(
            t.f_tr()?.f_contiguous()?.f_flatten(0, -1)?,
        )?)
    };
    let (probabilities, labels) = (flat(probabilities)?, flat(labels)?);
    let count = probabilities.len().checked_div(classes).unwrap_or(0);
    let answers: Vec<(f64, bool)> = probabilities
        .into_iter()
        .zip(labels)
        .map(|(probability, label)| (probability, label > 0.5))
        .collect();
    let common = best_f1(&answers).unwrap_or(0.5);
    let mut thresholds = Vec::with_capacity(classes);
    let mut curves = Vec::with_capacity(classes);
    let mut counts = Counts::default();
    for class in answers.chunks(count.max(1)) {
        let positives = class.iter().filter(|answer| answer.1).count();
        let threshold = match best_f1(class) {
            Some(own) => between(own, positives as f64, common),
            None => common,
        };
        counts.add(class, threshold);
        thresholds.push(threshold);
        curves.push(PrecisionCurve::of(
            class.to_vec(),
            u32::try_from(positives).unwrap_or(u32::MAX),
        ));
    }
    // Without examples there is nothing to choose from.
    thresholds.resize(classes, common);
    if count == 0 {
        curves.clear();
    }
    Ok((thresholds, curves, counts.f1()))
}

/// A class's own threshold, found on this many positives, drawn towards the
/// common one.
fn between(own: f64, positives: f64, common: f64) -> f64 {
    let logit = |p: f64| {
        let p = p.clamp(LEAST, 1.0 - LEAST);
        (p / (1.0 - p)).ln()
    };
    let mean = (positives * logit(own) + STRENGTH * logit(common)) / (positives + STRENGTH);
    1.0 / (1.0 + (-mean).exp())
}

/// The threshold with the highest F1, halfway between the last accepted
/// probability and the next; `None` without positives.
fn best_f1(answers: &[(f64, bool)]) -> Option<f64> {
    let positives = answers.iter().filter(|answer| answer.1).count();
    if positives == 0 {
        return None;
    }
    let mut sorted = answers.to_vec();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut right, mut best) = (0_usize, (0.0, 0.5));
    for (at, &(probability, is_right)) in sorted.iter().enumerate() {
        right += usize::from(is_right);
        let next = sorted.get(at + 1).map_or(0.0, |answer| answer.0);
        if next == probability {
            continue;
        }
        let f1 = 2.0 * right as f64 / (at + 1 + positives) as f64;
        if f1 > best.0 {
            best = (f1, (probability + next) / 2.0);
        }
    }
    Some(best.1)
}

#[derive(Default)]
struct Counts {
    right: usize,
    taken: usize,
    positives: usize,
}

impl Counts {
    fn add(&mut self, answers: &[(f64, bool)], threshold: f64) {
        for &(probability, is_right) in answers {
            let taken = probability >= threshold;
            self.taken += usize::from(taken);
            self.positives += usize::from(is_right);
            self.right += usize::from(taken && is_right);
        }
    }

    fn f1(&self) -> f64 {
        2.0 * self.right as f64 / (self.taken + self.positives).max(1) as f64
    }
}
