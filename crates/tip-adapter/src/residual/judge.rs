//! Heads and residuals judged on examples that neither has seen.

use tch::{Kind, Tensor};

use crate::{
    error::TipError,
    score::right,
    temperature::{Near, fit_held_near},
    unseen::UnseenAnswers,
};

/// The examples that a temperature of 1 counts as.
const STRENGTH: f64 = 5.0;

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
    /// Features of the judging examples, f32 [Q, D].
    pub features: Tensor,
    /// The true classes of the features, i64 [Q].
    pub labels: Tensor,
    /// Over the head's temperature, f64 [Q, N].
    pub logits: Tensor,
}

/// The same, added up over folds.
#[derive(Default)]
pub(super) struct Tally {
    judged: Vec<Judged>,
    losses: Vec<Tensor>,
    right: i64,
}

impl Tally {
    pub fn is_empty(&self) -> bool {
        self.losses.is_empty()
    }

    pub fn add(&mut self, judged: Judged) -> Result<(), TipError> {
        let known = judged.logits.f_logsumexp([1i64].as_slice(), true)?;
        let own = judged
            .logits
            .f_gather(1, &judged.labels.f_unsqueeze(1)?, false)?;
        self.losses.push(known.f_sub(&own)?.f_squeeze_dim(1)?);
        self.right += right(&judged.logits, &judged.labels)?;
        self.judged.push(judged);
        Ok(())
    }

    fn all(&self, of: fn(&Judged) -> &Tensor) -> Result<Tensor, TipError> {
        let parts: Vec<&Tensor> = self.judged.iter().map(of).collect();
        Ok(Tensor::f_cat(&parts, 0)?)
    }

    /// The temperature of the logits, held near 1. A residual makes logits surer
    /// than the head's, whose temperature they are over.
    pub fn temperature(&self) -> Result<f64, TipError> {
        let near = Near {
            temperature: 1.0,
            strength: STRENGTH,
        };
        let (logits, labels) = (self.all(|it| &it.logits)?, self.all(|it| &it.labels)?);
        Ok(fit_held_near(&logits, &labels, near)?.temperature)
    }

    /// The answers over a temperature.
    pub fn answers(&self, temperature: f64) -> Result<UnseenAnswers, TipError> {
        let logits = self.all(|it| &it.logits)?.f_div_scalar(temperature)?;
        UnseenAnswers::of(
            &self.all(|it| &it.features)?,
            &self.all(|it| &it.labels)?,
            &logits,
        )
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
