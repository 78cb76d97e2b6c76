//! The temperature that logits have by their own spread.
//!
//! Over the classes that are not the true one, left-out logits are noise: their
//! standard deviation within a row is the scale on which a difference means
//! anything. It needs no second shot, so it serves when nothing else can be
//! fitted, and a fitted temperature is regularised towards it.

use tch::{Kind, Tensor};

use super::error::TipError;

/// A spread expected beforehand, and the number of observations that it counts
/// as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub spread: f64,
    pub observations: f64,
}

/// Of kernel ridge regression on one-hot labels: without other evidence.
pub(super) const RIDGE: Expected = Expected {
    spread: 0.07,
    observations: 10.0,
};

/// The pooled standard deviation of logits [Q, N] over the wrong classes of
/// each row (`labels` [Q]), shrunk toward what is expected; none if there is
/// nothing to go by (fewer than three classes and nothing expected) or where
/// nothing differs.
pub(super) fn wrong_class_spread(
    logits: &Tensor,
    labels: &Tensor,
    expected: Option<Expected>,
) -> Result<Option<f64>, TipError> {
    let size = logits.size();
    let (rows, classes) = match size.as_slice() {
        &[rows, classes] => (rows, classes),
        _ => (0, 0),
    };
    let free = (rows * (classes - 2).max(0)) as f64;
    let (mut squares, mut observations) = (0.0, 0.0);
    if free > 0.0 {
        let logits = logits.f_to_kind(Kind::Double)?;
        let over = Some([1i64].as_slice());
        let own = logits.f_gather(1, &labels.f_unsqueeze(1)?, false)?;
        let others = (classes - 1) as f64;
        let mean = logits
            .f_sum_dim_intlist(over, true, Kind::Double)?
            .f_sub(&own)?
            .f_div_scalar(others)?;
        let all = logits.f_sub(&mean)?.f_square()?.f_sum(Kind::Double)?;
        let of_own = own.f_sub(&mean)?.f_square()?.f_sum(Kind::Double)?;
        squares = all.f_sub(&of_own)?.f_double_value(&[])?.max(0.0);
        observations = free;
    } else if expected.is_none() && rows > 0 && classes == 2 {
        // Two classes have one wrong one: what is left is how their difference
        // varies between rows.
        let logits = logits.f_to_kind(Kind::Double)?;
        let difference = logits.f_select(1, 0)?.f_sub(&logits.f_select(1, 1)?)?;
        let difference = difference.f_sub(&difference.f_mean(Kind::Double)?)?;
        squares = difference
            .f_square()?
            .f_sum(Kind::Double)?
            .f_double_value(&[])?
            / 2.0;
        observations = rows as f64;
    }
    if let Some(expected) = expected {
        squares += expected.observations * expected.spread * expected.spread;
        observations += expected.observations;
    }
    let spread = (squares / observations).sqrt();
    Ok((spread.is_finite() && spread > 0.0).then_some(spread))
}

/// Temperature relative to the spread for GDA that learnt from `shots` a class, whose
/// logits grow with the rank of its covariance: the better that is known, the
/// higher they lift the true class over the spread of the others. The middle of the best
/// values over draws of CLIP features and of pictures (`docs/accuracy.md`).
pub(super) fn gda_factor(shots: f64) -> f64 {
    0.8 / shots.max(1.0).sqrt()
}

/// The same for kernel ridge regression without text, whose logits are shrunk
/// alike in all directions.
pub(super) const RIDGE_FACTOR: f64 = 1.0;

/// The same of kernel ridge regression with one shot, plain features and
/// standardised ones.
pub(super) const RIDGE_ONE_SHOT: f64 = 1.1;

/// The same of the cosines with class means of one shot.
pub(super) const MEAN_ONE_SHOT: f64 = 0.65;
