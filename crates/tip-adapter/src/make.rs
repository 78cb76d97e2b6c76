//! From a cache's contents to a head.

use tch::{Kind, Tensor};

use super::{
    class_mean,
    error::TipError,
    gda,
    head::{HeadTensors, Values},
    left_out,
    material::Material,
    proker,
    score::Numbers,
    select::{self, Choice, Chosen},
    spec::{HeadSpec, Method},
    stack::Stacked,
    tip_adapter::class_factors,
    watch::Watch,
};
pub use super::{made::Made, request::HeadRequest, watch::Progress};

/// Makes a head: chooses what the request leaves open, then computes L, b, K
/// and V. `watch` is called often, at the latest between two large products or
/// solves; the work ends with [`TipError::Cancelled`] once it answers `false`.
///
/// What is chosen is chosen on the validation examples if there are any,
/// else by leave-one-out over the keys, else (one shot a class) it keeps
/// documented defaults. [`HeadSpec::selection`] says which.
///
/// # Errors
/// Material or a request that cannot be, see [`TipError`].
pub fn make(
    material: &Material,
    request: &HeadRequest,
    watch: &dyn Fn(Progress) -> bool,
) -> Result<Made, TipError> {
    material.check()?;
    request.check()?;
    let watch = Watch(watch);
    let _no_grad = tch::no_grad_guard();
    let chosen = match select::choose(material, request, &watch)? {
        Choice::Stack(stacked) => return Ok(of_stack(material, request, *stacked)),
        Choice::Method(chosen) => chosen,
    };
    let Chosen {
        numbers,
        temperature,
        selection,
    } = chosen;
    watch.step(numbers.method, 0, 1)?;
    let tensors = tensors(material, request, &numbers)?;
    let mut made = Made {
        spec: HeadSpec {
            method: numbers.method,
            alpha: numbers.alpha,
            beta: numbers.beta,
            lambda: numbers.lambda,
            logit_scale: material.logit_scale,
            class_balance: request.class_balance,
            temperature,
            key_dtype: request.key_dtype,
            standardised: None,
            selection,
            unseen: None,
        },
        tensors,
    };
    made.spec.unseen = left_out::unseen_scores(material, &made, &watch)?;
    Ok(made)
}

/// A stack's logits are at temperature 1 already.
fn of_stack(material: &Material, request: &HeadRequest, stacked: Stacked) -> Made {
    Made {
        spec: HeadSpec {
            method: Method::Stack,
            alpha: 0.0,
            beta: stacked.beta,
            lambda: stacked.lambda,
            logit_scale: material.logit_scale,
            class_balance: request.class_balance,
            temperature: 1.0,
            key_dtype: request.key_dtype,
            standardised: stacked.standardised,
            selection: stacked.selection,
            unseen: stacked.unseen,
        },
        tensors: stacked.tensors,
    }
}

/// L, b, K and V of a method with its numbers (tip-adapter.md, "one head").
fn tensors(
    material: &Material,
    request: &HeadRequest,
    numbers: &Numbers,
) -> Result<HeadTensors, TipError> {
    let scale = material.logit_scale;
    let text = material
        .text
        .as_ref()
        .map(|w| w.f_mul_scalar(scale))
        .transpose()?;
    let mut head = HeadTensors {
        classes: material.classes,
        linear: text,
        bias: None,
        cache: None,
        standardised: None,
    };
    match numbers.method {
        Method::ZeroShot => {
            if head.linear.is_none() {
                return Err(TipError::NeedsText(Method::ZeroShot));
            }
        }
        Method::TipAdapter => {
            let weight = class_factors(material, request.class_balance)?;
            let values = Values::OneHot {
                labels: material.labels.f_contiguous()?,
                weight: weight.f_mul_scalar(numbers.alpha)?,
            };
            head.cache = Some((material.keys.f_contiguous()?, values));
        }
        Method::Gda => {
            let gaussian = gda::fit(material, None)?;
            let weight = gaussian.weight.f_mul_scalar(numbers.alpha)?;
            head.linear = Some(plus(head.linear, &weight)?);
            head.bias = Some(
                gaussian
                    .bias
                    .f_mul_scalar(numbers.alpha)?
                    .f_to_kind(Kind::Float)?,
            );
        }
        Method::Proker => {
            let system = proker::system(material)?;
            let values = system
                .factorise(numbers.beta, numbers.lambda)?
                .coefficients()?
                .f_mul_scalar(scale * numbers.alpha * numbers.lambda)?
                .f_to_kind(Kind::Float)?
                .f_contiguous()?;
            head.cache = Some((material.keys.f_contiguous()?, Values::Dense(values)));
        }
        Method::ClassMean => {
            let means = class_mean::class_means(material)?
                .f_to_kind(Kind::Double)?
                .f_mul_scalar(scale * numbers.alpha)?;
            head.linear = Some(plus(head.linear, &means)?);
        }
        Method::TipAdapterF => return Err(TipError::NotTrainingFree(Method::TipAdapterF)),
        Method::Stack => return Err(TipError::NotByName(Method::Stack)),
    }
    Ok(head)
}

/// text + added, summed in f64, as f32.
fn plus(text: Option<Tensor>, added: &Tensor) -> Result<Tensor, TipError> {
    let sum = match text {
        Some(text) => text.f_to_kind(Kind::Double)?.f_add(added)?,
        None => added.shallow_clone(),
    };
    Ok(sum.f_to_kind(Kind::Float)?.f_contiguous()?)
}
