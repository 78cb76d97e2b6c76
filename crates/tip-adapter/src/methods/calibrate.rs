//! The temperatures of single methods.
//!
//! Where examples are held out, T minimises their cross-entropy, held near the
//! temperature of the logits' own spread with the strength of five examples;
//! if none can be, it is the latter. Left-out logits come from one shot
//! fewer than will serve, which some methods' scale depends on: that is made
//! good.

use tch::{Kind, Tensor};

use super::TrainingFree;
use crate::{
    error::TipError,
    hold_out::HoldOut,
    material::Material,
    score::Numbers,
    spec::{ClassBalance, SelectionSource},
    spread::wrong_class_spread,
    temperature::{Near, fit_held_near, fit_temperature},
};

/// The examples that the spread's temperature counts as.
const STRENGTH: f64 = 5.0;

/// T of a method's held-out logits, f64 [Q, N].
pub(crate) fn by_held(
    method: &dyn TrainingFree,
    material: &Material,
    logits: &Tensor,
    held: &HoldOut,
) -> Result<f64, TipError> {
    // Text has seen none of the examples, and weak text knows no bound.
    if !method.sees_examples() {
        return Ok(fit_temperature(logits, &held.labels)?.temperature);
    }
    let Some(spread) = wrong_class_spread(logits, &held.labels, None)? else {
        return Ok(fit_temperature(logits, &held.labels)?.temperature);
    };
    let near = Near {
        temperature: spread * method.spread_factor(material.text.is_some()),
        strength: STRENGTH,
    };
    let fit = fit_held_near(logits, &held.labels, near)?;
    let fewer = match held.source {
        SelectionSource::LeaveOneOut => method.fewer_shots(material)?,
        _ => 1.0,
    };
    Ok(fit.temperature * fewer)
}

/// T by rounds, for a method whose numbers are searched on other examples:
/// plain leave-one-out leaves the own class one key short of the others, and
/// that alone.
pub(crate) fn by_rounds(
    method: &dyn TrainingFree,
    material: &Material,
    numbers: &Numbers,
    balance: ClassBalance,
) -> Result<Option<f64>, TipError> {
    let held = match HoldOut::validation(material)? {
        Some(held) => Some(held),
        None => HoldOut::one_of_each_out(material)?,
    };
    let Some(held) = held else { return Ok(None) };
    let Some(term) = method.held_term(material, numbers, balance, &held)? else {
        return Ok(None);
    };
    let logits = plus_text(material, &held.features, term)?;
    by_held(method, material, &logits, &held).map(Some)
}

/// The text's logits and a term.
pub(crate) fn plus_text(
    material: &Material,
    f: &Tensor,
    logits: Tensor,
) -> Result<Tensor, TipError> {
    Ok(match &material.text {
        None => logits,
        Some(text) => logits.f_add(
            &f.f_to_kind(Kind::Double)?
                .f_matmul(&text.f_to_kind(Kind::Double)?.f_tr()?)?
                .f_mul_scalar(material.logit_scale)?,
        )?,
    })
}

/// T if nothing can be held out, from the term's spread over the wrong
/// classes, each key without itself where the method can do without it.
///
/// Beside text, whose own temperature the shots tell (it has not seen them): a
/// part of variance v over wrong classes and temperature T lifts the true class
/// by v/T, so the sum's temperature is `(v₁ + v₂)/(v₁/T₁ + v₂/T₂)`.
pub(crate) fn by_spread(
    method: &dyn TrainingFree,
    numbers: &Numbers,
    material: &Material,
    balance: ClassBalance,
) -> Result<f64, TipError> {
    let present = material.counts()?.f_gt(0)?.f_nonzero()?.f_squeeze_dim(1)?;
    let labels = material
        .labels
        .f_searchsorted(&present, false, false, "left", None::<Tensor>)?;
    let text = match &material.text {
        None => None,
        Some(text) => {
            let keys = material.keys.f_to_kind(Kind::Double)?;
            let logits = keys
                .f_matmul(&text.f_to_kind(Kind::Double)?.f_tr()?)?
                .f_mul_scalar(material.logit_scale)?
                .f_index_select(1, &present)?;
            let temperature = fit_temperature(&logits, &labels)?.temperature;
            if !method.sees_examples() {
                return Ok(temperature);
            }
            wrong_class_spread(&logits, &labels, None)?.map(|spread| (spread, temperature))
        }
    };
    let term = method
        .key_term(material, numbers, balance)?
        .f_index_select(1, &present)?;
    let factor = method.spread_factor(false);
    let term = wrong_class_spread(&term, &labels, None)?.map(|spread| (spread, spread * factor));
    let (mut variance, mut lift) = (0.0, 0.0);
    for (spread, temperature) in text.into_iter().chain(term) {
        variance += spread * spread;
        lift += spread * spread / temperature;
    }
    Ok(if lift > 0.0 { variance / lift } else { 1.0 })
}
