//! Nearest class mean: the baseline without any parameter.

use tch::{Kind, Tensor};

use super::{error::TipError, hold_out::HoldOut, material::Material, unit::unit_rows};

/// The unit means of each class's keys, f32 [N, D]; zeros for a class without.
pub(super) fn class_means(material: &Material) -> Result<Tensor, TipError> {
    unit_rows(&class_sums(material, None)?)
}

/// f·meanᵀ for each held-out example, without the keys that it may not see:
/// f32 [Q, N].
pub(super) fn held_cosines(material: &Material, held: &HoldOut) -> Result<Tensor, TipError> {
    let total = class_sums(material, None)?;
    let mut out = Tensor::f_zeros(
        [held.count(), material.n()],
        (Kind::Float, tch::Device::Cpu),
    )?;
    for round in held.split()? {
        let means = unit_rows(&total.f_sub(&class_sums(material, Some(&round.left_out))?)?)?;
        let f = held.features.f_index_select(0, &round.examples)?;
        let _ = out.f_index_copy_(0, &round.examples, &f.f_matmul(&means.f_tr()?)?)?;
    }
    Ok(out)
}

/// Sums of the keys (those at `rows`, or all) of each class, f32 [N, D].
fn class_sums(material: &Material, rows: Option<&Tensor>) -> Result<Tensor, TipError> {
    let mut sums = Tensor::f_zeros(
        [material.n(), material.width()],
        (Kind::Float, tch::Device::Cpu),
    )?;
    let _ = match rows {
        None => sums.f_index_add_(0, &material.labels, &material.keys)?,
        Some(rows) => sums.f_index_add_(
            0,
            &material.labels.f_index_select(0, rows)?,
            &material.keys.f_index_select(0, rows)?,
        )?,
    };
    Ok(sums)
}
