//! Heads and residuals judged on examples that neither has seen.

use tch::{Kind, Tensor};

use crate::{error::TipError, spec::UnseenScores, unseen};

/// A score on unseen examples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Share classified rightly, 0 to 1.
    pub accuracy: f64,
    /// Mean cross-entropy over the examples, in nats.
    pub cross_entropy: f64,
}

/// Examples that neither head nor residual has seen.
pub(super) struct Unseen {
    pub features: Tensor,
    pub labels: Tensor,
}

/// The losses of unseen examples.
pub(super) struct Judged {
    /// The cross-entropy of each example, f64 [Q].
    pub losses: Tensor,
    /// log Σ exp of the logits, f64 [Q].
    pub known: Tensor,
    pub right: i64,
}

/// The same, added up over folds.
#[derive(Default)]
pub(super) struct Tally {
    losses: Vec<Tensor>,
    known: Vec<Tensor>,
    right: i64,
}

impl Tally {
    pub fn is_empty(&self) -> bool {
        self.losses.is_empty()
    }

    pub fn add(&mut self, judged: Judged) {
        self.losses.push(judged.losses);
        self.known.push(judged.known);
        self.right += judged.right;
    }

    pub fn unseen(&self) -> Result<Option<UnseenScores>, TipError> {
        let own = self.losses()?.f_neg()?.f_exp()?;
        unseen::of_scores(&Tensor::f_cat(&self.known, 0)?, &own)
    }

    pub fn losses(&self) -> Result<Tensor, TipError> {
        Ok(Tensor::f_cat(&self.losses, 0)?)
    }

    pub fn score(&self) -> Result<Score, TipError> {
        let losses = self.losses()?;
        Ok(Score {
            accuracy: self.right as f64 / losses.numel().max(1) as f64,
            cross_entropy: losses.f_mean(Kind::Double)?.f_double_value(&[])?,
        })
    }
}
