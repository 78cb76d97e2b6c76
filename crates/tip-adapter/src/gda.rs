//! Gaussian discriminant analysis in closed form (Wang et al., "A
//! Hard-to-Beat Baseline for Training-free CLIP-based Adaptation", ICLR 2024).
//!
//! Classes share one covariance Σ, pooled over all normalised views:
//! `Σ⁻¹ ≈ D·((n − 1)Σ + tr(Σ)I)⁻¹`, `w_c = Σ⁻¹μ_c`,
//! `b_c = −½ μ_cᵀΣ⁻¹μ_c + log(1/N)`. The matrix is positive definite as soon as
//! tr(Σ) > 0, so its inverse is the paper's pseudo-inverse.
//!
//! Where nothing varies within a class (one shot and one view each) Σ = 0:
//! Σ⁻¹ = I takes its place, and the classifier is the nearest class mean.
//!
//! A class without examples has no mean. With text it is put at the mean of
//! the other classes, where the cache speaks neither for nor against it;
//! without text it can never be told and gets a bias that keeps it last.

use tch::{Device, Kind, Tensor};

use super::{error::TipError, material::Material, standardise::Standardise, unit::unit_rows};
use crate::dimensions::{column_count, row_count};

/// Share of the total square length below which the scatter counts as zero.
const NO_SCATTER: f64 = 1e-8;

/// Bias of a class that has neither examples nor text.
pub(super) const NEVER: f64 = -1e6;

/// The ridge τ of the paper, `tr(S)/(n − 1)`: this many times it is added.
pub(super) const WHOLE_RIDGE: f64 = 1.0;

/// Examples whose views are turned into f64 at once.
const EXAMPLES_AT_ONCE: i64 = 4096;

/// The linear classifier f·wᵀ + b.
#[derive(Debug)]
pub(super) struct Gaussian {
    /// The weights w of the classes, f64 [N, D].
    pub weight: Tensor,
    /// The offsets b of the classes, f64 [N].
    pub bias: Tensor,
    /// Whether Σ was zero and I took the place of its inverse.
    pub identity: bool,
}

/// Counts, sums and second moments: all that GDA needs of its points. They add
/// up, so leaving examples out is a subtraction.
#[derive(Debug)]
pub(super) struct Moments {
    /// Points of each class, f64 [N].
    pub counts: Tensor,
    /// Their sums, f64 [N, D].
    pub sums: Tensor,
    /// Σ x·xᵀ over all points, f64 [D, D].
    second: Tensor,
}

/// The classifier of all examples, with `share` of the paper's ridge.
pub(super) fn fit(
    material: &Material,
    by: Option<&Standardise>,
    share: f64,
) -> Result<Gaussian, TipError> {
    moments(material, by, None)?.gaussian(material.text.is_some(), share)
}

impl Moments {
    /// Also fits points f64 [U, D] that belong to classes in part: `shares` f64
    /// [U, N], at least 0.
    pub(super) fn plus(&self, points: &Tensor, shares: &Tensor) -> Result<Self, TipError> {
        let down = Some([0i64].as_slice());
        let weights = shares.f_sum_dim_intlist(Some([1i64].as_slice()), true, Kind::Double)?;
        Ok(Self {
            counts: self
                .counts
                .f_add(&shares.f_sum_dim_intlist(down, false, Kind::Double)?)?,
            sums: self.sums.f_addmm(&shares.f_tr()?, points)?,
            second: self
                .second
                .f_addmm(&points.f_mul(&weights)?.f_tr()?, points)?,
        })
    }

    /// The number of points (views) that the moments are of.
    pub(super) fn points(&self) -> Result<f64, TipError> {
        Ok(self.counts.f_sum(Kind::Double)?.f_double_value(&[])?)
    }

    /// Class means f64 [N, D] (zeros for a class without points), and the
    /// pooled within-class scatter f64 [D, D] with its trace, where not zero.
    pub(super) fn scatter(&self) -> Result<(Tensor, Option<(Tensor, f64)>), TipError> {
        let means = self
            .sums
            .f_div(&self.counts.f_clamp_min(1.0)?.f_unsqueeze(1)?)?;
        let scatter = self.second.f_sub(&self.sums.f_tr()?.f_matmul(&means)?)?;
        let trace = scatter.f_trace()?.f_double_value(&[])?;
        let total = self.second.f_trace()?.f_double_value(&[])?;
        let points = self.points()?;
        let some = points > 1.0 && trace > NO_SCATTER * total;
        Ok((means, some.then_some((scatter, trace))))
    }

    /// The classifier of these moments, with `share` of the paper's ridge.
    pub(super) fn gaussian(&self, has_text: bool, share: f64) -> Result<Gaussian, TipError> {
        let (means, scatter) = self.scatter()?;
        let absent = self.counts.f_lt(0.5)?;
        let means = present_means(&means, &self.counts)?;
        let width = column_count(&means)?;
        let (weight, identity) = match scatter {
            None => (means.shallow_clone(), true),
            Some((scatter, trace)) => {
                let points = self.points()?;
                let ridge = Tensor::f_eye(width, (Kind::Double, Device::Cpu))?
                    .f_mul_scalar(share * trace / (points - 1.0))?;
                let factor = scatter.f_add(&ridge)?.f_linalg_cholesky(false)?;
                let solved = means.f_tr()?.f_cholesky_solve(&factor, false)?;
                (
                    solved.f_tr()?.f_mul_scalar(width as f64)?.f_contiguous()?,
                    false,
                )
            }
        };
        let classes = row_count(&means)? as f64;
        let mut bias = weight
            .f_mul(&means)?
            .f_sum_dim_intlist(Some([1i64].as_slice()), false, Kind::Double)?
            .f_mul_scalar(-0.5)?
            .f_sub_scalar(classes.ln())?;
        if !has_text {
            bias = bias.f_masked_fill(&absent, NEVER)?;
        }
        Ok(Gaussian {
            weight,
            bias,
            identity,
        })
    }
}

/// Means [N, D] in which a class without points has the mean of the others'.
pub(super) fn present_means(means: &Tensor, counts: &Tensor) -> Result<Tensor, TipError> {
    let absent = counts.f_lt(0.5)?.f_to_kind(Kind::Double)?;
    let present = absent.f_neg()?.f_add_scalar(1.0)?;
    let centre = present
        .f_unsqueeze(0)?
        .f_matmul(means)?
        .f_div(&present.f_sum(Kind::Double)?.f_clamp_min(1.0)?)?;
    Ok(means.f_add(&absent.f_unsqueeze(1)?.f_mul(&centre)?)?)
}

/// The points of the examples at `rows`, f64 [rows, R, D], unit rows: their
/// views if there are any, else their keys.
pub(super) fn points(
    material: &Material,
    by: Option<&Standardise>,
    rows: &Tensor,
) -> Result<Tensor, TipError> {
    let points = match &material.views {
        Some(views) => views.f_index_select(0, rows)?,
        None => material.keys.f_index_select(0, rows)?.f_unsqueeze(1)?,
    };
    let points = unit_rows(&points.f_to_kind(Kind::Double)?)?;
    Ok(match by {
        Some(by) => by.apply(&points)?,
        None => points,
    })
}

/// Moments of the points of the examples at `rows`, or of all.
pub(super) fn moments(
    material: &Material,
    by: Option<&Standardise>,
    rows: Option<&Tensor>,
) -> Result<Moments, TipError> {
    let (n, d) = (material.n(), material.width());
    let options = (Kind::Double, Device::Cpu);
    let mut sums = Tensor::f_zeros([n, d], options)?;
    let mut second = Tensor::f_zeros([d, d], options)?;
    let mut counts = Tensor::f_zeros([n], options)?;
    let all;
    let rows = match rows {
        Some(rows) => rows,
        None => {
            all = Tensor::f_arange(material.key_count(), (Kind::Int64, Device::Cpu))?;
            &all
        }
    };
    let total = rows.numel() as i64;
    let mut start = 0;
    while start < total {
        let length = EXAMPLES_AT_ONCE.min(total - start);
        let rows = rows.f_narrow(0, start, length)?;
        let labels = material.labels.f_index_select(0, &rows)?;
        let x = points(material, by, &rows)?;
        let per_example = column_count(&x)?;
        let _ = sums.f_index_add_(
            0,
            &labels,
            &x.f_sum_dim_intlist(Some([1i64].as_slice()), false, Kind::Double)?,
        )?;
        let _ = counts.f_index_add_(
            0,
            &labels,
            &Tensor::f_full([length], per_example as f64, options)?,
        )?;
        let flat = x.f_reshape([-1, d])?;
        second = second.f_addmm(&flat.f_tr()?, &flat)?;
        start += length;
    }
    Ok(Moments {
        counts,
        sums,
        second,
    })
}
