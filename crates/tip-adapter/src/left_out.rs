//! What a version's head says of its own examples when it has not seen them.
//!
//! The examples are left out in the rounds of
//! [`HoldOut::one_of_each_out`]: the j-th shot of every class at once, copies
//! together and scored once. Every method has a closed form for it.

use tch::Tensor;

use super::{
    calibrate::plus_text,
    error::TipError,
    formula::plain_logits,
    hold_out::HoldOut,
    made::Made,
    material::Material,
    methods::by_name,
    score::Numbers,
    spec::{HeadSpec, Method, UnseenScores},
    stack, unseen,
    watch::Watch,
};

/// Left-out examples and what was said of them.
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

/// Leaves a version's examples out of its head; none where too few classes have
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

/// How a head scores its validation examples, or its own examples left out.
pub(super) fn unseen_scores(
    material: &Material,
    made: &Made,
    watch: &Watch<'_>,
) -> Result<Option<UnseenScores>, TipError> {
    if let Some((features, labels)) = material.validation() {
        let logits = plain_logits(&made.spec, &made.tensors, features)?;
        return unseen::of_logits(&logits.f_div_scalar(made.spec.temperature)?, labels);
    }
    match left_out(material, &made.spec, watch)? {
        Some(left_out) => unseen::of_logits(&left_out.logits, &left_out.labels),
        None => Ok(None),
    }
}
