//! From a cache's contents to a head.

use tch::{Kind, Tensor};

use super::{
    error::TipError,
    head::HeadTensors,
    left_out,
    material::Material,
    methods::by_name,
    score::Numbers,
    select::{self, Choice, Chosen},
    spec::{HeadSpec, Method},
    stack::Stacked,
    unlabelled,
    unseen::UnseenAnswers,
    watch::Watch,
};
pub use super::{
    made::Made,
    request::{HeadRequest, Pool},
    watch::Progress,
};

/// Makes a head: chooses what the request leaves open, then computes L, b, K
/// and V. `watch` is called often, at the latest between two large products or
/// solves; the work ends with [`TipError::Cancelled`] once it answers `false`.
///
/// What is chosen is chosen on the validation examples where there are any,
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
    make_checked(material, request, &Watch(watch))
}

/// [`make`] of material that was checked.
pub(super) fn make_checked(
    material: &Material,
    request: &HeadRequest,
    watch: &Watch<'_>,
) -> Result<Made, TipError> {
    let _no_grad = tch::no_grad_guard();
    let made = match select::choose(material, request, watch)? {
        Choice::Stack(stacked) => of_stack(material, request, *stacked)?,
        Choice::Method(chosen) => of_method(material, request, chosen, watch)?,
    };
    unlabelled::learn(material, made, request, watch)
}

/// One method with the numbers chosen for it.
fn of_method(
    material: &Material,
    request: &HeadRequest,
    chosen: Chosen,
    watch: &Watch<'_>,
) -> Result<Made, TipError> {
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
            unlabelled: None,
        },
        tensors,
        unseen: None,
    };
    made.unseen = left_out::unseen_answers(material, &made, watch)?;
    made.spec.unseen = match &made.unseen {
        Some(answers) => answers.scores()?,
        None => None,
    };
    Ok(made)
}

/// A stack's logits are at temperature 1 already.
fn of_stack(
    material: &Material,
    request: &HeadRequest,
    stacked: Stacked,
) -> Result<Made, TipError> {
    let scores = stacked.unseen.as_ref().map(UnseenAnswers::scores);
    Ok(Made {
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
            unseen: scores.transpose()?.flatten(),
            unlabelled: None,
        },
        tensors: stacked.tensors,
        unseen: stacked.unseen,
    })
}

/// L, b, K and V of a method with its numbers (tip-adapter.md, "one head").
fn tensors(
    material: &Material,
    request: &HeadRequest,
    numbers: &Numbers,
) -> Result<HeadTensors, TipError> {
    let text = material
        .text
        .as_ref()
        .map(|w| w.f_mul_scalar(material.logit_scale))
        .transpose()?;
    let mut head = HeadTensors {
        classes: material.classes,
        linear: text,
        bias: None,
        cache: None,
        standardised: None,
    };
    by_name(numbers.method)?.add_to(&mut head, material, numbers, request.class_balance)?;
    Ok(head)
}

/// text + added, summed in f64, as f32.
pub(super) fn plus(text: Option<Tensor>, added: &Tensor) -> Result<Tensor, TipError> {
    let sum = match text {
        Some(text) => text.f_to_kind(Kind::Double)?.f_add(added)?,
        None => added.shallow_clone(),
    };
    Ok(sum.f_to_kind(Kind::Float)?.f_contiguous()?)
}
