//! Whether a head can overflow: whether some unit vector gets a logit that is
//! not finite.

use tch::{Kind, TchError, Tensor};

use super::CatalogError;
use tip_adapter::head::{HeadTensors, Values};
use tip_spec::{HeadSpec, KeyDtype};

/// Largest logit that a head may reach: the rest of f32's range (to 3.4e38) is
/// for rounding. Not less: without text, α is found to undo affinities as small
/// as e^−β, and may be huge.
const MAX_LOGIT: f64 = 1e37;

/// Largest value of a feature that is being standardised.
const MAX_STRETCH: f64 = 1e15;

/// Refuses a head that may overflow. Of
/// `f·Lᵀ + b + exp(−β(1 − f·Kᵀ))·V` with unit f, no logit is larger than
/// `max‖L_n‖ + max|b_n| + M·max|V|·exp(β·max(‖K_m‖ − 1, 0))`.
///
/// # Errors
/// The bound, if it is too large or not a number.
pub(super) fn check_reach(spec: &HeadSpec, tensors: &HeadTensors) -> Result<(), CatalogError> {
    let reach = reach(spec, tensors).map_err(CatalogError::internal)?;
    if reach <= MAX_LOGIT {
        return Ok(());
    }
    Err(CatalogError::invalid(
        "head",
        format!("its logits may reach {reach:e}, over {MAX_LOGIT:e}: it could answer NaN"),
    ))
}

fn reach(spec: &HeadSpec, tensors: &HeadTensors) -> Result<f64, TchError> {
    let mut linear = largest_row(tensors.linear.as_ref())?;
    if let Some(part) = &tensors.standardised {
        // Squared and summed before they are unit again.
        let (shift, scale) = (
            largest(Some(&part.by.shift))?,
            largest(Some(&part.by.scale))?,
        );
        let stretched = (1.0 + shift) * scale;
        if stretched.is_nan() || stretched > MAX_STRETCH {
            return Ok(f64::INFINITY);
        }
        linear += largest_row(part.linear.as_ref())?;
    }
    let bias = largest(tensors.bias.as_ref())?;
    let cache = match &tensors.cache {
        Some((keys, values)) if keys.numel() > 0 => {
            let value = match values {
                Values::OneHot { weight, .. } => largest(Some(weight))?,
                Values::Dense(values) => largest(Some(values))?,
            };
            let count = keys.size().first().copied().unwrap_or(0) as f64;
            let norm = largest_row(Some(keys))? * (1.0 + rounding(spec.key_dtype));
            count * value * (spec.beta * (norm - 1.0).max(0.0)).exp()
        }
        _ => 0.0,
    };
    Ok(linear + bias + cache)
}

/// By how much of itself the length of a key grows when it is stored.
fn rounding(dtype: KeyDtype) -> f64 {
    match dtype {
        KeyDtype::F32 => 2_f64.powi(-22),
        KeyDtype::F16 => 2_f64.powi(-11),
        KeyDtype::Bf16 => 2_f64.powi(-8),
    }
}

/// The largest magnitude; NaN if any value is NaN.
fn largest(tensor: Option<&Tensor>) -> Result<f64, TchError> {
    match tensor {
        Some(tensor) if tensor.numel() > 0 => {
            // Not by its magnitudes, which would be a copy of it. Both are NaN
            // if any value is.
            let low = tensor.f_min()?.f_double_value(&[])?;
            let high = tensor.f_max()?.f_double_value(&[])?;
            Ok(if low.is_nan() {
                low
            } else {
                high.abs().max(low.abs())
            })
        }
        _ => Ok(0.0),
    }
}

/// The largest length of a row, which f32 need not hold.
fn largest_row(rows: Option<&Tensor>) -> Result<f64, TchError> {
    let Some(rows) = rows.filter(|rows| rows.numel() > 0) else {
        return Ok(0.0);
    };
    // In f64 slice by slice: the whole would take twice its memory again.
    let mut most = 0_f64;
    for chunk in rows.f_split(4096, 0)? {
        let norms = chunk
            .f_to_kind(Kind::Double)?
            .f_norm_scalaropt_dim(2.0, [1], false)?;
        let norm = norms.f_max()?.f_double_value(&[])?;
        if norm.is_nan() {
            return Ok(norm);
        }
        most = most.max(norm);
    }
    Ok(most)
}

#[cfg(test)]
mod tests {
    use tip_spec::{ClassBalance, Method, Selection, SelectionSource};

    use super::*;

    fn spec(beta: f64, key_dtype: KeyDtype) -> HeadSpec {
        HeadSpec {
            method: Method::TipAdapter,
            alpha: 1.0,
            beta,
            lambda: 0.0,
            logit_scale: 100.0,
            class_balance: ClassBalance::Sum,
            temperature: 1.0,
            key_dtype,
            standardised: None,
            selection: Selection {
                source: SelectionSource::Given,
                example_count: 0,
                score: "none".to_owned(),
                grid: "none".to_owned(),
                candidates: Vec::new(),
                reason: "given".to_owned(),
            },
            unseen: None,
            unlabelled: None,
        }
    }

    fn head(linear: f32, key: f32, weight: f32) -> HeadTensors {
        HeadTensors {
            classes: 2,
            linear: Some(Tensor::from_slice(&[linear, 0.0, 0.0, -linear]).view([2, 2])),
            bias: None,
            standardised: None,
            cache: Some((
                Tensor::from_slice(&[key, 0.0, 0.0, key]).view([2, 2]),
                Values::OneHot {
                    labels: Tensor::from_slice(&[0_i64, 1]),
                    weight: Tensor::from_slice(&[weight, weight]),
                },
            )),
        }
    }

    #[test]
    fn heads_that_can_overflow_are_refused() {
        let good = [
            (head(100.0, 1.0, 1e6), spec(1e6, KeyDtype::F32)),
            (head(100.0, 1.0, 1.0), spec(1e3, KeyDtype::Bf16)),
            // A trained key may be longer than one.
            (head(100.0, 2.0, 1.0), spec(5.5, KeyDtype::F32)),
        ];
        for (head, spec) in &good {
            assert!(check_reach(spec, head).is_ok(), "{spec:?}");
        }
        let bad = [
            (head(3e38, 1.0, 1.0), spec(5.5, KeyDtype::F32)),
            (head(f32::NAN, 1.0, 1.0), spec(5.5, KeyDtype::F32)),
            (head(f32::INFINITY, 1.0, 1.0), spec(5.5, KeyDtype::F32)),
            (head(100.0, 1.0, 3e38), spec(5.5, KeyDtype::F32)),
            (head(100.0, 50.0, 1.0), spec(5.5, KeyDtype::F32)),
        ];
        for (head, spec) in &bad {
            assert!(check_reach(spec, head).is_err(), "{spec:?}");
        }
    }
}
