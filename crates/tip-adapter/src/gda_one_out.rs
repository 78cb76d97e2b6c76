//! GDA's logits of examples, as of new pictures of their classes.
//!
//! An example is left out alone, in closed form: all other classes keep all their
//! shots, as they will for a new picture. Its own class has one shot fewer, n − 1:
//! its mean m is noisier, and `−½·mᵀΣ⁻¹m` lower by the noise. Of n − 1 shots that is
//! `½·tr(Σ⁻¹C)/(n − 1)`, C the spread of the class, of all n `½·tr(Σ⁻¹C)/n`; with d
//! the example's distance from the mean of all n, `tr(Σ⁻¹C)` is `dᵀΣ⁻¹d·n/(n − 1)` on
//! average. So `½·dᵀΣ⁻¹d/(n − 1)²` is given back.
//!
//! With `G = (S + τI)⁻¹` over all examples and `c = n/(n − 1)`, S without the example
//! is `S − c·ddᵀ`, and its inverse `G + s·vvᵀ` with `v = Gd`, `s = c/(1 − c·dᵀv)`.

use tch::{Kind, Tensor};

use super::{
    error::TipError, gda, hold_out::HoldOut, material::Material, standardise::Standardise,
};

/// Logits f64 [Q, N] of held-out keys, whose features are as `by` has them, with
/// `share` of the paper's ridge; none if nothing varies within a class, or if keys
/// have several views.
pub(super) fn logits(
    material: &Material,
    by: Option<&Standardise>,
    features: &Tensor,
    held: &HoldOut,
    share: f64,
) -> Result<Option<Tensor>, TipError> {
    if material.views.is_some() {
        return Ok(None);
    }
    let moments = gda::moments(material, by, None)?;
    let (means, Some((scatter, trace))) = moments.scatter()? else {
        return Ok(None);
    };
    let means = gda::present_means(&means, &moments.counts)?;
    let mut diagonal = scatter.f_diagonal(0, 0, 1)?;
    let _ = diagonal.f_add_scalar_(share * trace / (moments.points()? - 1.0))?;
    let factor = scatter.f_linalg_cholesky(false)?;
    let solve = |rows: &Tensor| -> Result<Tensor, TipError> {
        let solved = rows.f_tr()?.f_cholesky_solve(&factor, false)?;
        Ok(solved.f_tr()?.f_contiguous()?)
    };
    let dot = |a: &Tensor, b: &Tensor| -> Result<Tensor, TipError> {
        let over = Some([1i64].as_slice());
        Ok(a.f_mul(b)?.f_sum_dim_intlist(over, true, Kind::Double)?)
    };

    let x = features.f_to_kind(Kind::Double)?;
    let labels = held.labels.f_unsqueeze(1)?;
    // n − 1 and c, [Q, 1].
    let fewer = (moments.counts.f_index_select(0, &held.labels)?)
        .f_sub_scalar(1.0)?
        .f_unsqueeze(1)?;
    let c = fewer.f_reciprocal()?.f_add_scalar(1.0)?;
    let d = x.f_sub(&means.f_index_select(0, &held.labels)?)?;
    let v = solve(&d)?;
    let (dv, vx) = (dot(&d, &v)?, dot(&v, &x)?);
    let rest = c.f_mul(&dv)?.f_neg()?.f_add_scalar(1.0)?;
    let s = c.f_div(&rest)?;

    // mᵀGx and mᵀv [Q, N], mᵀGm [N], of the means of all shots.
    let solved = solve(&means)?;
    let linear = x.f_matmul(&solved.f_tr()?)?;
    let along = v.f_matmul(&means.f_tr()?)?;
    let square = dot(&solved, &means)?.f_tr()?.f_expand_as(&linear)?;
    let own = |all: &Tensor| all.f_gather(1, &labels, false);
    // The own class's, of m − d/(n − 1).
    let own_along = own(&along)?.f_sub(&dv.f_div(&fewer)?)?;
    let own_linear = own(&linear)?.f_sub(&vx.f_div(&fewer)?)?;
    let own_square = own(&square)?
        .f_sub(&own(&along)?.f_mul_scalar(2.0)?.f_div(&fewer)?)?
        .f_add(&dv.f_div(&fewer.f_square()?)?)?;

    let linear = linear.f_scatter(1, &labels, &own_linear)?;
    let along = along.f_scatter(1, &labels, &own_along)?;
    let square = square.f_scatter(1, &labels, &own_square)?;
    let bias = square.f_add(&along.f_square()?.f_mul(&s)?)?;
    let logits = linear
        .f_add(&along.f_mul(&vx)?.f_mul(&s)?)?
        .f_sub(&bias.f_mul_scalar(0.5)?)?;
    // dᵀΣ⁻¹d without the example.
    let noise = dv.f_div(&rest)?.f_div(&fewer.f_square()?)?;
    let logits = logits.f_scatter_add(1, &labels, &noise.f_mul_scalar(0.5)?)?;
    let logits = logits
        .f_mul_scalar(material.width() as f64)?
        .f_sub_scalar((material.classes as f64).ln())?;
    if material.text.is_some() {
        return Ok(Some(logits));
    }
    let absent = moments.counts.f_lt(0.5)?;
    Ok(Some(logits.f_masked_fill(&absent, gda::NEVER)?))
}
