//! What the methods' searches for their numbers share.

use tch::{Kind, Tensor};

use super::{TrainingFree, by_name, calibrate::Calibration};
use crate::grid::GridValues as _;
use crate::{
    error::TipError,
    hold_out::HoldOut,
    material::Material,
    request::HeadRequest,
    score::{Numbers, Scored},
    spec::Method,
    temperature::{Fit, fit_near, fit_temperature},
    watch::Watch,
};

/// The outcome of scoring a method.
#[derive(Debug)]
pub(crate) enum Outcome {
    Scored(Scored),
    /// Why it could not be scored.
    Skipped(String),
}

/// What the search of every method works on.
#[derive(Clone, Copy)]
pub(crate) struct Search<'a> {
    pub material: &'a Material,
    pub request: &'a HeadRequest,
    pub held: &'a HoldOut,
    pub watch: &'a Watch<'a>,
}

impl Search<'_> {
    /// The best numbers of one method.
    pub fn best(&self, method: &dyn TrainingFree) -> Result<Outcome, TipError> {
        self.watch.step(method.method(), 0, 1)?;
        match method.check(self.material) {
            Ok(()) => method.search(self),
            Err(error) => Ok(Outcome::Skipped(error.to_string())),
        }
    }

    /// s·f·Wᵀ, f64 [Q, N], if there is text.
    pub fn text_logits(&self, kind: Kind) -> Result<Option<Tensor>, TipError> {
        self.material
            .text
            .as_ref()
            .map(|text| {
                let f = self.held.features.f_to_kind(kind)?;
                let w = text.f_to_kind(kind)?;
                Ok(f.f_matmul(&w.f_tr()?)?
                    .f_mul_scalar(self.material.logit_scale)?)
            })
            .transpose()
    }

    /// The best α in `text + α·term`: the first best accuracy (official), ties
    /// by cross-entropy (wide).
    pub fn best_alpha(
        &self,
        method: Method,
        term: &Tensor,
        alphas: &[f64],
    ) -> Result<Outcome, TipError> {
        let text = self.text_logits(Kind::Double)?;
        let mut best: Option<(Scored, Tensor)> = None;
        for (at, &alpha) in alphas.iter().enumerate() {
            self.watch.step(method, at, alphas.len())?;
            let mut logits = term.f_mul_scalar(alpha)?;
            if let Some(text) = &text {
                logits = logits.f_add_(text)?;
            }
            let numbers = Numbers {
                method,
                alpha,
                beta: 0.0,
                lambda: 0.0,
            };
            let scored = Scored::new(numbers, &logits, &self.held.labels)?;
            if best
                .as_ref()
                .is_none_or(|(best, _)| self.prefers(&scored, best))
            {
                best = Some((scored, logits));
            }
        }
        self.calibrated(best)
    }

    /// Whether a candidate replaces the best so far.
    pub fn prefers(&self, new: &Scored, best: &Scored) -> bool {
        if self.request.grid.is_official() {
            new.right > best.right
        } else {
            new.beats(best)
        }
    }

    /// The best with the temperature that serves.
    pub fn calibrated(&self, best: Option<(Scored, Tensor)>) -> Result<Outcome, TipError> {
        let Some((mut scored, logits)) = best else {
            return Ok(Outcome::Skipped("nothing to try".to_owned()));
        };
        let method = by_name(scored.numbers.method)?;
        let calibration = Calibration {
            method,
            material: self.material,
            numbers: &scored.numbers,
            balance: self.request.class_balance,
        };
        scored.temperature = calibration.by_held(&logits, self.held)?;
        Ok(Outcome::Scored(scored))
    }
}

/// The number given, or all that may be tried.
pub(crate) fn given_or(given: Option<f64>, all: Vec<f64>) -> Vec<f64> {
    match given {
        Some(value) => vec![value],
        None => all,
    }
}

/// A temperature to compare by, from one that is likely near.
pub(crate) fn rough_fit(
    logits: &Tensor,
    labels: &Tensor,
    near: Option<f64>,
) -> Result<Fit, TipError> {
    match near {
        Some(near) => fit_near(logits, labels, near),
        None => fit_temperature(logits, labels),
    }
}
