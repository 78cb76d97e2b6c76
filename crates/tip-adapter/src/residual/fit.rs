//! Multinomial logistic regression of a residual, by L-BFGS (Nocedal and
//! Wright, "Numerical Optimization", algorithm 7.4) with halved steps.

use std::collections::VecDeque;

use tch::{Kind, Tensor};

use crate::dimensions::column_count;
use crate::{error::TipError, score::right};

/// L-BFGS steps after which a fit stops, whether or not it has converged.
const STEPS: usize = 60;

/// Pairs of steps and gradients that the curvature is estimated from.
const MEMORY: usize = 8;

/// Halvings of a step, at most.
const HALVINGS: usize = 25;

/// Share of the decrease that a step's slope promises, to be kept at least.
const ARMIJO: f64 = 1e-4;

/// Relative decrease below which the minimum counts as reached.
const TOLERANCE: f64 = 1e-9;

/// Steps of at most this many products are computed in f64.
const DOUBLE_PRODUCTS: i64 = 1 << 27;

/// The examples that a residual is fitted to.
pub(super) struct Problem {
    /// What the residual sees of the examples, [Q, D].
    features: Tensor,
    /// The head's logits, which the residual adds to, [Q, N].
    offsets: Tensor,
    /// The true class of each, i64 [Q].
    labels: Tensor,
    one_hot: Tensor,
    /// S, the mean of ‖f′ − m‖², by which the penalty is scaled.
    scale: f64,
    kind: Kind,
}

/// The residual where a fit stopped, at a minimum or after its last step.
pub(super) struct Solved {
    /// Δ, the residual's weights, f64 [N, D].
    pub delta: Tensor,
    /// Mean cross-entropy of its own examples.
    pub cross_entropy: f64,
    /// Share of them classified rightly.
    pub accuracy: f64,
}

impl Problem {
    /// Of centred features [Q, D], offsets [Q, N] and labels [Q], Q at least 1.
    pub fn new(features: &Tensor, offsets: &Tensor, labels: &Tensor) -> Result<Self, TipError> {
        let classes = column_count(offsets)?;
        let products = (features.numel() as i64).saturating_mul(classes);
        let kind = if products <= DOUBLE_PRODUCTS {
            Kind::Double
        } else {
            Kind::Float
        };
        let squares =
            features
                .f_square()?
                .f_sum_dim_intlist(Some([1i64].as_slice()), false, Kind::Double)?;
        Ok(Self {
            scale: squares.f_mean(Kind::Double)?.f_double_value(&[])?,
            features: features.f_to_kind(kind)?,
            offsets: offsets.f_to_kind(kind)?,
            one_hot: labels.f_one_hot(classes)?.f_to_kind(kind)?,
            labels: labels.shallow_clone(),
            kind,
        })
    }

    fn rows(&self) -> f64 {
        self.labels.numel().max(1) as f64
    }

    fn logits(&self, delta: &Tensor) -> Result<Tensor, TipError> {
        Ok(self
            .offsets
            .f_add(&self.features.f_matmul(&delta.f_tr()?)?)?)
    }

    /// Value and gradient at Δ.
    fn at(&self, delta: &Tensor, strength: f64) -> Result<(f64, Tensor), TipError> {
        let pull = strength * self.scale / self.rows();
        let logits = self.logits(delta)?;
        let norms = logits.f_logsumexp([1i64].as_slice(), true)?;
        let own = logits.f_mul(&self.one_hot)?;
        // A class that is out of the question has a logit of −10⁶.
        let loss = norms.f_sum(Kind::Double)?.f_double_value(&[])?
            - own.f_sum(Kind::Double)?.f_double_value(&[])?;
        let off = logits.f_sub(&norms)?.f_exp_()?.f_sub_(&self.one_hot)?;
        let gradient = off
            .f_tr()?
            .f_matmul(&self.features)?
            .f_div_scalar_(self.rows())?
            .f_add(&delta.f_mul_scalar(pull)?)?;
        let square = dot(delta, delta)?;
        Ok((loss / self.rows() + 0.5 * pull * square, gradient))
    }

    /// The minimum for a strength, from Δ = 0 or where another ended.
    pub fn solve(&self, strength: f64, start: Option<&Tensor>) -> Result<Solved, TipError> {
        let classes = column_count(&self.offsets)?;
        let width = column_count(&self.features)?;
        let mut delta = match start {
            Some(start) => start.f_to_kind(self.kind)?,
            None => Tensor::f_zeros([classes, width], (self.kind, tch::Device::Cpu))?,
        };
        let (mut value, mut gradient) = self.at(&delta, strength)?;
        let mut pairs: VecDeque<(Tensor, Tensor, f64)> = VecDeque::new();
        for _ in 0..STEPS {
            let direction = two_loops(&gradient, &pairs)?.f_neg()?;
            let slope = dot(&direction, &gradient)?;
            if slope >= 0.0 {
                break;
            }
            // The first step knows no curvature.
            let mut length = if pairs.is_empty() {
                1.0 / dot(&gradient, &gradient)?.sqrt().max(1.0)
            } else {
                1.0
            };
            let mut found = None;
            for _ in 0..HALVINGS {
                let next = delta.f_add(&direction.f_mul_scalar(length)?)?;
                let (new, next_gradient) = self.at(&next, strength)?;
                if new.is_finite() && new <= value + ARMIJO * length * slope {
                    found = Some((next, new, next_gradient));
                    break;
                }
                length /= 2.0;
            }
            let Some((next, new, next_gradient)) = found else {
                break;
            };
            let (moved, bent) = (next.f_sub(&delta)?, next_gradient.f_sub(&gradient)?);
            let curve = dot(&moved, &bent)?;
            if curve > 0.0 {
                pairs.push_back((moved, bent, 1.0 / curve));
                if pairs.len() > MEMORY {
                    pairs.pop_front();
                }
            }
            let done = (value - new) <= TOLERANCE * value.abs();
            (delta, value, gradient) = (next, new, next_gradient);
            if done {
                break;
            }
        }
        let logits = self.logits(&delta)?;
        let square = dot(&delta, &delta)?;
        Ok(Solved {
            cross_entropy: value - 0.5 * strength * self.scale / self.rows() * square,
            accuracy: right(&logits, &self.labels)? as f64 / self.rows(),
            delta: delta.f_to_kind(Kind::Double)?,
        })
    }
}

/// The inverse curvature, as the last steps show it, times the gradient.
fn two_loops(
    gradient: &Tensor,
    pairs: &VecDeque<(Tensor, Tensor, f64)>,
) -> Result<Tensor, TipError> {
    let mut q = gradient.copy();
    let mut factors = Vec::with_capacity(pairs.len());
    for (moved, bent, inverse) in pairs.iter().rev() {
        let factor = inverse * dot(moved, &q)?;
        q = q.f_sub(&bent.f_mul_scalar(factor)?)?;
        factors.push(factor);
    }
    if let Some((moved, bent, _)) = pairs.back() {
        q = q.f_mul_scalar(dot(moved, bent)? / dot(bent, bent)?)?;
    }
    for ((moved, bent, inverse), factor) in pairs.iter().zip(factors.iter().rev()) {
        let back = inverse * dot(bent, &q)?;
        q = q.f_add(&moved.f_mul_scalar(factor - back)?)?;
    }
    Ok(q)
}

fn dot(a: &Tensor, b: &Tensor) -> Result<f64, TipError> {
    Ok(a.f_mul(b)?.f_sum(Kind::Double)?.f_double_value(&[])?)
}
