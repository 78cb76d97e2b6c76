//! The text classifier has to earn its weight.

use tch::Kind;

use crate::{
    error::TipError,
    material::Material,
    temperature::{Fit, fit_temperature},
};

/// Nats by which text must lower the log-likelihood of all labels: the 95th
/// percentile of χ² with one degree of freedom (the temperature), halved.
const EARNED: f64 = 1.92;

/// Most examples that are used, evenly spread.
const EXAMPLES: i64 = 16_384;

/// What text has earned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Earned {
    /// Its temperature (of `f·Wᵀ`, without the bundle's scale).
    pub fit: Fit,
    /// `1 − 1.92/gain`, its weight if no other evidence weighs it: little if it has
    /// hardly earned any, whose gain is mostly that its temperature was fitted.
    pub weight: f64,
}

/// Text's temperature and weight where it tells the examples better than chance;
/// text has seen none of them, so every shot counts.
pub(super) fn earned(material: &Material) -> Result<Option<Earned>, TipError> {
    let Some(text) = &material.text else {
        return Ok(None);
    };
    let (features, labels) = match material.validation() {
        Some((features, labels)) => (features, labels),
        None => (&material.keys, &material.labels),
    };
    let count = labels.numel() as i64;
    let step = ((count + EXAMPLES - 1) / EXAMPLES).max(1);
    let features = features
        .f_slice(0, 0, count, step)?
        .f_to_kind(Kind::Double)?;
    let labels = labels.f_slice(0, 0, count, step)?;
    let logits = features.f_matmul(&text.f_to_kind(Kind::Double)?.f_tr()?)?;
    let fit = fit_temperature(&logits, &labels)?;
    let gain = (material.classes as f64).ln() - fit.cross_entropy;
    let weight = 1.0 - EARNED / (gain * labels.numel() as f64);
    Ok((gain > 0.0 && weight > 0.0).then_some(Earned { fit, weight }))
}
