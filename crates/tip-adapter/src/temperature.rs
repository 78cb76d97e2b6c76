//! The temperature that makes probabilities usable.

use tch::{Kind, Tensor};

use super::error::TipError;
use crate::dimensions::row_count;

const STEPS: usize = 60;
const TOLERANCE: f64 = 1e-9;
const ROUGH_TOLERANCE: f64 = 1e-4;

/// A temperature that was fitted, and what it gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// T > 0: probabilities are softmax(logits / T).
    pub temperature: f64,
    /// Mean cross-entropy at T, nats.
    pub cross_entropy: f64,
}

/// The temperature with the least mean cross-entropy (Guo et al., ICML 2017),
/// in f64.
///
/// With z the logits less the true class's, the cross-entropy
/// `mean log Σ exp(z/T)` is convex in 1/T: safeguarded Newton steps find its
/// minimum. Where every example is classified rightly there is none (T → 0);
/// then the labels are smoothed by 1/(Q + 1), the rule of succession.
///
/// `logits` [Q, N], any float; `labels` i64 [Q]. T = 1 if Q is 0, or if
/// all logits are equal.
///
/// # Errors
/// Torch's.
pub fn fit_temperature(logits: &Tensor, labels: &Tensor) -> Result<Fit, TipError> {
    fit(logits, labels, None, TOLERANCE)
}

/// The same to four digits, from a temperature that is likely near: for
/// comparing many candidates.
pub(super) fn fit_near(logits: &Tensor, labels: &Tensor, near: f64) -> Result<Fit, TipError> {
    fit(logits, labels, Some(near), ROUGH_TOLERANCE)
}

/// What a temperature is held near, and how strongly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Near {
    /// Where it is without evidence, over 0.
    pub temperature: f64,
    /// The number of examples that this counts as.
    pub strength: f64,
}

/// How far log T may be from what it is held near.
const WIDEST: f64 = 9.0;

/// The temperature with the least `cross-entropy + (strength/Q)·(log T/T₀)²`:
/// the fewer examples, the nearer to T₀. Ties, copies and examples that are
/// all right pull it no further than they weigh.
///
/// `logits` [Q, N], any float; `labels` i64 [Q]. T₀ where Q is 0.
///
/// # Errors
/// Torch's.
pub(super) fn fit_held_near(logits: &Tensor, labels: &Tensor, near: Near) -> Result<Fit, TipError> {
    let z = margins(logits, labels)?;
    let examples = row_count(&z)? as f64;
    if examples < 1.0 {
        return Ok(Fit {
            temperature: near.temperature,
            cross_entropy: 0.0,
        });
    }
    // The slope of the loss by log T: where it turns from falling to rising.
    let (mut low, mut high) = (-WIDEST, WIDEST);
    let mut log = 0.0;
    for _ in 0..STEPS {
        let inverse = f64::exp(-log) / near.temperature;
        let (first, second) = derivatives(&z, inverse)?;
        let pull = 2.0 * near.strength / examples;
        let slope = pull * log - inverse * first;
        let curve = pull + inverse * first + inverse * inverse * second;
        if slope > 0.0 {
            high = log;
        } else {
            low = log;
        }
        let newton = log - slope / curve;
        // Far from the minimum the loss may bend the other way.
        let next = if curve > 0.0 && newton > low && newton < high {
            newton
        } else {
            (low + high) / 2.0
        };
        let moved = (next - log).abs();
        log = next;
        if moved < TOLERANCE {
            break;
        }
    }
    Ok(Fit {
        temperature: near.temperature * log.exp(),
        cross_entropy: cross_entropy_at(&z, (-log).exp() / near.temperature)?,
    })
}

fn fit(
    logits: &Tensor,
    labels: &Tensor,
    near: Option<f64>,
    tolerance: f64,
) -> Result<Fit, TipError> {
    let z = margins(logits, labels)?;
    let scale = if z.numel() == 0 {
        0.0
    } else {
        z.f_abs()?.f_max()?.f_double_value(&[])?
    };
    if !(scale.is_finite() && scale > 0.0) {
        return Ok(Fit {
            temperature: 1.0,
            cross_entropy: cross_entropy_at(&z, 1.0)?,
        });
    }
    let examples = row_count(&z)? as f64;
    let all_right = z.f_max()?.f_double_value(&[])? <= 0.0;
    let smoothing = if all_right {
        1.0 / (examples + 1.0)
    } else {
        0.0
    };
    let pull = smoothing * z.f_mean(Kind::Double)?.f_double_value(&[])?;

    // Inverse temperatures; beyond these bounds probabilities are uniform or
    // one-hot to the last digit that matters.
    let (mut low, mut high) = (1e-3 / scale, 1e4 / scale);
    let mut inverse = near.map_or(10.0 / scale, |near| (1.0 / near).clamp(low, high));
    for _ in 0..STEPS {
        let (slope, curve) = derivatives(&z, inverse)?;
        let slope = slope - pull;
        if slope > 0.0 {
            high = inverse;
        } else {
            low = inverse;
        }
        let newton = inverse - slope / curve;
        let next = if newton > low && newton < high {
            newton
        } else {
            (low * high).sqrt()
        };
        let moved = (next / inverse - 1.0).abs();
        inverse = next;
        if moved < tolerance {
            break;
        }
    }
    Ok(Fit {
        temperature: 1.0 / inverse,
        cross_entropy: cross_entropy_at(&z, inverse)?,
    })
}

/// Mean cross-entropy of softmax(logits / temperature), nats; 0 if there is
/// no example.
///
/// # Errors
/// Torch's.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, temperature: f64) -> Result<f64, TipError> {
    cross_entropy_at(&margins(logits, labels)?, 1.0 / temperature)
}

/// Logits less the true class's, f64 [Q, N].
fn margins(logits: &Tensor, labels: &Tensor) -> Result<Tensor, TipError> {
    let logits = logits.f_to_kind(Kind::Double)?;
    let own = logits.f_gather(1, &labels.f_unsqueeze(1)?, false)?;
    Ok(logits.f_sub(&own)?)
}

fn cross_entropy_at(z: &Tensor, inverse: f64) -> Result<f64, TipError> {
    if z.numel() == 0 {
        return Ok(0.0);
    }
    let each = z
        .f_mul_scalar(inverse)?
        .f_logsumexp([1i64].as_slice(), false)?;
    Ok(each.f_mean(Kind::Double)?.f_double_value(&[])?)
}

/// First and second derivative of the cross-entropy by the inverse temperature.
fn derivatives(z: &Tensor, inverse: f64) -> Result<(f64, f64), TipError> {
    let p = z.f_mul_scalar(inverse)?.f_softmax(1, Kind::Double)?;
    let pz = p.f_mul(z)?;
    let over = Some([1i64].as_slice());
    let first = pz.f_sum_dim_intlist(over, false, Kind::Double)?;
    let second = pz.f_mul(z)?.f_sum_dim_intlist(over, false, Kind::Double)?;
    let variance = second.f_sub(&first.f_square()?)?;
    Ok((
        first.f_mean(Kind::Double)?.f_double_value(&[])?,
        variance
            .f_mean(Kind::Double)?
            .f_double_value(&[])?
            .max(f64::MIN_POSITIVE),
    ))
}
