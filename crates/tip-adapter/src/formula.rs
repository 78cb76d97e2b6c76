//! The head's formula, term by term: slow, in f64, and clear. Resident heads
//! are tested against it.

use tch::{Kind, Tensor};

use super::{
    dimensions::row_count,
    error::TipError,
    head::{HeadTensors, Values},
    spec::HeadSpec,
};

/// `f·Lᵀ + b + f′·L′ᵀ + exp(−β(1 − f′·Kᵀ))·V`, f64 [B, N], for features [B, D];
/// f′ is f if the head has no standardised part.
///
/// # Errors
/// Shapes that do not match, as torch reports them.
pub fn plain_logits(
    spec: &HeadSpec,
    tensors: &HeadTensors,
    features: &Tensor,
) -> Result<Tensor, TipError> {
    let f = features.f_to_kind(Kind::Double)?;
    let classes = i64::try_from(tensors.classes).unwrap_or(i64::MAX);
    let rows = row_count(&f)?;
    let mut logits = Tensor::f_zeros([rows, classes], (Kind::Double, f.device()))?;
    if let Some(linear) = &tensors.linear {
        logits = logits.f_add(&f.f_matmul(&linear.f_to_kind(Kind::Double)?.f_tr()?)?)?;
    }
    if let Some(bias) = &tensors.bias {
        logits = logits.f_add(&bias.f_to_kind(Kind::Double)?)?;
    }
    let seen = match &tensors.standardised {
        None => f.shallow_clone(),
        Some(part) => part.by.apply(&f)?,
    };
    if let Some(part) = &tensors.standardised
        && let Some(linear) = &part.linear
    {
        logits = logits.f_add(&seen.f_matmul(&linear.f_to_kind(Kind::Double)?.f_tr()?)?)?;
    }
    if let Some((keys, values)) = &tensors.cache {
        let cosines = seen.f_matmul(&keys.f_to_kind(Kind::Double)?.f_tr()?)?;
        let affinity = cosines
            .f_sub_scalar(1.0)?
            .f_mul_scalar(spec.beta)?
            .f_exp()?;
        let values = match values {
            Values::OneHot { labels, weight } => {
                let one_hot = labels.f_one_hot(classes)?.f_to_kind(Kind::Double)?;
                one_hot.f_mul(&weight.f_to_kind(Kind::Double)?)?
            }
            Values::Dense(values) => values.f_to_kind(Kind::Double)?,
        };
        logits = logits.f_add(&affinity.f_matmul(&values)?)?;
    }
    Ok(logits)
}
