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
    head::HeadTensors,
    hold_out::HoldOut,
    made::Made,
    material::Material,
    proker,
    score::Numbers,
    spec::{ClassBalance, HeadSpec, Method},
    stack,
    tip_adapter::seen_counts,
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

/// What a head says of its validation examples, or of its own left out.
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
