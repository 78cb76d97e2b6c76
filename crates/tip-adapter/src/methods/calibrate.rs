//! The temperatures of single methods: `T` of `text + term`.
//!
//! A part whose variance over the wrong classes is v and whose own temperature
//! is T lifts the true class by v/T, so the sum of text and term has the
//! temperature `(v₁ + v₂)/(v₁/T₁ + v₂/T₂)`. Text has seen none of the shots, so
//! T₁ is fitted on them; T₂ is the spread of the term (√v₂) times a factor of
//! the method. That is the temperature if nothing can be left out.
//!
//! If examples can be held out, T minimises their cross-entropy, held near that
//! temperature with the strength of five examples. Left-out logits come from
//! one shot fewer than will serve. More shots lift the true class no higher,
//! but make the term's noise over the wrong classes smaller, which the keys
//! themselves show: for all classes but its own, a key is a picture that was
//! not learnt from. So T is multiplied by `(v₁ + v₂′)/(v₁ + v₂)`, v₂′ the term's
//! variance with all shots. GDA has left-out logits in closed form that are those of
//! new pictures ([`crate::gda_one_out`]), to which T is fitted as they are.

use tch::{Kind, Tensor};

use super::TrainingFree;
use crate::{
    class_mean::{class_means, held_cosines},
    error::TipError,
    hold_out::HoldOut,
    material::Material,
    score::Numbers,
    spec::{ClassBalance, SelectionSource},
    spread::wrong_class_spread,
    temperature::{Near, fit_held_near, fit_temperature},
    told::Told,
};

/// The examples that the spread's temperature counts as.
pub(super) const STRENGTH: f64 = 5.0;

/// A method with its numbers, whose temperature is wanted.
#[derive(Clone, Copy)]
pub(crate) struct Calibration<'a> {
    pub method: &'a dyn TrainingFree,
    pub material: &'a Material,
    pub numbers: &'a Numbers,
    pub balance: ClassBalance,
}

/// The variance over the wrong classes, and the temperature, of text and term.
#[derive(Default)]
struct Parts {
    text: Option<(f64, f64)>,
    term: Option<(f64, f64)>,
}

impl Parts {
    /// T of the sum; none if both are constant.
    fn temperature(&self) -> Option<f64> {
        let (mut variance, mut lift) = (0.0, 0.0);
        for (v, temperature) in [self.text, self.term].into_iter().flatten() {
            variance += v;
            lift += v / temperature;
        }
        (lift > 0.0).then(|| variance / lift)
    }

    /// What T is multiplied by if the term's variance shrinks to `ratio` of what
    /// it is.
    fn with_all_shots(&self, ratio: f64) -> f64 {
        let text = self.text.map_or(0.0, |(v, _)| v);
        let term = self.term.map_or(0.0, |(v, _)| v);
        let before = text + term;
        if before > 0.0 {
            (text + ratio * term) / before
        } else {
            1.0
        }
    }
}

impl Calibration<'_> {
    /// T of held-out logits, text included, f64 [Q, N].
    pub fn by_held(&self, logits: &Tensor, held: &HoldOut) -> Result<f64, TipError> {
        // Text has seen none of the examples, and weak text knows no bound.
        if !self.method.sees_examples() {
            return Ok(fit_temperature(logits, &held.labels)?.temperature);
        }
        let told = Told::of(self.material)?;
        let labels = told.labels(&held.labels)?;
        let text = text_logits(self.material, &held.features)?;
        let as_new = (self.method).as_new_term(self.material, self.numbers, held)?;
        let (logits, term) = match (&as_new, &text) {
            (Some(term), Some(text)) => (term.f_add(text)?, term.shallow_clone()),
            (Some(term), None) => (term.shallow_clone(), term.shallow_clone()),
            (None, Some(text)) => (logits.shallow_clone(), logits.f_sub(text)?),
            (None, None) => (logits.shallow_clone(), logits.shallow_clone()),
        };
        let (logits, term) = (told.logits(&logits)?, told.logits(&term)?);
        let factor = self.method.spread_factor(self.material.shots()?);
        let parts = self.parts(text.as_ref(), &term, &labels, factor)?;
        let Some(temperature) = parts.temperature() else {
            return Ok(fit_temperature(&logits, &labels)?.temperature);
        };
        let near = Near {
            temperature,
            strength: STRENGTH,
        };
        let fit = fit_held_near(&logits, &labels, near)?;
        let more_shots = match held.source {
            SelectionSource::LeaveOneOut if as_new.is_none() => {
                parts.with_all_shots(self.method.all_shots_variance(self, &term, &labels, held)?)
            }
            _ => 1.0,
        };
        Ok(fit.temperature * more_shots)
    }

    /// T by rounds, for a method whose numbers are searched on other examples:
    /// plain leave-one-out leaves the own class one key short of the others,
    /// and that alone.
    pub fn by_rounds(&self) -> Result<Option<f64>, TipError> {
        let held = match HoldOut::validation(self.material)? {
            Some(held) => Some(held),
            None => HoldOut::one_of_each_out(self.material)?,
        };
        let Some(held) = held else { return Ok(None) };
        let term = (self.method).held_term(self.material, self.numbers, self.balance, &held)?;
        let Some(term) = term else {
            return Ok(None);
        };
        self.by_held(&plus_text(self.material, &held.features, term)?, &held)
            .map(Some)
    }

    /// T if nothing can be held out: each key without itself, if the method can
    /// do without it, and of the wrong classes alone.
    pub fn by_spread(&self) -> Result<f64, TipError> {
        let told = Told::of(self.material)?;
        let keys = HoldOut::each_out(self.material)?;
        let labels = told.labels(&keys.labels)?;
        let text = text_logits(self.material, &keys.features)?;
        if let (Some(text), false) = (&text, self.method.sees_examples()) {
            return Ok(fit_temperature(text, &keys.labels)?.temperature);
        }
        let term = told.logits(&self.key_term(&keys)?)?;
        let factor = self.method.one_shot_factor();
        let parts = self.parts(text.as_ref(), &term, &labels, factor)?;
        Ok(parts.temperature().unwrap_or(1.0))
    }

    /// The variance of the term over the wrong classes of the held-out examples
    /// if it is made of all keys, over that of the left-out term.
    pub fn variance_ratio(
        &self,
        left_out: &Tensor,
        labels: &Tensor,
        held: &HoldOut,
    ) -> Result<f64, TipError> {
        let told = Told::of(self.material)?;
        ratio(&told.logits(&self.key_term(held)?)?, left_out, labels)
    }

    /// The same of the cosines with class means, for a method whose logits hang
    /// on means but whose covariance has seen the keys.
    pub fn means_ratio(&self, labels: &Tensor, held: &HoldOut) -> Result<f64, TipError> {
        let told = Told::of(self.material)?;
        let all = held
            .features
            .f_matmul(&class_means(self.material)?.f_tr()?)?;
        let left_out = held_cosines(self.material, held)?;
        ratio(&told.logits(&all)?, &told.logits(&left_out)?, labels)
    }

    fn key_term(&self, keys: &HoldOut) -> Result<Tensor, TipError> {
        (self.method).key_term(self.material, self.numbers, self.balance, keys)
    }

    fn parts(
        &self,
        text: Option<&Tensor>,
        term: &Tensor,
        labels: &Tensor,
        factor: f64,
    ) -> Result<Parts, TipError> {
        let mut parts = Parts::default();
        // Where there is text, all classes can be told.
        if let Some(text) = text {
            let temperature = fit_temperature(text, labels)?.temperature;
            let spread = wrong_class_spread(text, labels, None)?;
            parts.text = spread.map(|spread| (spread * spread, temperature));
        }
        let spread = wrong_class_spread(term, labels, None)?;
        parts.term = spread.map(|spread| (spread * spread, spread * factor));
        Ok(parts)
    }
}

/// At most 1: noise does not grow with the shots.
fn ratio(all: &Tensor, left_out: &Tensor, labels: &Tensor) -> Result<f64, TipError> {
    let all = wrong_class_spread(all, labels, None)?;
    let left_out = wrong_class_spread(left_out, labels, None)?;
    Ok(match (all, left_out) {
        (Some(all), Some(left_out)) => (all / left_out).powi(2).min(1.0),
        _ => 1.0,
    })
}

/// The text's logits and a term.
pub(crate) fn plus_text(material: &Material, f: &Tensor, term: Tensor) -> Result<Tensor, TipError> {
    Ok(match text_logits(material, f)? {
        Some(text) => term.f_add(&text)?,
        None => term,
    })
}

/// s·f·Wᵀ, f64 [Q, N], if there is text.
fn text_logits(material: &Material, f: &Tensor) -> Result<Option<Tensor>, TipError> {
    let Some(text) = &material.text else {
        return Ok(None);
    };
    let logits = f
        .f_to_kind(Kind::Double)?
        .f_matmul(&text.f_to_kind(Kind::Double)?.f_tr()?)?;
    Ok(Some(logits.f_mul_scalar(material.logit_scale)?))
}
