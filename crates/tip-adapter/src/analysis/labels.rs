//! Left-out answers, example by example: accuracy, confusions, calibration,
//! and labels that are probably wrong.

use std::collections::BTreeMap;

use tch::Kind;

use crate::{
    dimensions::as_count, error::TipError, evaluate::CALIBRATION_BINS, hold_out::copies,
    left_out::LeftOut, material::Material,
};

/// An example is suspect if another class is this many times as probable as its
/// own. With one label in twenty wrong this found 82 to 100 % of them
/// (`docs/accuracy.md`).
const ODDS: f64 = 9.0;

/// How strongly a class's share of errors is drawn towards the mean: by two
/// examples' worth.
const PRIOR: f64 = 2.0;

/// An example whose label is doubtful.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suspect {
    /// The example's row among the version's keys.
    pub key: usize,
    /// The class that it is labelled with.
    pub class: usize,
    /// Left-out probability of that class.
    pub probability: f64,
    /// The class that it is taken for.
    pub suggested: usize,
    /// Left-out probability of the suggested class.
    pub suggested_probability: f64,
    /// That class's left-out logit over the temperature.
    pub suggested_logit: f64,
}

/// Two classes that are taken for one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confused {
    /// The class of the examples.
    pub class: usize,
    /// The class that they are taken for.
    pub other: usize,
    /// Examples of the first taken for the other, at least as many as the
    /// other way round.
    pub count: u64,
    /// Examples of the other taken for the first.
    pub reverse: u64,
}

/// Answers of about the same probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReliabilityBin {
    /// Lower bound of the probability, exclusive.
    pub low: f64,
    /// Upper bound of the probability, inclusive.
    pub high: f64,
    /// Answers whose probability falls in the bin.
    pub count: u64,
    /// Mean probability of the bin's answers.
    pub probability: f64,
    /// Share of them that were right.
    pub accuracy: f64,
}

/// How well a class's own examples are recognised.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClassReport {
    /// Training examples of the class.
    pub example_count: usize,
    /// Those that were left out and classified.
    pub scored_count: usize,
    /// Share of these classified rightly; 0 if there are none.
    pub accuracy: f64,
    /// Precision: the share of the examples taken for this class that are of
    /// it; 0 if none was.
    pub precision: f64,
    /// How much recall twice as many examples of the class should add.
    pub expected_gain: f64,
}

/// What the head says of one example that it was made without.
#[derive(Clone, Copy, Debug)]
struct Answer {
    key: usize,
    class: usize,
    own: f64,
    best: usize,
    best_probability: f64,
    best_logit: f64,
}

/// The left-out answers that the figures and lists are computed from.
#[derive(Debug)]
pub(super) struct Judged {
    /// Training examples of each class.
    examples: Vec<usize>,
    /// Different pictures among them: copies of one count once.
    shots: Vec<usize>,
    answers: Vec<Answer>,
}

impl Judged {
    /// Nothing could be left out.
    pub fn none(material: &Material) -> Result<Self, TipError> {
        Ok(Self {
            examples: examples(material)?,
            shots: shots(material)?,
            answers: Vec::new(),
        })
    }

    pub fn of(left_out: &LeftOut, material: &Material) -> Result<Self, TipError> {
        let probabilities = left_out.logits.f_softmax(1, Kind::Double)?;
        let (best_probability, best) = probabilities.f_max_dim(1, false)?;
        let own = left_out.labels.f_unsqueeze(1)?;
        let own = probabilities.f_gather(1, &own, false)?.f_squeeze_dim(1)?;
        let logit = left_out.logits.f_gather(1, &best.f_unsqueeze(1)?, false)?;
        let keys = Vec::<i64>::try_from(&left_out.keys)?;
        let labels = Vec::<i64>::try_from(&left_out.labels)?;
        let best = Vec::<i64>::try_from(best)?;
        let own = Vec::<f64>::try_from(own)?;
        let best_probability = Vec::<f64>::try_from(best_probability)?;
        let logit = Vec::<f64>::try_from(logit.f_squeeze_dim(1)?)?;
        let whole = keys.iter().zip(&labels).zip(&best);
        let numbers = own.iter().zip(&best_probability).zip(&logit);
        let answers = whole
            .zip(numbers)
            .filter_map(
                |(((&key, &class), &best), ((&own, &best_probability), &logit))| {
                    Some(Answer {
                        key: usize::try_from(key).ok()?,
                        class: usize::try_from(class).ok()?,
                        own,
                        best: usize::try_from(best).ok()?,
                        best_probability,
                        best_logit: logit,
                    })
                },
            )
            .collect();
        Ok(Self {
            examples: examples(material)?,
            shots: shots(material)?,
            answers,
        })
    }

    pub fn count(&self) -> usize {
        self.answers.len()
    }

    fn right(&self) -> usize {
        let right = self.answers.iter().filter(|it| it.best == it.class);
        right.count()
    }

    pub fn accuracy(&self) -> f64 {
        share(self.right() as f64, self.count())
    }

    pub fn accuracy_error(&self) -> f64 {
        let accuracy = self.accuracy();
        share(accuracy * (1.0 - accuracy), self.count()).sqrt()
    }

    pub fn cross_entropy(&self) -> f64 {
        let sum: f64 = (self.answers.iter())
            .map(|it| -it.own.max(f64::MIN_POSITIVE).ln())
            .sum();
        share(sum, self.count())
    }

    pub fn reliability(&self) -> Vec<ReliabilityBin> {
        let width = 1.0 / CALIBRATION_BINS as f64;
        let mut bins: BTreeMap<usize, (u64, f64, u64)> = BTreeMap::new();
        for it in &self.answers {
            // Bin k holds probabilities in (k/15, (k + 1)/15].
            let at = (it.best_probability * CALIBRATION_BINS as f64).ceil() as usize;
            let bin = bins.entry(at.clamp(1, CALIBRATION_BINS) - 1).or_default();
            bin.0 += 1;
            bin.1 += it.best_probability;
            bin.2 += u64::from(it.best == it.class);
        }
        bins.into_iter()
            .map(|(at, (count, probability, right))| ReliabilityBin {
                low: at as f64 * width,
                high: (at + 1) as f64 * width,
                count,
                probability: probability / count as f64,
                accuracy: right as f64 / count as f64,
            })
            .collect()
    }

    pub fn calibration_error(&self) -> f64 {
        let sum: f64 = (self.reliability().iter())
            .map(|bin| bin.count as f64 * (bin.accuracy - bin.probability).abs())
            .sum();
        share(sum, self.count())
    }

    pub fn confusion(&self) -> Vec<(usize, usize, u64)> {
        self.pairs()
            .into_iter()
            .map(|((class, taken), count)| (class, taken, count))
            .collect()
    }

    fn pairs(&self) -> BTreeMap<(usize, usize), u64> {
        let mut pairs = BTreeMap::new();
        for it in &self.answers {
            *pairs.entry((it.class, it.best)).or_default() += 1;
        }
        pairs
    }

    /// The pairs of classes that are confused most, at most `limit`, and how many
    /// there are.
    pub fn confused(&self, limit: usize) -> (Vec<Confused>, usize) {
        let pairs = self.pairs();
        let mut confused: Vec<Confused> = (pairs.iter())
            .filter_map(|(&(class, other), &count)| {
                let reverse = pairs.get(&(other, class)).copied().unwrap_or(0);
                let first =
                    class != other && (count > reverse || (count == reverse && class < other));
                first.then_some(Confused {
                    class,
                    other,
                    count,
                    reverse,
                })
            })
            .collect();
        confused.sort_by_key(|it| {
            let both = it.count + it.reverse;
            (std::cmp::Reverse(both), it.class, it.other)
        });
        let count = confused.len();
        confused.truncate(limit);
        (confused, count)
    }

    pub fn suspects(&self, limit: usize) -> (Vec<Suspect>, usize) {
        self.wrong(ODDS, limit)
    }

    /// Every example that is taken for another class, suspect or not.
    pub fn misclassified(&self, limit: usize) -> Vec<Suspect> {
        self.wrong(0.0, limit).0
    }

    /// Examples whose best class is another than their own and over `odds` times
    /// as probable: the least probable in their own first, and how many.
    fn wrong(&self, odds: f64, limit: usize) -> (Vec<Suspect>, usize) {
        let mut suspects: Vec<Suspect> = (self.answers.iter())
            .filter(|it| it.best != it.class && it.best_probability > odds * it.own)
            .map(|it| Suspect {
                key: it.key,
                class: it.class,
                probability: it.own,
                suggested: it.best,
                suggested_probability: it.best_probability,
                suggested_logit: it.best_logit,
            })
            .collect();
        suspects.sort_by(|a, b| {
            a.probability
                .total_cmp(&b.probability)
                .then(a.key.cmp(&b.key))
        });
        let count = suspects.len();
        suspects.truncate(limit);
        (suspects, count)
    }

    /// A report for each class; `slope` is that of log error over log shots.
    pub fn classes(&self, slope: f64) -> Vec<ClassReport> {
        let count = self.examples.len();
        let (mut scored, mut right, mut taken) = (vec![0; count], vec![0; count], vec![0; count]);
        let add = |counts: &mut Vec<usize>, class: usize| {
            if let Some(slot) = counts.get_mut(class) {
                *slot += 1;
            }
        };
        for it in &self.answers {
            add(&mut scored, it.class);
            add(&mut taken, it.best);
            if it.best == it.class {
                add(&mut right, it.class);
            }
        }
        let mean = 1.0 - self.accuracy();
        let gained = 1.0 - 2f64.powf(slope);
        let counts = scored.iter().zip(&right).zip(&taken);
        (self.examples.iter().zip(counts))
            .map(|(&example_count, ((&scored_count, &right), &taken))| {
                let wrong = (scored_count - right) as f64;
                let error = (wrong + PRIOR * mean) / (scored_count as f64 + PRIOR);
                ClassReport {
                    example_count,
                    scored_count,
                    accuracy: share(right as f64, scored_count),
                    precision: share(right as f64, taken),
                    expected_gain: if self.answers.is_empty() {
                        0.0
                    } else {
                        error * gained
                    },
                }
            })
            .collect()
    }

    /// Different pictures of a class in the middle of those that were scored.
    pub fn usual_shots(&self) -> usize {
        let mut shots: Vec<usize> = (self.shots.iter().copied())
            .filter(|&count| count > 1)
            .collect();
        shots.sort_unstable();
        shots.get(shots.len() / 2).copied().unwrap_or(1)
    }
}

fn examples(material: &Material) -> Result<Vec<usize>, TipError> {
    Vec::<i64>::try_from(material.counts()?)?
        .into_iter()
        .map(|count| Ok(as_count(count)?))
        .collect()
}

/// How many different pictures each class has.
fn shots(material: &Material) -> Result<Vec<usize>, TipError> {
    let labels = Vec::<i64>::try_from(&material.labels)?;
    let mut shots = vec![0; material.classes];
    for (row, first) in copies(material, &labels)?.into_iter().enumerate() {
        let class = labels
            .get(row)
            .and_then(|class| usize::try_from(*class).ok());
        if let Some(slot) = class.and_then(|class| shots.get_mut(class)) {
            *slot += usize::from(row == first);
        }
    }
    Ok(shots)
}

fn share(part: f64, count: usize) -> f64 {
    if count == 0 { 0.0 } else { part / count as f64 }
}
