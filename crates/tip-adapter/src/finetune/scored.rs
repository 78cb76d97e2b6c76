//! The examples that epochs are scored on, and scoring some rows of them.

use tch::{Device, Kind, Reduction, Tensor};

use super::{
    Score, SearchSet, TrainError, TrainingSet, Weights,
    draws::{Draws, unit},
};
use tip_spec::SelectionSource;

/// What epochs are scored on.
pub(super) struct Scored {
    /// [E, D] on the CPU, unit rows.
    features: Tensor,
    labels: Vec<i64>,
    /// Whose own key is masked: the key of row e is e.
    own: bool,
}

/// A scoring under way: an epoch's rows before `row` are scored.
#[derive(Clone, Copy)]
pub(super) struct Scoring {
    pub epoch: usize,
    row: usize,
    right: usize,
    loss: f64,
}

impl Scoring {
    /// A scoring of an epoch, from its first row on.
    pub fn new(epoch: usize) -> Self {
        Self {
            epoch,
            row: 0,
            right: 0,
            loss: 0.0,
        }
    }
}

impl Scored {
    /// The validation examples, or the views that `draws` holds back, or
    /// nothing; and which it is.
    pub fn new(
        set: &TrainingSet,
        draws: &Draws,
        labels: &[i64],
    ) -> Result<(Option<Self>, SelectionSource), TrainError> {
        if let Some((features, labels)) = set.validation {
            let scored = Self {
                features: unit(features)?,
                labels: whole_numbers(labels)?,
                own: false,
            };
            Ok((Some(scored), SelectionSource::Validation))
        } else if let Some(features) = draws.held_back()? {
            let scored = Self {
                features,
                labels: labels.to_vec(),
                own: true,
            };
            Ok((Some(scored), SelectionSource::HeldBackViews))
        } else {
            Ok((None, SelectionSource::Default))
        }
    }

    /// Scores up to `most` more rows.
    pub fn advance(
        &self,
        scoring: &mut Scoring,
        weights: &dyn Weights,
        most: usize,
    ) -> Result<(), TrainError> {
        let (row, rows) = (scoring.row, most.min(self.labels.len() - scoring.row));
        if rows == 0 {
            return Ok(());
        }
        let features = self.features.f_narrow(0, row as i64, rows as i64)?;
        let labels =
            Tensor::f_from_slice(&self.labels[row..row + rows])?.f_to_device(weights.device())?;
        let mut logits = weights.score(&features)?;
        if self.own {
            let keys: Vec<usize> = (row..row + rows).collect();
            let own = weights.own(&features, &keys)?;
            logits =
                logits.f_scatter_add_(1, &labels.f_unsqueeze(1)?, &own.f_neg()?.f_unsqueeze(1)?)?;
        }
        scoring.right += right(&logits, &labels)?;
        scoring.loss += logits
            .f_log_softmax(-1, Kind::Float)?
            .f_nll_loss::<Tensor>(&labels, None, Reduction::Sum, -100)?
            .f_double_value(&[])?;
        scoring.row += rows;
        Ok(())
    }

    /// The score, once every row is scored.
    pub fn score(&self, scoring: &Scoring) -> Option<Score> {
        let count = self.labels.len();
        (scoring.row == count).then(|| Score {
            accuracy: scoring.right as f64 / count as f64,
            cross_entropy: scoring.loss / count as f64,
            examples: count,
        })
    }

    /// The examples that α and β are to be searched on.
    pub fn search_set(self) -> Result<SearchSet, TrainError> {
        let count = self.labels.len() as i64;
        Ok(SearchSet {
            labels: Tensor::f_from_slice(&self.labels)?,
            own_key: self
                .own
                .then(|| Tensor::f_arange(count, (Kind::Int64, Device::Cpu)))
                .transpose()?,
            features: self.features,
        })
    }
}

/// A tensor of labels as a vector in host memory.
pub(super) fn whole_numbers(t: &Tensor) -> Result<Vec<i64>, tch::TchError> {
    Vec::<i64>::try_from(
        &t.f_to_device(Device::Cpu)?
            .f_to_kind(Kind::Int64)?
            .f_contiguous()?,
    )
}

/// How many rows of `logits` ([B, N]) are greatest at their label.
pub(super) fn right(logits: &Tensor, labels: &Tensor) -> Result<usize, tch::TchError> {
    let right = logits
        .f_argmax(1, false)?
        .f_eq_tensor(labels)?
        .f_sum(Kind::Int64)?
        .f_int64_value(&[])?;
    Ok(right as usize)
}
