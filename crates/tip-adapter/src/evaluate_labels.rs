//! mAP, F1 and cross-entropy of independent probabilities on labelled items,
//! accumulated as the items arrive.

/// Smaller probabilities count as this one in the cross-entropy.
const LEAST_PROBABILITY: f64 = 1e-30;

/// Accumulates results. Each item's probabilities are kept, since average
/// precision depends on their ranks.
#[derive(Clone, Debug)]
pub struct LabelEvaluator {
    /// For each class, every item's probability and whether the item has that
    /// class.
    answers: Vec<Vec<(f32, bool)>>,
    thresholds: Vec<f64>,
    negative_log_likelihood: f64,
    count: u64,
}

/// The result of a [`LabelEvaluator`].
#[derive(Clone, Debug, PartialEq)]
pub struct LabelEvaluation {
    /// How many items were counted.
    pub count: u64,
    /// Mean of the average precisions of the classes that have positives.
    pub mean_average_precision: f64,
    /// Micro-averaged: of all decisions together.
    pub micro: LabelFigures,
    /// Mean F1 of the classes that have positives or were answered.
    pub macro_f1: f64,
    /// Mean binary cross-entropy over items and classes, nats.
    pub cross_entropy: f64,
    /// The results for each class, in order.
    pub classes: Vec<ClassLabelFigures>,
}

/// Precision, recall and F1 of a class at its threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LabelFigures {
    /// Precision; 0 without any answer.
    pub precision: f64,
    /// Recall; 0 without any positive.
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    pub f1: f64,
}

/// The results for one class.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClassLabelFigures {
    /// How many items have the class.
    pub positives: u64,
    /// Area under the steps of precision over recall; 0 without positives.
    pub average_precision: f64,
    /// Precision, recall and F1 at its threshold.
    pub at_threshold: LabelFigures,
}

impl LabelEvaluator {
    /// For classes with these thresholds.
    pub fn new(thresholds: Vec<f64>) -> Self {
        Self {
            answers: vec![Vec::new(); thresholds.len()],
            thresholds,
            negative_log_likelihood: 0.0,
            count: 0,
        }
    }

    /// How many numbers are kept.
    pub fn cells(&self) -> usize {
        self.answers.iter().map(Vec::len).sum()
    }

    /// Adds an item: its logits, one for each class, and its true classes.
    pub fn add(&mut self, logits: &[f32], labels: &[usize]) {
        self.count += 1;
        for (class, (answers, &logit)) in self.answers.iter_mut().zip(logits).enumerate() {
            let probability = sigmoid(logit);
            let is_of = labels.contains(&class);
            let own = if is_of { probability } else { sigmoid(-logit) };
            self.negative_log_likelihood -= own.max(LEAST_PROBABILITY).ln();
            answers.push((logit, is_of));
        }
    }

    /// The results of all items added so far.
    pub fn finish(&self) -> LabelEvaluation {
        let mut all = Tally::default();
        let mut classes = Vec::with_capacity(self.answers.len());
        for (answers, &threshold) in self.answers.iter().zip(&self.thresholds) {
            let mut own = Tally::default();
            for &(logit, is_of) in answers {
                own.add(sigmoid(logit) >= threshold, is_of);
            }
            all.merge(own);
            classes.push((
                ClassLabelFigures {
                    positives: own.positives,
                    average_precision: average_precision(answers),
                    at_threshold: own.figures(),
                },
                own.positives + own.taken > 0,
            ));
        }
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let with_positives = classes.iter().filter(|(class, _)| class.positives > 0);
        let told = classes.iter().filter(|(_, told)| *told);
        let cells = self.cells().max(1) as f64;
        LabelEvaluation {
            count: self.count,
            mean_average_precision: mean(with_positives.map(|c| c.0.average_precision).collect()),
            micro: all.figures(),
            macro_f1: mean(told.map(|c| c.0.at_threshold.f1).collect()),
            cross_entropy: self.negative_log_likelihood / cells,
            classes: classes.into_iter().map(|(class, _)| class).collect(),
        }
    }
}

/// 1/(1 + e^−x), in f64.
pub fn sigmoid(logit: f32) -> f64 {
    let x = f64::from(logit);
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// Σ (R_k − R_{k−1})·P_k over the distinct scores, the highest first (no
/// interpolation, as in scikit-learn).
fn average_precision(answers: &[(f32, bool)]) -> f64 {
    let positives = answers.iter().filter(|answer| answer.1).count();
    if positives == 0 {
        return 0.0;
    }
    let mut sorted = answers.to_vec();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut right, mut counted, mut area) = (0_usize, 0_usize, 0.0);
    for (at, &(score, is_of)) in sorted.iter().enumerate() {
        right += usize::from(is_of);
        let next = sorted.get(at + 1).map(|answer| answer.0);
        if next.is_some_and(|next| next.total_cmp(&score).is_eq()) {
            continue;
        }
        let gained = (right - counted) as f64 / positives as f64;
        area += gained * right as f64 / (at + 1) as f64;
        counted = right;
    }
    area
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    right: u64,
    taken: u64,
    positives: u64,
}

impl Tally {
    fn add(&mut self, taken: bool, is_of: bool) {
        self.taken += u64::from(taken);
        self.positives += u64::from(is_of);
        self.right += u64::from(taken && is_of);
    }

    fn merge(&mut self, other: Self) {
        self.right += other.right;
        self.taken += other.taken;
        self.positives += other.positives;
    }

    fn figures(self) -> LabelFigures {
        let share = |of: u64| self.right as f64 / of.max(1) as f64;
        LabelFigures {
            precision: share(self.taken),
            recall: share(self.positives),
            f1: 2.0 * self.right as f64 / (self.taken + self.positives).max(1) as f64,
        }
    }
}
