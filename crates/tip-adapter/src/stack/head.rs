//! A stack as one head: linear parts add up, and kernel ridge regression
//! brings the keys.

use tch::{Kind, Tensor};

use super::space::{Fit, neutral};
use crate::{
    error::TipError,
    gda::{self, NEVER},
    head::{HeadTensors, StandardisedPart, Values},
    material::Material,
    spec::Method,
    told::Told,
};

/// L, b, L′, K and V of a fitted stack.
pub(super) fn tensors(material: &Material, fit: &Fit) -> Result<HeadTensors, TipError> {
    let space = &fit.space;
    let (mut plain, mut inner): (Option<Tensor>, Option<Tensor>) = (None, None);
    let (mut bias, mut cache) = (None, None);
    for part in &fit.parts {
        let factor = part.factor();
        match part.method {
            Method::ZeroShot => {
                if let Some(text) = &material.text {
                    let text = text.f_to_kind(Kind::Double)?.f_mul_scalar(factor)?;
                    plain = Some(plus(plain, &text)?);
                }
            }
            Method::Gda => {
                let gaussian = gda::fit(material, space.by.as_ref(), space.ridges.gda)?;
                let weight = gaussian.weight.f_mul_scalar(factor)?;
                if space.by.is_some() {
                    inner = Some(plus(inner, &weight)?);
                } else {
                    plain = Some(plus(plain, &weight)?);
                }
                bias = Some(gaussian.bias.f_mul_scalar(factor)?);
            }
            _ => {
                if let Some(ridge) = &space.ridge {
                    let values = neutral(material, &ridge.coefficients()?)?
                        .f_mul_scalar(factor)?
                        .f_to_kind(Kind::Float)?
                        .f_contiguous()?;
                    cache = Some((space.keys.shallow_clone(), Values::Dense(values)));
                }
            }
        }
    }
    if Told::of(material)?.columns.is_some() {
        // Without text, a class without examples can never be told.
        let absent = material.counts()?.f_eq(0)?;
        let bias_of = match bias {
            Some(bias) => bias,
            None => Tensor::f_zeros([material.n()], (Kind::Double, tch::Device::Cpu))?,
        };
        bias = Some(bias_of.f_masked_fill(&absent, NEVER)?);
    }
    let float = |t: Option<Tensor>| {
        t.map(|t| t.f_to_kind(Kind::Float)?.f_contiguous())
            .transpose()
    };
    Ok(HeadTensors {
        classes: material.classes,
        linear: float(plain)?,
        bias: float(bias)?,
        cache,
        standardised: match &space.by {
            Some(by) => Some(StandardisedPart {
                by: by.shallow_clone(),
                linear: float(inner)?,
            }),
            None => None,
        },
    })
}

fn plus(sum: Option<Tensor>, added: &Tensor) -> Result<Tensor, TipError> {
    Ok(match sum {
        Some(sum) => sum.f_add(added)?,
        None => added.shallow_clone(),
    })
}
