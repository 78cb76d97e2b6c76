//! The weights of a stack's parts.
//!
//! With w_k = e^a·p_k, Σp = 1: least `cross-entropy(Σ w_k·z_k) + (s/Q)·Σ(log
//! p_k − log 1/n)² + (20/Q)·a²` over the Q held-out examples: equal weights that
//! sum to 1, unless more than s examples speak against them.
//!
//! s is 2. Left-out examples of which it is not known what they would be as new
//! pictures were classified by heads with one shot fewer: with few shots, the better
//! part there need not be the better one with all shots. For these
//! `s = 2 + 0.6·Q/(K − 1)³` for K shots a class.

use tch::{Kind, Tensor};

use crate::dimensions::row_count;
use crate::error::TipError;

/// How many examples the prior for a sum of 1 counts as.
const SUM_STRENGTH: f64 = 20.0;

/// How many examples the prior for equal shares counts as, at least.
const SHARE_STRENGTH: f64 = 2.0;

/// At two shots, the share of the left-out examples that the prior for equal
/// shares counts as; it falls with the cube of the remaining shots.
const FEWER_SHOTS: f64 = 0.6;

const STEPS: usize = 100;
const HALVINGS: usize = 30;
const TOLERANCE: f64 = 1e-7;

/// Share of the decrease promised by the slope that a step must reach (Armijo).
const ARMIJO: f64 = 1e-4;

/// Held-out logits, each part's less the true class's, f64 [Q, N].
struct Problem {
    margins: Vec<Tensor>,
    /// Strength of the prior for a sum of 1: SUM_STRENGTH/Q.
    sum_pull: f64,
    /// Strength of the prior for equal shares: s/Q.
    share_pull: f64,
}

/// The fitted weights, one for each part.
pub(super) struct Weights {
    pub weights: Vec<f64>,
    /// Cross-entropy of each example, f64 [Q].
    pub losses: Tensor,
}

/// Fits the weights of parts' logits, f64 [Q, N] each, already over their
/// temperatures. Q and the number of parts are at least 1. `shots` is the mean
/// number of shots per class if heads of one shot fewer classified the examples.
pub(super) fn fit(
    parts: &[Tensor],
    labels: &Tensor,
    shots: Option<f64>,
) -> Result<Weights, TipError> {
    let own = labels.f_unsqueeze(1)?;
    let margins = parts
        .iter()
        .map(|z| Ok(z.f_sub(&z.f_gather(1, &own, false)?)?))
        .collect::<Result<Vec<_>, TipError>>()?;
    let count = labels.numel().max(1) as f64;
    let fewer = shots.map_or(0.0, |shots| FEWER_SHOTS / (shots - 1.0).max(1.0).powi(3));
    let problem = Problem {
        margins,
        sum_pull: SUM_STRENGTH / count,
        share_pull: SHARE_STRENGTH / count + fewer,
    };
    let logs = problem.minimise()?;
    let weights: Vec<f64> = logs.iter().map(|x| x.exp()).collect();
    let losses = problem
        .sum(&weights)?
        .f_logsumexp([1i64].as_slice(), false)?;
    Ok(Weights { weights, losses })
}

impl Problem {
    fn sum(&self, weights: &[f64]) -> Result<Tensor, TipError> {
        let mut sum: Option<Tensor> = None;
        for (z, &w) in self.margins.iter().zip(weights) {
            let part = z.f_mul_scalar(w)?;
            sum = Some(match sum {
                None => part,
                Some(mut sum) => sum.f_add_(&part)?,
            });
        }
        sum.ok_or(TipError::NoExamples)
    }

    /// Value and gradient at log w.
    fn at(&self, logs: &[f64]) -> Result<(f64, Vec<f64>), TipError> {
        let weights: Vec<f64> = logs.iter().map(|x| x.exp()).collect();
        let logits = self.sum(&weights)?;
        let each = logits.f_logsumexp([1i64].as_slice(), true)?;
        let p = logits.f_sub(&each)?.f_exp_()?;
        let rows = row_count(&p)?.max(1) as f64;
        let slopes = self
            .margins
            .iter()
            .map(|z| Ok(p.f_mul(z)?.f_sum(Kind::Double)?.f_double_value(&[])? / rows))
            .collect::<Result<Vec<f64>, TipError>>()?;

        let total: f64 = weights.iter().sum();
        let a = total.ln();
        let even = (logs.len() as f64).ln();
        let off: Vec<f64> = logs.iter().map(|x| x - a + even).collect();
        let sum_off: f64 = off.iter().sum();
        let squares: f64 = off.iter().map(|x| x * x).sum();
        let value = each.f_mean(Kind::Double)?.f_double_value(&[])?
            + self.share_pull * squares
            + self.sum_pull * a * a;
        let gradient = (slopes.iter().zip(&weights).zip(&off))
            .map(|((slope, w), off)| {
                let share = w / total;
                slope * w
                    + 2.0 * (self.share_pull * (off - share * sum_off) + self.sum_pull * a * share)
            })
            .collect();
        Ok((value, gradient))
    }

    /// BFGS from equal weights, with halved steps until they pay.
    fn minimise(&self) -> Result<Vec<f64>, TipError> {
        let n = self.margins.len();
        let mut x = vec![-(n as f64).ln(); n];
        let (mut value, mut slope) = self.at(&x)?;
        let mut inverse = identity(n);
        for _ in 0..STEPS {
            if dot(&slope, &slope).sqrt() < TOLERANCE {
                break;
            }
            let mut way: Vec<f64> = inverse.iter().map(|row| -dot(row, &slope)).collect();
            if dot(&way, &slope) >= 0.0 {
                inverse = identity(n);
                way = slope.iter().map(|g| -g).collect();
            }
            let promised = dot(&way, &slope);
            let mut step = 1.0;
            let mut found = None;
            for _ in 0..HALVINGS {
                let next: Vec<f64> = x.iter().zip(&way).map(|(x, d)| x + step * d).collect();
                let (new, gradient) = self.at(&next)?;
                if new.is_finite() && new <= value + ARMIJO * step * promised {
                    found = Some((next, new, gradient));
                    break;
                }
                step /= 2.0;
            }
            let Some((next, new, gradient)) = found else {
                break;
            };
            let moved: Vec<f64> = next.iter().zip(&x).map(|(a, b)| a - b).collect();
            let bent: Vec<f64> = gradient.iter().zip(&slope).map(|(a, b)| a - b).collect();
            update(&mut inverse, &moved, &bent);
            (x, value, slope) = (next, new, gradient);
        }
        Ok(x)
    }
}

fn identity(n: usize) -> Vec<Vec<f64>> {
    (0..n)
        .map(|i| (0..n).map(|j| if i == j { 1.0 } else { 0.0 }).collect())
        .collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The BFGS update of an inverse Hessian:
/// `(I − ρsyᵀ)H(I − ρysᵀ) + ρssᵀ`, ρ = 1/yᵀs.
fn update(inverse: &mut [Vec<f64>], moved: &[f64], bent: &[f64]) {
    let curve = dot(moved, bent);
    if curve <= 1e-14 {
        return;
    }
    let through: Vec<f64> = inverse.iter().map(|row| dot(row, bent)).collect();
    let grow = (1.0 + dot(&through, bent) / curve) / curve;
    for ((row, s), h) in inverse.iter_mut().zip(moved).zip(&through) {
        for ((cell, t), k) in row.iter_mut().zip(moved).zip(&through) {
            *cell += grow * s * t - (h * t + s * k) / curve;
        }
    }
}
