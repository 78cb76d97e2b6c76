//! Top-1, top-5, per-class accuracy, confusion, cross-entropy and calibration
//! of a classifier on labelled items, added up as they arrive.

use tch::{Kind, Tensor};

use super::error::TipError;

/// Bins of equal width of the expected calibration error (Guo et al., ICML
/// 2017).
pub const CALIBRATION_BINS: usize = 15;

/// Smaller probabilities count as this one in the cross-entropy.
const LEAST_PROBABILITY: f64 = 1e-30;

const TOP: usize = 5;

/// Most classes with a confusion matrix: its memory grows with their square.
pub const MAX_CONFUSION_CLASSES: usize = 1000;

/// Accumulates results. Memory does not grow with the number of items: N
/// counts, and N² for at most [`MAX_CONFUSION_CLASSES`] classes.
#[derive(Clone, Debug)]
pub struct Evaluator {
    classes: usize,
    /// For each class, its items and its right answers.
    per_class: Vec<(u64, u64)>,
    confusion: Vec<u64>,
    top5: u64,
    negative_log_likelihood: f64,
    bins: [Bin; CALIBRATION_BINS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    count: u64,
    right: u64,
    confidence: f64,
}

/// The figures of all items that an [`Evaluator`] was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Items that the figures are of.
    pub count: u64,
    /// Share whose class came first, 0 to 1; 0 if there are no items.
    pub top1: f64,
    /// Share whose class was among the first five.
    pub top5: f64,
    /// Mean cross-entropy over the items, in nats.
    pub cross_entropy: f64,
    /// Σ over bins of |accuracy − confidence| · share of the items, 0 to 1.
    pub expected_calibration_error: f64,
    /// Items of each class, and the share of them classified rightly (0 if
    /// there are none).
    pub per_class: Vec<ClassScore>,
    /// [N × N], row by row: items of class i taken for class j; empty for more
    /// than [`MAX_CONFUSION_CLASSES`].
    pub confusion: Vec<u64>,
}

/// How well one class did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassScore {
    /// Items whose true class this is.
    pub count: u64,
    /// Share of them classified rightly.
    pub accuracy: f64,
}

impl Evaluator {
    /// An evaluator without items yet, for N classes.
    pub fn new(classes: usize) -> Self {
        Self {
            classes,
            per_class: vec![(0, 0); classes],
            confusion: match classes {
                0..=MAX_CONFUSION_CLASSES => vec![0; classes * classes],
                _ => Vec::new(),
            },
            top5: 0,
            negative_log_likelihood: 0.0,
            bins: [Bin::default(); CALIBRATION_BINS],
        }
    }

    /// Adds a batch: logits [B, N], labels i64 [B], and the head's temperature.
    ///
    /// # Errors
    /// Shapes that do not match, a label that names no class.
    pub fn add(
        &mut self,
        logits: &Tensor,
        labels: &Tensor,
        temperature: f64,
    ) -> Result<(), TipError> {
        let probabilities = logits
            .f_to_kind(Kind::Double)?
            .f_div_scalar(temperature)?
            .f_softmax(-1, Kind::Double)?;
        self.add_probabilities(&probabilities, labels)
    }

    /// Adds a batch of probabilities, [B, N], any float, on the CPU.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_probabilities(
        &mut self,
        probabilities: &Tensor,
        labels: &Tensor,
    ) -> Result<(), TipError> {
        let size = probabilities.size();
        let rows = labels.numel();
        if size != [rows as i64, self.classes as i64] {
            return Err(TipError::Shape {
                thing: "probabilities",
                got: size,
                expected: format!("[{rows}, {}]", self.classes),
            });
        }
        let values = Vec::<f64>::try_from(
            probabilities
                .f_to_kind(Kind::Double)?
                .f_contiguous()?
                .f_view([-1])?,
        )?;
        let labels = Vec::<i64>::try_from(labels)?;
        // All labels are checked first, so that a bad batch changes nothing.
        let mut indices = Vec::with_capacity(rows);
        for (row, &label) in labels.iter().enumerate() {
            match usize::try_from(label) {
                Ok(index) if index < self.classes => indices.push(index),
                _ => {
                    return Err(TipError::Label {
                        thing: "label of item",
                        row: row as i64,
                        label,
                        classes: self.classes,
                    });
                }
            }
        }
        for (row, label) in values.chunks_exact(self.classes.max(1)).zip(indices) {
            self.add_one(row, label);
        }
        Ok(())
    }

    fn add_one(&mut self, row: &[f64], label: usize) {
        let Some(&own) = row.get(label) else { return };
        // The first of equal probabilities comes first, as argmax has it.
        let (mut best, mut best_at) = (f64::NEG_INFINITY, 0);
        let mut before = 0;
        for (class, &p) in row.iter().enumerate() {
            if p > best {
                (best, best_at) = (p, class);
            }
            if p > own || (p == own && class < label) {
                before += 1;
            }
        }
        if let Some((count, right)) = self.per_class.get_mut(label) {
            *count += 1;
            *right += u64::from(best_at == label);
        }
        if let Some(cell) = self.confusion.get_mut(label * self.classes + best_at) {
            *cell += 1;
        }
        self.top5 += u64::from(before < TOP);
        self.negative_log_likelihood -= own.max(LEAST_PROBABILITY).ln();
        // Bin k holds confidences in (k/15, (k + 1)/15].
        let at = (best * CALIBRATION_BINS as f64).ceil() as usize;
        if let Some(bin) = self.bins.get_mut(at.clamp(1, CALIBRATION_BINS) - 1) {
            bin.count += 1;
            bin.right += u64::from(best_at == label);
            bin.confidence += best;
        }
    }

    /// What was found so far.
    pub fn finish(&self) -> Evaluation {
        let count: u64 = self.per_class.iter().map(|(count, _)| count).sum();
        let right: u64 = self.per_class.iter().map(|(_, right)| right).sum();
        let error: f64 = self
            .bins
            .iter()
            .map(|bin| (bin.right as f64 - bin.confidence).abs())
            .sum();
        Evaluation {
            count,
            top1: share(right as f64, count),
            top5: share(self.top5 as f64, count),
            cross_entropy: share(self.negative_log_likelihood, count),
            expected_calibration_error: share(error, count),
            per_class: self
                .per_class
                .iter()
                .map(|&(count, right)| ClassScore {
                    count,
                    accuracy: share(right as f64, count),
                })
                .collect(),
            confusion: self.confusion.clone(),
        }
    }
}

fn share(part: f64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { part / count as f64 }
}
