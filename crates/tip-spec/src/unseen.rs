//! How a head scores examples that it has not seen.

use serde::{Deserialize, Serialize};

/// Scores of this many examples say how scores scatter.
const LEAST_EXAMPLES: usize = 3;

/// How a head scores examples that it has not seen, as percentiles 0 to 100.
///
/// The value at j is the order statistic of rank ⌊j/100·(Q + 1)⌋ of the Q
/// examples (split-conformal prediction, Vovk et al., 2005): a new example of a
/// known class is below it with a probability of at most j/100. Rank 0 is a
/// bound that nothing is below; what [`UnseenScores::threshold`] says there is
/// estimated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnseenScores {
    /// Q, the examples that the percentiles are of.
    pub count: usize,
    /// Of `log Σ exp(logits/T)` over the classes: how much of what it knows the
    /// head finds in a picture (the energy score of Liu et al., NeurIPS 2020).
    pub known: Vec<f64>,
    /// Of the probability of the example's own class.
    pub own: Vec<f64>,
}

impl UnseenScores {
    /// Of examples' scores and own probabilities, Q each; none if Q is 0.
    pub fn of(known: &[f64], own: &[f64]) -> Option<Self> {
        let count = known.len();
        if count == 0 || own.len() != count {
            return None;
        }
        Some(Self {
            count,
            // JSON has no infinity.
            known: percentiles(known, f64::MIN),
            own: percentiles(own, 0.0),
        })
    }

    /// The same examples with other scores, Q of them.
    #[must_use]
    pub fn with_known(self, known: &[f64]) -> Self {
        Self {
            known: percentiles(known, f64::MIN),
            ..self
        }
    }

    /// The score that this share of pictures of known classes reaches, 0 to 1; none
    /// of fewer than three examples.
    ///
    /// Where the share is beyond what ranks can tell (1 − share under 1/(Q + 1) or
    /// under a hundredth), scores below the lowest percentile p are taken to thin out
    /// exponentially on the scale of their standard deviation s, which few examples
    /// leave uncertain: `percentile − (1 + 2/Q)·s·log(p/(1 − share))`.
    pub fn threshold(&self, accept: f64) -> Option<f64> {
        if self.count < LEAST_EXAMPLES {
            return None;
        }
        let lowest = Lowest::of(&self.known, f64::MIN, accept)?;
        let scale = lowest.deviation * (1.0 + 2.0 / self.count as f64);
        Some(lowest.percentile - scale * lowest.beyond)
    }

    /// The probability from which a class belongs to a set that holds the
    /// picture's class with this probability, 0 to 1. 0, so that every class
    /// belongs to it, where Q examples cannot tell.
    ///
    /// For more than 99 of 100, own probabilities below the lowest percentile are
    /// taken to be as likely one as the other.
    pub fn least_probability(&self, coverage: f64) -> Option<f64> {
        let first = at(&self.own, coverage.min(LARGEST_RANKED))?;
        let beyond = ((1.0 - coverage) / (1.0 - LARGEST_RANKED)).min(1.0);
        Some(first * beyond)
    }
}

/// The largest share that a percentile stands for.
const LARGEST_RANKED: f64 = 0.99;

/// What the percentiles say of a share, or the lowest that says anything.
struct Lowest {
    percentile: f64,
    /// log of how many times rarer what is asked for is; 0 if there is its percentile.
    beyond: f64,
    /// Of the scores from there on.
    deviation: f64,
}

impl Lowest {
    fn of(percentiles: &[f64], below_all: f64, share: f64) -> Option<Self> {
        let percent = 100.0 * (1.0 - share);
        let first = (percent + ROUNDING).floor().max(1.0) as usize;
        let at = first
            + (percentiles.iter().skip(first)).position(|percentile| *percentile > below_all)?;
        let known: Vec<f64> = percentiles.iter().take(100).skip(at).copied().collect();
        let count = known.len().max(1) as f64;
        let mean = known.iter().sum::<f64>() / count;
        let squares: f64 = known.iter().map(|it| (it - mean).powi(2)).sum();
        let beyond = (at as f64 / percent.max(f64::MIN_POSITIVE)).ln();
        Some(Self {
            percentile: percentiles.get(at).copied()?,
            beyond: if at == first && percent >= 1.0 - ROUNDING {
                0.0
            } else {
                beyond.max(0.0)
            },
            deviation: (squares / count).sqrt(),
        })
    }
}

/// 1 − 0.9 is a little less than a tenth.
const ROUNDING: f64 = 1e-9;

fn percentiles(values: &[f64], below_all: f64) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (0..=100)
        .map(|percent| {
            let rank = percent * (sorted.len() + 1) / 100;
            let value = rank.checked_sub(1).and_then(|at| sorted.get(at));
            // The highest rank is one more than there are values.
            value.or(sorted.last().filter(|_| rank > 0))
        })
        .map(|value| value.copied().unwrap_or(below_all))
        .collect()
}

/// The percentile that at most 1 − share are below.
fn at(percentiles: &[f64], share: f64) -> Option<f64> {
    let percent = (100.0 * (1.0 - share) + ROUNDING).floor().clamp(0.0, 100.0);
    percentiles.get(percent as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_conformal_order_statistics() {
        let values: Vec<f64> = (1..=19).map(f64::from).collect();
        let scores = UnseenScores::of(&values, &values).expect("scores");
        // ⌊0.05 · 20⌋ = 1: the least value; ⌊0.1 · 20⌋ = 2.
        assert_eq!(scores.threshold(0.95), Some(1.0));
        assert_eq!(scores.threshold(0.9), Some(2.0));
        assert_eq!(scores.least_probability(0.99), Some(0.0));
        assert_eq!(scores.threshold(0.0), Some(19.0));
        assert_eq!(UnseenScores::of(&[], &[]), None);
        assert_eq!(
            UnseenScores::of(&[1.0, 2.0], &[0.5, 0.6]).and_then(|it| it.threshold(0.5)),
            None
        );
        let text = serde_json::to_string(&scores).expect("JSON");
        let again: UnseenScores = serde_json::from_str(&text).expect("scores");
        assert_eq!(again, scores);
    }

    #[test]
    fn beyond_what_ranks_can_tell_a_threshold_is_further_out_and_finite() {
        // 12 examples: ranks tell of a thirteenth, 92.3 in 100.
        let values: Vec<f64> = (0..12).map(|i| f64::from(i * i) / 10.0).collect();
        let own: Vec<f64> = (1..=12).map(|i| f64::from(i) / 13.0).collect();
        let scores = UnseenScores::of(&values, &own).expect("scores");
        assert_eq!(scores.threshold(0.92), Some(0.0));
        // Percentiles 8 to 99 stand for the scores; the lowest is the least of them.
        let known: Vec<f64> = scores.known.iter().skip(8).take(92).copied().collect();
        let mean = known.iter().sum::<f64>() / 92.0;
        let deviation = (known.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / 92.0).sqrt();
        for accept in [0.93, 0.95, 0.99, 0.995, 0.9999] {
            let rarer: f64 = 8.0 / (100.0 * (1.0 - accept));
            let expected = -deviation * (1.0 + 2.0 / 12.0) * rarer.ln();
            let found = scores.threshold(accept).expect("a threshold");
            assert!(
                (found - expected).abs() < 1e-6,
                "{accept}: {found} {expected}"
            );
        }
        // Every class belongs to sets of which the examples cannot tell.
        assert_eq!(scores.least_probability(0.95), Some(0.0));
        assert_eq!(scores.least_probability(0.995), Some(0.0));
    }

    #[test]
    fn more_than_a_hundredth_is_told_of_many_examples_too() {
        let values: Vec<f64> = (1..=1999).map(f64::from).collect();
        let own: Vec<f64> = (1..=1999).map(|i| f64::from(i) / 2000.0).collect();
        let scores = UnseenScores::of(&values, &own).expect("scores");
        let at = |accept| scores.threshold(accept).expect("a threshold");
        assert_eq!(at(0.99), 20.0);
        assert!(at(0.9901) < 20.0 && at(0.995) < at(0.9901) && at(0.999) < at(0.995));
        let least = scores.least_probability(0.995).expect("a probability");
        assert!((least - 0.005).abs() < 1e-9, "{least}");
    }
}
