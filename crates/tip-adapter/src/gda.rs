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

use super::{
    error::TipError,
    held::Held,
    material::{Material, unit_rows},
};

/// Share of the total square length below which the scatter counts as zero.
const NO_SCATTER: f64 = 1e-8;

/// Bias of a class that has neither examples nor text.
const NEVER: f64 = -1e6;

/// Examples whose views are turned into f64 at once.
const EXAMPLES_AT_ONCE: i64 = 4096;

/// The linear classifier f·wᵀ + b.
#[derive(Debug)]
pub(super) struct Gaussian {
    /// f64 [N, D].
    pub weight: Tensor,
    /// f64 [N].
    pub bias: Tensor,
    /// Whether Σ was zero and I took the place of its inverse.
    pub identity: bool,
}

/// Counts, sums and second moments: all that GDA needs of its points. They add
/// up, so leaving examples out is a subtraction.
#[derive(Debug)]
struct Moments {
    /// Points of each class, f64 [N].
    counts: Tensor,
    /// Their sums, f64 [N, D].
    sums: Tensor,
    /// Σ x·xᵀ over all points, f64 [D, D].
    second: Tensor,
}

/// The classifier of all examples.
pub(super) fn fit(material: &Material) -> Result<Gaussian, TipError> {
    moments(material, None)?.gaussian(material.text.is_some())
}

/// f·w + b for each held example, without the examples that it may not see:
/// f64 [Q, N]. None where Σ is zero in a round though not in the whole: such
/// scores would be those of another classifier.
pub(super) fn held_logits(material: &Material, held: &Held) -> Result<Option<Tensor>, TipError> {
    let total = moments(material, None)?;
    let whole_is_identity = total.scatter()?.1.is_none();
    let mut out = Tensor::f_zeros([held.count(), material.n()], (Kind::Double, Device::Cpu))?;
    for round in held.split()? {
        let left = if round.left_out.numel() == 0 {
            total.gaussian(material.text.is_some())?
        } else {
            total
                .less(&moments(material, Some(&round.left_out))?)?
                .gaussian(material.text.is_some())?
        };
        if left.identity && !whole_is_identity {
            return Ok(None);
        }
        let f = held
            .features
            .f_index_select(0, &round.examples)?
            .f_to_kind(Kind::Double)?;
        let logits = f.f_matmul(&left.weight.f_tr()?)?.f_add(&left.bias)?;
        let _ = out.f_index_copy_(0, &round.examples, &logits)?;
    }
    Ok(Some(out))
}

impl Moments {
    fn less(&self, other: &Self) -> Result<Self, TipError> {
        Ok(Self {
            counts: self.counts.f_sub(&other.counts)?,
            sums: self.sums.f_sub(&other.sums)?,
            second: self.second.f_sub(&other.second)?,
        })
    }

    /// Class means f64 [N, D] (zeros for a class without points), and the
    /// pooled within-class scatter f64 [D, D] with its trace, where not zero.
    fn scatter(&self) -> Result<(Tensor, Option<(Tensor, f64)>), TipError> {
        let means = self
            .sums
            .f_div(&self.counts.f_clamp_min(1.0)?.f_unsqueeze(1)?)?;
        let scatter = self.second.f_sub(&self.sums.f_tr()?.f_matmul(&means)?)?;
        let trace = scatter.f_trace()?.f_double_value(&[])?;
        let total = self.second.f_trace()?.f_double_value(&[])?;
        let points = self.counts.f_sum(Kind::Double)?.f_double_value(&[])?;
        let some = points > 1.0 && trace > NO_SCATTER * total;
        Ok((means, some.then_some((scatter, trace))))
    }

    fn gaussian(&self, has_text: bool) -> Result<Gaussian, TipError> {
        let (means, scatter) = self.scatter()?;
        let absent = self.counts.f_lt(0.5)?;
        let present = absent.f_logical_not()?.f_to_kind(Kind::Double)?;
        let centre = present
            .f_unsqueeze(0)?
            .f_matmul(&means)?
            .f_div(&present.f_sum(Kind::Double)?.f_clamp_min(1.0)?)?;
        let means = means.f_add(
            &absent
                .f_unsqueeze(1)?
                .f_to_kind(Kind::Double)?
                .f_mul(&centre)?,
        )?;
        let width = means.size().get(1).copied().unwrap_or(1);
        let (weight, identity) = match scatter {
            None => (means.shallow_clone(), true),
            Some((scatter, trace)) => {
                let points = self.counts.f_sum(Kind::Double)?.f_double_value(&[])?;
                let ridge = Tensor::f_eye(width, (Kind::Double, Device::Cpu))?
                    .f_mul_scalar(trace / (points - 1.0))?;
                let factor = scatter.f_add(&ridge)?.f_linalg_cholesky(false)?;
                let solved = means.f_tr()?.f_cholesky_solve(&factor, false)?;
                (
                    solved.f_tr()?.f_mul_scalar(width as f64)?.f_contiguous()?,
                    false,
                )
            }
        };
        let classes = means.size().first().copied().unwrap_or(1) as f64;
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

/// Moments of the examples at `rows`, or of all: of their views where there
/// are any, else of their keys.
fn moments(material: &Material, rows: Option<&Tensor>) -> Result<Moments, TipError> {
    let (n, d) = (material.n(), material.width());
    let options = (Kind::Double, Device::Cpu);
    let mut sums = Tensor::f_zeros([n, d], options)?;
    let mut second = Tensor::f_zeros([d, d], options)?;
    let mut counts = Tensor::f_zeros([n], options)?;
    let views = match &material.views {
        Some(views) => views.shallow_clone(),
        None => material.keys.f_unsqueeze(1)?,
    };
    let total = rows.map_or(material.key_count(), |rows| rows.numel() as i64);
    let mut start = 0;
    while start < total {
        let length = EXAMPLES_AT_ONCE.min(total - start);
        let (x, labels) = match rows {
            None => (
                views.f_narrow(0, start, length)?,
                material.labels.f_narrow(0, start, length)?,
            ),
            Some(rows) => {
                let rows = rows.f_narrow(0, start, length)?;
                (
                    views.f_index_select(0, &rows)?,
                    material.labels.f_index_select(0, &rows)?,
                )
            }
        };
        let x = unit_rows(&x.f_to_kind(Kind::Double)?)?;
        let per_example = x.size().get(1).copied().unwrap_or(1);
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
