//! A version's head on its own examples, each left out.
//!
//! The examples are left out in the rounds of
//! [`HoldOut::one_of_each_out`]: the j-th shot of every class at once, copies
//! together and scored once. Every method has a closed form for it.

use tch::{Kind, Tensor};

use super::{
    calibrate::{cache_logits, plus_text},
    class_mean,
    error::TipError,
    formula::plain_logits,
    gda_left_out,
    hold_out::HoldOut,
    made::Made,
    material::Material,
    proker,
    score::Numbers,
    spec::{ClassBalance, HeadSpec, Method, UnseenScores},
    stack,
    tip_adapter::seen_counts,
    unseen,
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
    let logits = match method {
        Method::Stack | Method::TipAdapterF => {
            stack::held_logits(material, spec.standardised, &held, watch)?
        }
        _ => match cache_term(material, spec, &held)? {
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

/// What a single method adds to the text's logits, f64 [Q, N].
fn cache_term(
    material: &Material,
    spec: &HeadSpec,
    held: &HoldOut,
) -> Result<Option<Tensor>, TipError> {
    let scale = material.logit_scale;
    Ok(match spec.method {
        Method::TipAdapter => Some(tip_adapter(material, spec, held)?),
        Method::Gda => {
            let features = held.features.f_to_kind(Kind::Double)?;
            gda_left_out::held_logits(material, None, &features, held)?
                .map(|term| term.f_mul_scalar(spec.alpha))
                .transpose()?
        }
        Method::Proker => Some(
            proker::system(material)?
                .factorise(spec.beta, spec.lambda)?
                .held_predictions(&held.features, held)?
                .f_mul_scalar(scale * spec.alpha * spec.lambda)?,
        ),
        Method::ClassMean => Some(
            class_mean::held_cosines(material, held)?
                .f_to_kind(Kind::Double)?
                .f_mul_scalar(scale * spec.alpha)?,
        ),
        Method::ZeroShot => Some(Tensor::f_zeros(
            [held.count(), material.n()],
            (Kind::Double, tch::Device::Cpu),
        )?),
        Method::Stack | Method::TipAdapterF => None,
    })
}

/// Sums over a class's keys are brought to the shots that serve.
fn tip_adapter(material: &Material, spec: &HeadSpec, held: &HoldOut) -> Result<Tensor, TipError> {
    let numbers = Numbers {
        method: Method::TipAdapter,
        alpha: spec.alpha,
        beta: spec.beta,
        lambda: 0.0,
    };
    let logits = cache_logits(material, &numbers, spec.class_balance, held)?;
    if spec.class_balance == ClassBalance::Mean {
        return Ok(logits);
    }
    let counts = material.counts()?.f_to_kind(Kind::Double)?;
    let seen = seen_counts(material, held)?.f_clamp_min(1.0)?;
    Ok(logits.f_mul(&counts.f_div(&seen)?)?)
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
