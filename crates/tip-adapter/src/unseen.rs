//! How a head scores examples that it has not seen: what it can say of a
//! picture that is of none of its classes, and how sure its answers are.

use tch::{Kind, Tensor};

use super::{
    error::TipError,
    precision::{PrecisionCurve, curves},
    spec::UnseenScores,
};

/// A head's answers for Q unseen examples.
#[derive(Debug)]
pub struct UnseenAnswers {
    /// Their features, f32 [Q, D].
    pub features: Tensor,
    /// The true class of each, i64 [Q].
    pub labels: Tensor,
    /// The predicted class of each, i64 [Q].
    pub predicted: Tensor,
    /// That class's probability, f64 [Q].
    pub probability: Tensor,
    /// The true class's probability, f64 [Q].
    pub own: Tensor,
    /// `log Σ exp(logits/T)`, f64 [Q].
    pub known: Tensor,
}

impl UnseenAnswers {
    /// The answers of logits divided by the temperature, [Q, N].
    pub(super) fn of(
        features: &Tensor,
        labels: &Tensor,
        logits: &Tensor,
    ) -> Result<Self, TipError> {
        let logits = logits.f_to_kind(Kind::Double)?;
        let known = logits.f_logsumexp([1i64].as_slice(), false)?;
        let own = logits
            .f_gather(1, &labels.f_unsqueeze(1)?, false)?
            .f_squeeze_dim(1)?;
        let (most, predicted) = logits.f_max_dim(1, false)?;
        Ok(Self {
            features: features.shallow_clone(),
            labels: labels.shallow_clone(),
            predicted,
            probability: most.f_sub(&known)?.f_exp()?,
            own: own.f_sub(&known)?.f_exp()?,
            known,
        })
    }

    /// How often the answers of each of N classes were right, by their
    /// probability.
    ///
    /// # Errors
    /// Torch's.
    pub fn curves(&self, classes: usize) -> Result<Vec<PrecisionCurve>, TipError> {
        Ok(curves(
            classes,
            &Vec::<i64>::try_from(&self.predicted)?,
            &Vec::<f64>::try_from(&self.probability)?,
            &Vec::<i64>::try_from(&self.labels)?,
        ))
    }

    /// Their percentiles; `None` without examples.
    ///
    /// # Errors
    /// Torch's.
    pub fn scores(&self) -> Result<Option<UnseenScores>, TipError> {
        let values = |t: &Tensor| Vec::<f64>::try_from(t);
        Ok(UnseenScores::of(&values(&self.known)?, &values(&self.own)?))
    }
}
