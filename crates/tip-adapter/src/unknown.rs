//! How well scores tell pictures of unknown classes from those of known ones.

/// Share of the known pictures that [`UnknownFigures::false_positive_rate`] is
/// at.
const TRUE_POSITIVES: f64 = 0.95;

/// Scores of pictures, as they come.
#[derive(Clone, Debug, Default)]
pub struct UnknownScores {
    /// Of known classes, and whether each was classified rightly.
    known: Vec<(f64, bool)>,
    unknown: Vec<f64>,
}

/// How well scores tell known from unknown, over all thresholds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnknownFigures {
    /// Pictures of unknown classes that were scored.
    pub count: usize,
    /// Probability that a known picture scores higher than an unknown one, ties
    /// counted half.
    pub auroc: f64,
    /// Share of the unknown pictures at or over the score that 95 % of the known
    /// ones reach.
    pub false_positive_rate: f64,
}

/// What rejecting scores below one threshold does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThresholdFigures {
    /// Share of the known pictures at or over it.
    pub accepted: f64,
    /// Share of the unknown ones below it.
    pub rejected: f64,
    /// Share of the accepted known ones classified rightly.
    pub accepted_accuracy: f64,
}

impl UnknownScores {
    /// A picture of a known class.
    pub fn known(&mut self, score: f64, right: bool) {
        self.known.push((score, right));
    }

    /// A picture of no class that the head knows.
    pub fn unknown(&mut self, score: f64) {
        self.unknown.push(score);
    }

    /// None without pictures of either kind.
    pub fn figures(&self) -> Option<UnknownFigures> {
        if self.known.is_empty() || self.unknown.is_empty() {
            return None;
        }
        let mut known: Vec<f64> = self.known.iter().map(|(score, _)| *score).collect();
        known.sort_by(f64::total_cmp);
        let mut higher = 0.0;
        for &score in &self.unknown {
            let below = known.partition_point(|known| *known < score);
            let up_to = known.partition_point(|known| *known <= score);
            higher += (known.len() - up_to) as f64 + 0.5 * (up_to - below) as f64;
        }
        let pairs = known.len() as f64 * self.unknown.len() as f64;
        // The highest score that 95 % reach.
        let reach = (TRUE_POSITIVES * known.len() as f64 - 1e-9).ceil().max(1.0) as usize;
        let threshold = known.get(known.len() - reach.min(known.len())).copied();
        let threshold = threshold.unwrap_or(f64::NEG_INFINITY);
        let taken = self.unknown.iter().filter(|score| **score >= threshold);
        Some(UnknownFigures {
            count: self.unknown.len(),
            auroc: higher / pairs,
            false_positive_rate: taken.count() as f64 / self.unknown.len() as f64,
        })
    }

    /// What a threshold does to these pictures.
    pub fn at(&self, threshold: f64) -> ThresholdFigures {
        let share = |part: usize, of: usize| part as f64 / of.max(1) as f64;
        let accepted: Vec<bool> = (self.known.iter())
            .filter(|(score, _)| *score >= threshold)
            .map(|(_, right)| *right)
            .collect();
        let right = accepted.iter().filter(|right| **right).count();
        let rejected = self.unknown.iter().filter(|score| **score < threshold);
        ThresholdFigures {
            accepted: share(accepted.len(), self.known.len()),
            rejected: share(rejected.count(), self.unknown.len()),
            accepted_accuracy: share(right, accepted.len()),
        }
    }
}
