//! Features on one scale: `f′ = unit((f − μ) ⊙ (v + e·mean v)^−½)`, e = 0.1.
//!
//! A few dimensions of CLIP's embeddings are so large that cosines hear little
//! else. μ and v are the mean and the variance of each dimension over pictures
//! without labels: those of the bundle's statistics, or the cache's own keys.
//! e keeps a dimension that hardly varies from being blown up.

use tch::{Device, Kind, TchError, Tensor};

use super::{error::TipError, unit::LEAST_NORM};

/// e, the share of the mean variance that is added to each dimension's.
const FLOOR: f64 = 0.1;

/// Variances below this share of their mean count as this share: their
/// logarithm has to exist.
const STILL: f64 = 1e-6;

/// From this evenness on, the dimensions of features vary enough alike for
/// their own statistics to help ([`Statistics::evenness`]): subsets of CLIP
/// features have 0.63 to 0.98, those of an EfficientNet 0.00 to 0.51.
const EVEN: f64 = 0.6;

/// Mean and variance of each dimension over pictures of one encoder, f32 [D].
#[derive(Debug)]
pub struct Statistics {
    /// μ, the mean of each dimension.
    pub mean: Tensor,
    /// v, the variance of each dimension, 0 or more.
    pub variance: Tensor,
}

impl Statistics {
    /// Of rows [M, D], M at least 1.
    ///
    /// # Errors
    /// Torch's.
    pub fn of(rows: &Tensor) -> Result<Self, TipError> {
        let rows = rows.f_to_kind(Kind::Double)?;
        let mean = rows.f_mean_dim(Some([0i64].as_slice()), false, Kind::Double)?;
        let variance = rows.f_sub(&mean)?.f_square()?.f_mean_dim(
            Some([0i64].as_slice()),
            false,
            Kind::Double,
        )?;
        Ok(Self { mean, variance })
    }

    /// The same numbers, sharing memory.
    #[must_use]
    pub fn shallow_clone(&self) -> Self {
        Self {
            mean: self.mean.shallow_clone(),
            variance: self.variance.shallow_clone(),
        }
    }

    /// Checks shape, kind and range for embeddings of `width`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, width: i64) -> Result<(), TipError> {
        for (thing, t) in [
            ("statistics' mean", &self.mean),
            ("statistics' variance", &self.variance),
        ] {
            if t.size() != [width] {
                return Err(TipError::Shape {
                    thing,
                    got: t.size(),
                    expected: format!("[{width}]"),
                });
            }
            if t.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
                return Err(TipError::NotFinite { thing, row: 0 });
            }
        }
        let least = self.variance.f_min()?.f_double_value(&[])?;
        let mean = self.variance.f_mean(Kind::Double)?.f_double_value(&[])?;
        if least < 0.0 || mean <= 0.0 {
            return Err(TipError::Number {
                thing: "statistics' variance",
                value: least.min(mean),
                expected: "0 or over in each dimension, over 0 in some",
            });
        }
        Ok(())
    }

    /// Whether the dimensions of `count` pictures vary enough alike for their
    /// own statistics to help.
    pub(super) fn is_even(&self, count: i64) -> Result<bool, TipError> {
        Ok(self.evenness(count)? >= EVEN)
    }

    /// How evenly the dimensions vary: geometric over arithmetic mean of the
    /// variances of `count` pictures, 1 if all vary alike (the spectral
    /// flatness of a signal). The logarithm of a variance of few pictures is
    /// too low on average (by ψ(d/2) − log(d/2), d = `count` − 1, for normal
    /// values), which is made good.
    pub(super) fn evenness(&self, count: i64) -> Result<f64, TipError> {
        let mean = self.variance.f_mean(Kind::Double)?.f_double_value(&[])?;
        if count < 2 || mean <= 0.0 {
            return Ok(0.0);
        }
        let half = Tensor::f_full([1], (count - 1) as f64 / 2.0, (Kind::Double, Device::Cpu))?;
        let bias = half
            .f_digamma()?
            .f_sub(&half.f_log()?)?
            .f_double_value(&[0])?;
        let log = self
            .variance
            .f_to_kind(Kind::Double)?
            .f_div_scalar(mean)?
            .f_clamp_min(STILL)?
            .f_log()?
            .f_mean(Kind::Double)?
            .f_double_value(&[])?;
        Ok((log - bias).exp())
    }
}

/// Puts features on one scale.
#[derive(Debug)]
pub struct Standardise {
    /// μ, subtracted from each feature, f32 [D].
    pub shift: Tensor,
    /// (v + e·mean v)^−½, f32 [D].
    pub scale: Tensor,
}

impl Standardise {
    /// By the statistics of pictures; none if nothing varies in them.
    ///
    /// # Errors
    /// Torch's.
    pub fn by(statistics: &Statistics) -> Result<Option<Self>, TipError> {
        let variance = statistics.variance.f_to_kind(Kind::Double)?;
        let mean = variance.f_mean(Kind::Double)?.f_double_value(&[])?;
        if mean.is_nan() || mean <= LEAST_NORM * LEAST_NORM {
            return Ok(None);
        }
        Ok(Some(Self {
            shift: statistics.mean.f_to_kind(Kind::Float)?,
            scale: variance
                .f_add_scalar(FLOOR * mean)?
                .f_rsqrt()?
                .f_to_kind(Kind::Float)?,
        }))
    }

    /// `unit((rows − μ)·scale)` of [..., D], in the kind and on the device of
    /// the rows.
    ///
    /// # Errors
    /// Torch's.
    pub fn apply(&self, rows: &Tensor) -> Result<Tensor, TchError> {
        let shift = self
            .shift
            .f_to_device(rows.device())?
            .f_to_kind(rows.kind())?;
        let scale = self
            .scale
            .f_to_device(rows.device())?
            .f_to_kind(rows.kind())?;
        let rows = rows.f_sub(&shift)?.f_mul_(&scale)?;
        let norm = rows.f_norm_scalaropt_dim(2.0, [-1i64].as_slice(), true)?;
        rows.f_div(&norm.f_clamp_min(LEAST_NORM * LEAST_NORM)?)
    }

    /// The same numbers, sharing memory.
    #[must_use]
    pub fn shallow_clone(&self) -> Self {
        Self {
            shift: self.shift.shallow_clone(),
            scale: self.scale.shallow_clone(),
        }
    }
}
