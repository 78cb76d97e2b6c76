//! Thresholds for a requested precision, for each class.
//!
//! A [`PrecisionCurve`] records a head's answers for unseen examples: for each
//! probability, how many answers of the class reached it and how many of them
//! were right. The threshold for a precision p is the lowest at which `(right +
//! m·claimed)/(taken + m) ≥ p`: the share that was right, drawn towards the
//! mean probability that the head claims with the strength of m = 20 examples
//! (of 0 to 40 and the claim alone, what came nearest to the precision asked
//! for, `docs/accuracy.md`). If the examples are too few to confirm p (the
//! lower bound of Wilson's interval, one-sided at 95 %, is below it), the
//! threshold says so.

/// How many examples the claimed probabilities count as.
const STRENGTH: f64 = 20.0;

/// Normal quantile of a one-sided bound at 95 %.
const QUANTILE: f64 = 1.644_853_626_951_472_7;

/// Beyond this rank, each point has a quarter more answers than the one before.
const DENSE: usize = 32;

/// The answers of at least some probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurvePoint {
    /// The probability, 0 to 1.
    pub threshold: f64,
    /// How many answers reach it.
    pub taken: u32,
    /// How many of them are right.
    pub right: u32,
    /// Mean of the probabilities that they claimed.
    pub claimed: f64,
}

/// How often a class's answers were right, as a function of their probability.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PrecisionCurve {
    /// Its points, the most probable first.
    pub points: Vec<CurvePoint>,
    /// Unseen examples of the class.
    pub positives: u32,
}

/// A threshold, and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrecisionThreshold {
    /// The least probability that is accepted; over 1 if no answer of the
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
    /// Whether the examples confirm the precision.
    pub fn is_borne_out(&self, precision: f64) -> bool {
        self.low >= precision
    }
}

impl PrecisionCurve {
    /// The curve of the class's answers, each with its probability and whether
    /// it was right; `positives` is the number of examples of the class.
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
        // No answer was that probable: only the head's own claim supports it.
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

/// Lower bound (Wilson, 1927) of the share of which `right` of `count` is a
/// sample, one-sided at 95 %; 0 if `count` is 0.
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

/// A curve for each of N classes, from Q answers of one class each: predicted
/// classes, their probabilities and the true classes.
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
