//! How well a candidate does on the held-out examples.

use tch::{Kind, Tensor};

use super::{
    error::TipError,
    spec::{Candidate, Method},
    temperature::fit_temperature,
};

/// The numbers of a candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Numbers {
    pub method: Method,
    pub alpha: f64,
    pub beta: f64,
    pub lambda: f64,
}

/// A candidate with its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scored {
    pub numbers: Numbers,
    /// Held-out examples that the candidate classifies rightly.
    pub right: i64,
    /// Q, the held-out examples that were scored.
    pub count: i64,
    /// The temperature that fits these logits best.
    pub temperature: f64,
    /// Mean cross-entropy at that temperature, in nats.
    pub cross_entropy: f64,
}

impl Scored {
    /// Scores logits [Q, N] against labels [Q].
    pub fn new(numbers: Numbers, logits: &Tensor, labels: &Tensor) -> Result<Self, TipError> {
        let fit = fit_temperature(logits, labels)?;
        Ok(Self {
            numbers,
            right: right(logits, labels)?,
            count: labels.numel() as i64,
            temperature: fit.temperature,
            cross_entropy: fit.cross_entropy,
        })
    }

    pub fn accuracy(&self) -> f64 {
        self.right as f64 / (self.count.max(1)) as f64
    }

    /// Whether it has more right, or as many and a lower cross-entropy.
    pub fn beats(&self, other: &Self) -> bool {
        self.right > other.right
            || (self.right == other.right && self.cross_entropy < other.cross_entropy)
    }

    pub fn candidate(&self) -> Candidate {
        Candidate {
            method: self.numbers.method,
            alpha: self.numbers.alpha,
            beta: self.numbers.beta,
            lambda: self.numbers.lambda,
            accuracy: self.accuracy(),
            cross_entropy: self.cross_entropy,
            weight: None,
            temperature: Some(self.temperature),
            standardised: None,
            skipped: None,
        }
    }
}

/// How many rows of logits [Q, N] have their largest value (the first, among
/// equals) at the label.
pub(super) fn right(logits: &Tensor, labels: &Tensor) -> Result<i64, TipError> {
    Ok(logits
        .f_argmax(1, false)?
        .f_eq_tensor(labels)?
        .f_sum(Kind::Int64)?
        .f_int64_value(&[])?)
}
