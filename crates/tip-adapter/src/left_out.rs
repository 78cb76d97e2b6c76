//! A version's head on its own examples, each left out.
//!
//! The examples are left out in the rounds of
//! [`HoldOut::one_of_each_out`]: the j-th shot of every class at once, copies
//! together and scored once. Every method has a closed form for it.

use tch::Tensor;

use super::{
    error::TipError,
    formula::plain_logits,
    head::HeadTensors,
    hold_out::HoldOut,
    made::Made,
    material::Material,
    methods::{by_name, calibrate::plus_text},
    score::Numbers,
    spec::{HeadSpec, Method},
    stack,
    unseen::UnseenAnswers,
    watch::Watch,
};

/// Left-out examples and their logits.
#[derive(Debug)]
pub struct LeftOut {
    /// Logits over the version's temperature, f64 [Q, N]: `softmax` of a row is
    /// the example's left-out probabilities.
    pub logits: Tensor,
    /// The class that each is labelled with, i64 [Q].
    pub labels: Tensor,
    /// The key that each is, i64 [Q].
    pub keys: Tensor,
    /// The method that was left out: [`Method::Stack`] for a fine-tuned head,
    /// which has no closed form.
    pub method: Method,
}

/// Leaves a version's examples out of its head; none if too few classes have
/// a second shot, or the method cannot be scored.
///
/// # Errors
/// Torch's; [`TipError::Cancelled`].
pub(super) fn left_out(
    material: &Material,
    spec: &HeadSpec,
    watch: &Watch<'_>,
) -> Result<Option<LeftOut>, TipError> {
    let Some(held) = HoldOut::one_of_each_out(material)? else {
        return Ok(None);
    };
    let method = match spec.method {
        Method::TipAdapterF => Method::Stack,
        method => method,
    };
    watch.step(method, 0, 1)?;
    let numbers = Numbers {
        method,
        alpha: spec.alpha,
        beta: spec.beta,
        lambda: spec.lambda,
    };
    let logits = match method {
        Method::Stack | Method::TipAdapterF => {
            stack::held_logits(material, spec.standardised, &held, watch)?
        }
        _ => match by_name(method)?.held_term(material, &numbers, spec.class_balance, &held)? {
            Some(term) => {
                Some(plus_text(material, &held.features, term)?.f_div_scalar(spec.temperature)?)
            }
            None => None,
        },
    };
    Ok(logits.map(|logits| LeftOut {
        logits,
        labels: held.labels,
        keys: held.key_index,
        method,
    }))
}

/// A head's answers for its validation examples, or for its own examples left
/// out.
pub(super) fn unseen_answers(
    material: &Material,
    made: &Made,
    watch: &Watch<'_>,
) -> Result<Option<UnseenAnswers>, TipError> {
    if let Some((features, labels)) = material.validation() {
        let logits = plain_logits(&made.spec, &made.tensors, features)?;
        let logits = logits.f_div_scalar(made.spec.temperature)?;
        return UnseenAnswers::of(features, labels, &logits).map(Some);
    }
    let Some(left_out) = left_out(material, &made.spec, watch)? else {
        return Ok(None);
    };
    let features = material.keys.f_index_select(0, &left_out.keys)?;
    UnseenAnswers::of(&features, &left_out.labels, &left_out.logits).map(Some)
}

/// `log Σ exp(logits/T)` of features [Q, D] that the head has not seen.
pub(super) fn energies(
    spec: &HeadSpec,
    tensors: &HeadTensors,
    features: &Tensor,
) -> Result<Vec<f64>, TipError> {
    let logits = plain_logits(spec, tensors, features)?.f_div_scalar(spec.temperature)?;
    let energies = logits.f_logsumexp([1i64].as_slice(), false)?;
    Ok(Vec::<f64>::try_from(energies)?)
}
