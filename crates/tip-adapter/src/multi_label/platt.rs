//! Logits of independent probabilities: per class `a·z + b` (Platt, 1999) of a
//! one-vs-rest output z, fitted on outputs for examples that were left out.
//!
//! A few examples determine a class's slope badly, so `log a` is regularised
//! towards the common slope of all classes with the weight of five examples,
//! and a has a floor. Targets are Platt's, (P + 1)/(P + 2) and 1/(Q − P + 2),
//! so that outputs that separate the examples perfectly do not become
//! certainties.

use tch::{Kind, Tensor};

use crate::dimensions::row_count;
use crate::error::TipError;

/// How many examples the common slope counts as.
const STRENGTH: f64 = 5.0;

/// Least slope: outputs that are uninformative, or misleading, end in the base
/// rate.
const LEAST_SLOPE: f64 = 0.1;

const MOST_SLOPE: f64 = 1e3;

/// Most steps of Fisher scoring.
const STEPS: usize = 60;

/// Most halvings of a step that increases the loss.
const HALVINGS: usize = 8;

/// Slope and offset of each class, f64 [N].
#[derive(Debug)]
pub(super) struct Platt {
    pub slope: Tensor,
    pub offset: Tensor,
    /// The fit of all classes together.
    pub common: f64,
}

/// Slope if there is no example to fit on.
const DEFAULT_SLOPE: f64 = 5.0;

/// Where no example can be left out: the default slope, and offsets at which the
/// mean output, of f64 [M, N], has the classes' share of the labels.
pub(super) fn by_rate(outputs: &Tensor, labels: &Tensor) -> Result<Platt, TipError> {
    let count = row_count(labels)?.max(1) as f64;
    let rate = columns(labels)?
        .f_add_scalar(1.0)?
        .f_div_scalar(count + 2.0)?;
    let mean = columns(outputs)?.f_div_scalar(count)?;
    Ok(Platt {
        slope: mean.f_full_like(DEFAULT_SLOPE)?,
        offset: rate
            .f_logit(None)?
            .f_sub(&mean.f_mul_scalar(DEFAULT_SLOPE)?)?,
        common: DEFAULT_SLOPE,
    })
}

/// Of outputs and labels, f64 [Q, N], Q at least 1.
pub(super) fn fit(outputs: &Tensor, labels: &Tensor) -> Result<Platt, TipError> {
    let problem = Problem::new(outputs, labels)?;
    let common = problem.common()?;
    let (slope, offset) = problem.by_class(&common)?;
    Ok(Platt {
        slope,
        offset,
        common: common.log_slope.exp(),
    })
}

/// Range of the slope's logarithm.
fn bounds() -> (f64, f64) {
    (LEAST_SLOPE.ln(), MOST_SLOPE.ln())
}

struct Common {
    log_slope: f64,
    offset: Tensor,
}

struct Problem<'a> {
    outputs: &'a Tensor,
    targets: Tensor,
}

impl<'a> Problem<'a> {
    fn new(outputs: &'a Tensor, labels: &Tensor) -> Result<Self, TipError> {
        let count = row_count(labels)? as f64;
        let positive = columns(labels)?;
        let high = positive
            .f_add_scalar(1.0)?
            .f_div(&positive.f_add_scalar(2.0)?)?;
        let low = (positive.f_neg()?.f_add_scalar(count + 2.0)?).f_reciprocal()?;
        let targets = low.f_add(&labels.f_mul(&high.f_sub(&low)?)?)?;
        Ok(Self { outputs, targets })
    }

    /// Cross-entropy of each class, its gradient in `log a` and b, and the
    /// Fisher information: each [N].
    fn at(&self, log_slope: &Tensor, offset: &Tensor) -> Result<Derivatives, TipError> {
        let steep = self.outputs.f_mul(&log_slope.f_exp()?)?;
        let logits = steep.f_add(offset)?;
        let probability = logits.f_sigmoid()?;
        let error = probability.f_sub(&self.targets)?;
        let weight = probability.f_mul(&probability.f_neg()?.f_add_scalar(1.0)?)?;
        let weighted = weight.f_mul(&steep)?;
        Ok(Derivatives {
            loss: columns(&logits.f_softplus()?.f_sub(&self.targets.f_mul(&logits)?)?)?,
            by_slope: columns(&error.f_mul(&steep)?)?,
            by_offset: columns(&error)?,
            slopes: columns(&weighted.f_mul(&steep)?)?,
            both: columns(&weighted)?,
            offsets: columns(&weight)?.f_add_scalar(1e-9)?,
        })
    }

    fn loss(&self, log_slope: &Tensor, offset: &Tensor) -> Result<Tensor, TipError> {
        let logits = self.outputs.f_mul(&log_slope.f_exp()?)?.f_add(offset)?;
        columns(&logits.f_softplus()?.f_sub(&self.targets.f_mul(&logits)?)?)
    }

    /// One slope for all classes, an offset for each.
    fn common(&self) -> Result<Common, TipError> {
        let (least, most) = bounds();
        let rate = self
            .targets
            .f_mean_dim(Some([0i64].as_slice()), false, Kind::Double)?;
        let start = rate.f_logit(None)?;
        let mean = self
            .outputs
            .f_mean_dim(Some([0i64].as_slice()), false, Kind::Double)?;
        let mut at = Common {
            log_slope: DEFAULT_SLOPE.ln(),
            offset: start.f_sub(&mean.f_mul_scalar(DEFAULT_SLOPE)?)?,
        };
        let scalar = |value: f64| Tensor::f_from_slice(&[value]);
        let total = |t: &Tensor| -> Result<f64, TipError> {
            Ok(t.f_sum(Kind::Double)?.f_double_value(&[])?)
        };
        for _ in 0..STEPS {
            let now = self.at(&scalar(at.log_slope)?, &at.offset)?;
            // The offsets are eliminated: each couples only with the slope.
            let pull = now.both.f_div(&now.offsets)?;
            let curvature = total(&now.slopes.f_sub(&pull.f_mul(&now.both)?)?)?.max(1e-9);
            let gradient = total(&now.by_slope.f_sub(&pull.f_mul(&now.by_offset)?)?)?;
            let slope_step = (-gradient / curvature).clamp(-1.0, 1.0);
            let offset_step = (now.by_offset.f_neg()?)
                .f_sub(&now.both.f_mul_scalar(slope_step)?)?
                .f_div(&now.offsets)?;
            let before = total(&now.loss)?;
            let mut share = 1.0;
            let mut moved = 0.0;
            for _ in 0..HALVINGS {
                let next = Common {
                    log_slope: (at.log_slope + share * slope_step).clamp(least, most),
                    offset: at.offset.f_add(&offset_step.f_mul_scalar(share)?)?,
                };
                let after = total(&self.loss(&scalar(next.log_slope)?, &next.offset)?)?;
                if after <= before {
                    moved = before - after;
                    at = next;
                    break;
                }
                share /= 2.0;
            }
            if moved <= 1e-10 * before.max(1e-9) {
                break;
            }
        }
        Ok(at)
    }

    /// A slope for each class, regularised towards the common one.
    fn by_class(&self, common: &Common) -> Result<(Tensor, Tensor), TipError> {
        let (least, most) = bounds();
        let mut slope = common.offset.f_full_like(common.log_slope)?;
        let mut offset = common.offset.shallow_clone();
        let penalty = |slope: &Tensor| -> Result<Tensor, TipError> {
            let away = slope.f_sub_scalar(common.log_slope)?;
            Ok(away.f_square()?.f_mul_scalar(STRENGTH)?)
        };
        for _ in 0..STEPS {
            let now = self.at(&slope, &offset)?;
            let away = slope.f_sub_scalar(common.log_slope)?;
            let by_slope = now.by_slope.f_add(&away.f_mul_scalar(2.0 * STRENGTH)?)?;
            let slopes = now.slopes.f_add_scalar(2.0 * STRENGTH)?;
            let determinant = slopes.f_mul(&now.offsets)?.f_sub(&now.both.f_square()?)?;
            let slope_step = (now.both.f_mul(&now.by_offset)?)
                .f_sub(&now.offsets.f_mul(&by_slope)?)?
                .f_div(&determinant)?
                .f_clamp(-1.0, 1.0)?;
            let offset_step = (now.by_offset.f_neg()?)
                .f_sub(&now.both.f_mul(&slope_step)?)?
                .f_div(&now.offsets)?;
            let before = now.loss.f_add(&penalty(&slope)?)?;
            // Each class has its own step length, halved until its loss falls.
            let mut best = before.shallow_clone();
            let (mut next_slope, mut next_offset) = (slope.shallow_clone(), offset.shallow_clone());
            let mut share = 1.0;
            for _ in 0..HALVINGS {
                let tried = slope
                    .f_add(&slope_step.f_mul_scalar(share)?)?
                    .f_clamp(least, most)?;
                let moved = offset.f_add(&offset_step.f_mul_scalar(share)?)?;
                let after = self.loss(&tried, &moved)?.f_add(&penalty(&tried)?)?;
                let better = after.f_lt_tensor(&best)?;
                best = after.f_where_self(&better, &best)?;
                next_slope = tried.f_where_self(&better, &next_slope)?;
                next_offset = moved.f_where_self(&better, &next_offset)?;
                if better.f_all()?.f_int64_value(&[])? != 0 {
                    break;
                }
                share /= 2.0;
            }
            let gain = before.f_sub(&best)?.f_max()?.f_double_value(&[])?;
            slope = next_slope;
            offset = next_offset;
            if gain <= 1e-9 {
                break;
            }
        }
        Ok((slope.f_exp()?, offset))
    }
}

struct Derivatives {
    loss: Tensor,
    by_slope: Tensor,
    by_offset: Tensor,
    slopes: Tensor,
    both: Tensor,
    offsets: Tensor,
}

/// The sum of each column, f64 [N].
fn columns(rows: &Tensor) -> Result<Tensor, TipError> {
    Ok(rows.f_sum_dim_intlist(Some([0i64].as_slice()), false, Kind::Double)?)
}
