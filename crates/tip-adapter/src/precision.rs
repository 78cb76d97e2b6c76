//! Thresholds for a precision that a caller names, class by class.
//!
//! A [`PrecisionCurve`] holds what a head said of examples that it had not seen:
//! of those taken for the class with at least some probability, how many there
//! were and how many were right. The threshold for a precision p is the lowest
//! at which `(right + m·claimed)/(taken + m) ≥ p`: the share that was right,
//! drawn towards the mean probability that the head claims with the strength of
//! m = 20 examples (of 0 to 40 and the claim alone, what came nearest to the
//! precision asked for, `docs/accuracy.md`). Where the examples are too few to bear p out (the lower bound
//! of Wilson's interval, one-sided at 95 %, is under it), that is said.

/// The examples that the claimed probabilities count as.
const STRENGTH: f64 = 20.0;

/// Normal quantile of a one-sided bound at 95 %.
const QUANTILE: f64 = 1.644_853_626_951_472_7;

/// From this rank on, points are a quarter apart.
const DENSE: usize = 32;

/// The answers of at least a probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurvePoint {
    /// The probability, 0 to 1.
    pub threshold: f64,
    /// How many answers reach it.
    pub taken: u32,
    /// How many of these are right.
    pub right: u32,
    /// Their mean probability.
    pub claimed: f64,
}

/// How often a class's answers were right, by their probability.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PrecisionCurve {
    /// The most probable first.
    pub points: Vec<CurvePoint>,
    /// Examples of the class that could have been found.
    pub positives: u32,
}

/// A threshold, and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrecisionThreshold {
    /// The least probability that is accepted; over 1 where no answer of the
    /// class can be.
    pub threshold: f64,
    /// The precision that is expected at it.
    pub precision: f64,
    /// Lower bound of the precision, one-sided at 95 %; 0 without an answer.
    pub low: f64,
    /// Share of the class's unseen examples that it finds.
    pub recall: f64,
    /// Unseen answers that reach it.
    pub taken: u32,
}

impl PrecisionThreshold {
    /// Whether the examples bear the precision out.
    pub fn is_borne_out(&self, precision: f64) -> bool {
        self.low >= precision
    }
}

impl PrecisionCurve {
    /// Of answers for the class, each with its probability and whether it was
    /// right, and of how many examples of the class there were.
    pub fn of(mut answers: Vec<(f64, bool)>, positives: u32) -> Self {
        answers.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut points, mut right, mut claimed) = (Vec::new(), 0_u32, 0.0);
        let mut next = 1;
        for (at, &(probability, is_right)) in answers.iter().enumerate() {
            right += u32::from(is_right);
            claimed += probability;
            let taken = at + 1;
            // Equal probabilities are taken together.
            let following = answers.get(taken).map(|answer| answer.0);
            if following == Some(probability) || (taken < next && following.is_some()) {
                continue;
            }
            next = if taken < DENSE {
                taken + 1
            } else {
                taken + taken / 4
            };
            points.push(CurvePoint {
                threshold: probability,
                taken: u32::try_from(taken).unwrap_or(u32::MAX),
                right,
                claimed: claimed / taken as f64,
            });
        }
        Self { points, positives }
    }

    /// The lowest threshold at which the precision is expected.
    pub fn threshold(&self, precision: f64) -> PrecisionThreshold {
        let expected = |point: &CurvePoint| {
            (f64::from(point.right) + STRENGTH * point.claimed)
                / (f64::from(point.taken) + STRENGTH)
        };
        let reached = self
            .points
            .iter()
            .rev()
            .find(|point| expected(point) >= precision);
        if let Some(point) = reached {
            let found = f64::from(point.right) / f64::from(self.positives.max(1));
            return PrecisionThreshold {
                threshold: point.threshold,
                precision: expected(point),
                low: wilson(point.right, point.taken),
                recall: found.min(1.0),
                taken: point.taken,
            };
        }
        // Nothing speaks for it but, where no answer was as sure, what the head
        // claims.
        let surest = self.points.first().map_or(0.0, |point| point.threshold);
        PrecisionThreshold {
            threshold: if surest < precision {
                precision
            } else {
                f64::from(f32::MAX)
            },
            precision,
            low: 0.0,
            recall: 0.0,
            taken: 0,
        }
    }
}

/// Lower bound of the share that `right` of `count` stand for (Wilson, 1927),
/// one-sided at 95 %; 0 of nothing.
fn wilson(right: u32, count: u32) -> f64 {
    if count == 0 {
        return 0.0;
    }
    let (n, square) = (f64::from(count), QUANTILE * QUANTILE);
    let share = f64::from(right) / n;
    let centre = share + square / (2.0 * n);
    let half = QUANTILE * (share * (1.0 - share) / n + square / (4.0 * n * n)).sqrt();
    ((centre - half) / (1.0 + square / n)).max(0.0)
}

/// A curve for each of N classes, of answers that each name one: predicted
/// classes, their probabilities and the right classes, Q each.
pub fn curves(
    classes: usize,
    predicted: &[i64],
    probability: &[f64],
    labels: &[i64],
) -> Vec<PrecisionCurve> {
    let mut answers: Vec<Vec<(f64, bool)>> = vec![Vec::new(); classes];
    let mut positives = vec![0_u32; classes];
    for ((&predicted, &probability), &label) in predicted.iter().zip(probability).zip(labels) {
        let of = |class: i64| usize::try_from(class).unwrap_or(usize::MAX);
        if let Some(answers) = answers.get_mut(of(predicted)) {
            answers.push((probability, predicted == label));
        }
        if let Some(count) = positives.get_mut(of(label)) {
            *count += 1;
        }
    }
    let pairs = answers.into_iter().zip(positives);
    pairs
        .map(|(answers, positives)| PrecisionCurve::of(answers, positives))
        .collect()
}
