//! How familiar a head with the pool finds pictures, from heads of folds.
//!
//! Examples are left out of heads that have learnt from fewer shots, and with a pool
//! that matters much: at two shots these have one of each class, and find pictures
//! more familiar than the head that serves will. How much more, the pool says: all
//! of these heads have learnt from the same pictures. So the energies of left-out
//! examples are moved and stretched as the pool's are, from the level that these have
//! by the head of a fold to that by the head that serves ([`crate::energy`]).

use tch::Tensor;

use crate::{
    dimensions::row_count, energy::Level, error::TipError, formula::plain_logits, made::Made,
    material::Material,
};

/// Most pictures of the pool that are looked at, evenly spread.
const PICTURES: i64 = 1024;

/// Most logits of these that a fold keeps.
const LOGITS: i64 = 1 << 22;

/// Some pictures of a pool, evenly spread, f32 [P, D].
pub(super) fn some(material: &Material, pool: &Tensor) -> Result<Tensor, TipError> {
    let rows = row_count(pool)?;
    let limit = (LOGITS / material.n().max(1)).clamp(1, PICTURES);
    Ok(pool.f_slice(0, 0, rows, (rows + limit - 1) / limit)?)
}

/// A head's logits of pictures over its temperature, [P, N].
pub(super) fn logits(made: &Made, pictures: &Tensor) -> Result<Tensor, TipError> {
    Ok(plain_logits(&made.spec, &made.tensors, pictures)?.f_div_scalar(made.spec.temperature)?)
}

/// The examples of a fold.
#[derive(Debug)]
pub(super) struct Fold {
    /// How many examples it has.
    pub examples: i64,
    /// The logits of the pool's pictures by its head, [P, N].
    pub pool: Tensor,
}

/// Energies of examples, f64 [Q], fold by fold, as the head that serves would have
/// them, by its logits of the pool's pictures; logits of the folds are over a
/// temperature.
pub(super) fn as_served(
    known: &Tensor,
    folds: &[Fold],
    temperature: f64,
    served: &Tensor,
) -> Result<Tensor, TipError> {
    let served = Level::of_logits(served)?;
    let mut parts = Vec::with_capacity(folds.len());
    let mut start = 0;
    for fold in folds {
        let own = known.f_narrow(0, start, fold.examples)?;
        start += fold.examples;
        let level = Level::of_logits(&fold.pool.f_div_scalar(temperature)?)?;
        parts.push(level.moved(&own, served)?);
    }
    Ok(Tensor::f_cat(&parts, 0)?)
}
