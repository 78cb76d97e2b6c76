//! A head by labelled examples and text alone: its numbers are chosen, then L,
//! b, K and V computed.

use super::{
    error::TipError,
    head::HeadTensors,
    left_out,
    made::Made,
    material::Material,
    methods::by_name,
    request::HeadRequest,
    score::Numbers,
    select::{self, Choice, Chosen},
    spec::{HeadSpec, Method},
    stack::Stacked,
    unseen::UnseenAnswers,
    watch::Watch,
};

/// The head of checked material, by its labelled examples and text alone.
pub(super) fn supervised(
    material: &Material,
    request: &HeadRequest,
    watch: &Watch<'_>,
) -> Result<Made, TipError> {
    let _no_grad = tch::no_grad_guard();
    match select::choose(material, request, watch)? {
        Choice::Stack(stacked) => of_stack(material, request, *stacked),
        Choice::Method(chosen) => of_method(material, request, chosen, watch),
    }
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
