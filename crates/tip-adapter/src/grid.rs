//! The values of α, β and λ that a search tries.

use super::{error::TipError, spec::SearchGrid};

/// Steps of the official grid.
const OFFICIAL_BETAS: u32 = 200;
const OFFICIAL_ALPHAS: u32 = 20;

/// Largest s_β and s_α that make sense.
const SCALE_LIMIT: f64 = 1000.0;

/// Tip-Adapter's best on ImageNet-16 (Zhang et al., ECCV 2022), and what it
/// gets if nothing can be chosen.
pub(super) const TIP_ALPHA: f64 = 1.0;
/// β of the authors' first guess: see [`TIP_ALPHA`].
pub(super) const TIP_BETA: f64 = 5.5;

/// ProKeR's β and λ unless the search clearly prefers others.
pub(super) const PROKER_BETA: f64 = 1.7;
/// λ unless the search clearly prefers another: see [`PROKER_BETA`].
pub(super) const PROKER_LAMBDA: f64 = 0.1;

/// GDA's α if nothing can be chosen but the covariance is there.
pub(super) const GDA_ALPHA: f64 = 0.03;
/// GDA's α where the covariance is zero and Σ⁻¹ = I stands in for it.
pub(super) const GDA_ALPHA_IDENTITY: f64 = 10.0;
/// Nearest class mean's α if nothing can be chosen.
pub(super) const MEAN_ALPHA: f64 = 1.0;

/// The numbers that a [`SearchGrid`] stands for.
pub trait GridValues {
    /// Tip-Adapter's β, in the order in which they are tried (outer loop).
    ///
    /// Official: β_i = 0.1 + i·(s_β − 0.1)/200, i = 0 … 199.
    fn betas(&self) -> Vec<f64>;

    /// Tip-Adapter's α, in the order in which they are tried (inner loop).
    ///
    /// Official: α_j = 0.1 + j·(s_α − 0.1)/20, j = 0 … 19.
    fn alphas(&self) -> Vec<f64>;

    /// GDA's α (Wang et al., ICLR 2024): 1e-4 … 100; twice as fine when wide.
    fn gda_alphas(&self) -> Vec<f64>;

    /// The values of ProKeR's β, the outer loop of its search.
    fn proker_betas(&self) -> Vec<f64>;

    /// The values of ProKeR's λ, the inner loop of its search.
    fn proker_lambdas(&self) -> Vec<f64>;

    /// The values of α for the nearest class mean.
    fn mean_alphas(&self) -> Vec<f64>;

    /// Whether it is the authors'.
    fn is_official(&self) -> bool;

    /// In words, for the manifest.
    fn describe(&self) -> String;
    /// Checks that the scales are ones to search with.
    ///
    /// # Errors
    /// Names the value that is not.
    fn check(&self) -> Result<(), TipError>;
}

impl GridValues for SearchGrid {
    fn betas(&self) -> Vec<f64> {
        match *self {
            Self::Official { beta_scale, .. } => steps(beta_scale, OFFICIAL_BETAS),
            Self::Wide => vec![
                0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, TIP_BETA, 8.0, 11.0, 16.0, 23.0, 32.0, 45.0,
                64.0, 90.0,
            ],
        }
    }

    fn alphas(&self) -> Vec<f64> {
        match *self {
            Self::Official { alpha_scale, .. } => steps(alpha_scale, OFFICIAL_ALPHAS),
            Self::Wide => (-8..=8).map(|x| 10f64.powf(f64::from(x) / 4.0)).collect(),
        }
    }

    fn gda_alphas(&self) -> Vec<f64> {
        match self {
            Self::Official { .. } => (-4..=2).map(|x| 10f64.powi(x)).collect(),
            Self::Wide => (-8..=4).map(|x| 10f64.powf(f64::from(x) / 2.0)).collect(),
        }
    }

    fn proker_betas(&self) -> Vec<f64> {
        match self {
            Self::Official { .. } => vec![0.5, 1.0, 2.0, 5.0],
            Self::Wide => vec![1.0, PROKER_BETA, 3.0],
        }
    }

    fn proker_lambdas(&self) -> Vec<f64> {
        match self {
            Self::Official { .. } => vec![0.001, 0.01, 0.1, 1.0, 10.0],
            Self::Wide => vec![0.01, 0.03, PROKER_LAMBDA, 0.3, 1.0],
        }
    }

    fn mean_alphas(&self) -> Vec<f64> {
        vec![
            0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, MEAN_ALPHA, 1.5, 2.0, 3.0, 10.0,
        ]
    }

    fn is_official(&self) -> bool {
        matches!(self, Self::Official { .. })
    }

    fn describe(&self) -> String {
        match self {
            Self::Official {
                beta_scale,
                alpha_scale,
            } => {
                format!("official, s_beta {beta_scale}, s_alpha {alpha_scale}")
            }
            Self::Wide => "wide, logarithmic".to_owned(),
        }
    }

    fn check(&self) -> Result<(), TipError> {
        if let Self::Official {
            beta_scale,
            alpha_scale,
        } = *self
        {
            for (thing, value) in [("beta_scale", beta_scale), ("alpha_scale", alpha_scale)] {
                if !(value > 0.0 && value <= SCALE_LIMIT) {
                    return Err(TipError::Number {
                        thing,
                        value,
                        expected: "a number over 0 and at most 1000",
                    });
                }
            }
        }
        Ok(())
    }
}

/// 0.1 + i·(scale − 0.1)/count, i = 0 … count − 1, in the order of operations
/// of the authors' code, so that the numbers are the same to the last bit.
fn steps(scale: f64, count: u32) -> Vec<f64> {
    (0..count)
        .map(|i| f64::from(i) * (scale - 0.1) / f64::from(count) + 0.1)
        .collect()
}
