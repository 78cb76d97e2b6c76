//! The parts' logits of examples, as of new pictures of their classes.
//!
//! Left out in rounds, all classes lack a shot, and are alike. But how well and how
//! high they score depends on the number of shots: a head of two shots finds a new
//! picture far more familiar than its own examples by a head of one, and temperatures,
//! weights and thresholds that are fitted to the latter are those of a worse head. So
//! each example is left out alone, and all classes but its own answer as they will;
//! what its own class gains by the shot that it lacks is given back:
//! of GDA the noise of its mean ([`gda_one_out`]), of kernel ridge regression the
//! distance of its output from the other classes', times the growth that a class of
//! n like examples has ([`growth`]).

use tch::{Kind, Tensor};

use crate::{
    error::TipError,
    gda_one_out,
    hold_out::{ALL_OUT_KEYS, HoldOut},
    kernel_ridge::Fitted,
    material::Material,
    standardise::Standardise,
};

/// Logits f64 [Q, N] of GDA and kernel ridge regression; none of a part that was
/// not made.
#[derive(Debug)]
pub(super) struct AsNew {
    pub gda: Option<Tensor>,
    pub ridge: Option<Tensor>,
}

/// The scale that the parts see features on, and kernel ridge regression on it.
#[derive(Clone, Copy)]
pub(super) struct Scaled<'a> {
    pub by: Option<&'a Standardise>,
    /// f32 [M, D].
    pub keys: &'a Tensor,
    pub beta: f64,
    pub lambda: f64,
    /// Of GDA's ridge.
    pub share: f64,
    pub ridge: Option<&'a Fitted>,
}

/// The same of held-out examples, of which `seen` are the features on the space's
/// scale and `ridge` kernel ridge regression's predictions in rounds. None if
/// examples were not left out, or not each of those in rounds alone (copies).
pub(super) fn logits(
    space: Scaled<'_>,
    material: &Material,
    held: &HoldOut,
    seen: &Tensor,
    ridge: Option<&Tensor>,
) -> Result<Option<AsNew>, TipError> {
    if !held.scores_every_left_out()?
        || material.views.is_some()
        || material.key_count() > ALL_OUT_KEYS
        || material.classes < 2
    {
        return Ok(None);
    }
    let ridge = match (space.ridge, ridge) {
        (Some(fitted), Some(in_rounds)) => {
            let alone = fitted.one_out_predictions()?;
            let alone = alone.f_index_select(0, &held.key_index)?;
            Some(grown(space, material, held, &alone, in_rounds)?)
        }
        _ => None,
    };
    Ok(Some(AsNew {
        gda: gda_one_out::logits(material, space.by, seen, held, space.share)?,
        ridge,
    }))
}

/// Predictions of each example left out alone, its own class as far from the mean
/// of the others as it is in rounds, times [`growth`].
fn grown(
    space: Scaled<'_>,
    material: &Material,
    held: &HoldOut,
    alone: &Tensor,
    in_rounds: &Tensor,
) -> Result<Tensor, TipError> {
    let labels = held.labels.f_unsqueeze(1)?;
    // Classes without examples predict 0 of everything, and are no company.
    let with_examples = material.counts()?.f_count_nonzero(None::<i64>)?;
    let others = (with_examples.f_double_value(&[])? - 1.0).max(1.0);
    let mean_and_own = |all: &Tensor| -> Result<(Tensor, Tensor), TipError> {
        let own = all.f_gather(1, &labels, false)?;
        let sum = all.f_sum_dim_intlist(Some([1i64].as_slice()), true, Kind::Double)?;
        Ok((sum.f_sub(&own)?.f_div_scalar(others)?, own))
    };
    let (mean_in_rounds, own) = mean_and_own(in_rounds)?;
    let (mean, _) = mean_and_own(alone)?;
    let shots = material.counts()?.f_index_select(0, &held.labels)?;
    let growth = growth(space, material, &shots.f_unsqueeze(1)?)?;
    let own = mean.f_add(&own.f_sub(&mean_in_rounds)?.f_mul(&growth)?)?;
    Ok(alone.f_scatter(1, &labels, &own)?)
}

/// How much more a class of `shots` [Q, 1] examples predicts for a new one of its own
/// than one with an example fewer. Over the mean kernel of different classes, each of
/// n like examples has the coefficient `1/(1 + λ + (n − 1)·k)`, k the mean kernel of
/// two of a class, so that the class predicts `n·k/(1 + λ + (n − 1)·k)`.
fn growth(space: Scaled<'_>, material: &Material, shots: &Tensor) -> Result<Tensor, TipError> {
    let double = Kind::Double;
    let mut kernel = space.keys.f_matmul(&space.keys.f_tr()?)?;
    let _ = kernel
        .f_sub_scalar_(1.0)?
        .f_mul_scalar_(space.beta)?
        .f_exp_()?;
    let members = material.labels.f_one_hot(material.n())?;
    let members = members.f_to_kind(Kind::Float)?;
    // Sums over all pairs of a class, examples with themselves among them.
    let within = (members.f_mul(&kernel.f_matmul(&members)?)?)
        .f_sum(double)?
        .f_double_value(&[])?;
    let all = kernel.f_sum(double)?.f_double_value(&[])?;
    let keys = material.key_count() as f64;
    let counts = material.counts()?.f_to_kind(double)?;
    let pairs = counts.f_square()?.f_sum(double)?.f_double_value(&[])?;
    let between = (all - within) / (keys * keys - pairs).max(1.0);
    let alike = ((within - keys) / (pairs - keys).max(1.0) - between).max(0.0);
    let own = 1.0 + space.lambda - between;
    let shots = shots.f_to_kind(double)?;
    let fewer = shots.f_sub_scalar(1.0)?;
    // n/(own + (n − 1)·k) over (n − 1)/(own + (n − 2)·k).
    let with_fewer = fewer
        .f_sub_scalar(1.0)?
        .f_mul_scalar(alike)?
        .f_add_scalar(own)?;
    let with_all = fewer.f_mul_scalar(alike)?.f_add_scalar(own)?;
    Ok(shots.f_mul(&with_fewer)?.f_div(&with_all.f_mul(&fewer)?)?)
}
