//! Rows of unit length.

use tch::Tensor;

use super::error::TipError;

/// Below this length a feature has no direction.
pub(super) const LEAST_NORM: f64 = 1e-6;

/// Rows divided by their lengths; a row of zeros stays as it is.
pub(super) fn unit_rows(rows: &Tensor) -> Result<Tensor, TipError> {
    let norm = rows.f_norm_scalaropt_dim(2.0, [-1i64].as_slice(), true)?;
    Ok(rows.f_div(&norm.f_clamp_min(1e-12)?)?)
}
