//! Each method's numbers, chosen on the held-out examples.

use tch::{Kind, Tensor};

use super::{
    calibrate, class_mean,
    error::TipError,
    gda_left_out,
    grid::{MEAN_ALPHA, PROKER_BETA, PROKER_LAMBDA},
    hold_out::HoldOut,
    material::Material,
    proker::{self, PROKER_SEARCH_KEYS, check_keys},
    request::HeadRequest,
    score::{Numbers, Scored, right},
    spec::{Method, SelectionSource},
    temperature::{Fit, fit_near, fit_temperature},
    tip_adapter::{search_kind, sweep},
    watch::Watch,
};
use crate::grid::GridValues as _;

/// The outcome of scoring a method.
#[derive(Debug)]
pub(super) enum Outcome {
    Scored(Scored),
    /// Why it could not be scored.
    Skipped(String),
}

/// What the search of every method works on.
#[derive(Clone, Copy)]
pub(super) struct Search<'a> {
    pub material: &'a Material,
    pub request: &'a HeadRequest,
    pub held: &'a HoldOut,
    pub watch: &'a Watch<'a>,
}

impl Search<'_> {
    /// The best numbers of one method.
    pub fn best(&self, method: Method) -> Result<Outcome, TipError> {
        self.watch.step(method, 0, 1)?;
        if let Some(reason) = self.unfit(method) {
            return Ok(Outcome::Skipped(reason));
        }
        match method {
            Method::ZeroShot => self.zero_shot(),
            Method::TipAdapter => self.tip_adapter(),
            Method::Gda => self.gda(),
            Method::Proker => self.proker(),
            Method::ClassMean => self.class_mean(),
            Method::TipAdapterF => Ok(Outcome::Skipped("made by fine-tuning only".to_owned())),
            Method::Stack => Ok(Outcome::Skipped("made by AUTO only".to_owned())),
        }
    }

    fn unfit(&self, method: Method) -> Option<String> {
        if method == Method::ZeroShot {
            return self
                .material
                .text
                .is_none()
                .then(|| "no text weights".to_owned());
        }
        if self.material.key_count() == 0 {
            return Some("no examples".to_owned());
        }
        None
    }

    /// s·f·Wᵀ, f64 [Q, N], if there is text.
    fn text_logits(&self, kind: Kind) -> Result<Option<Tensor>, TipError> {
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

    fn zero_shot(&self) -> Result<Outcome, TipError> {
        let Some(logits) = self.text_logits(Kind::Double)? else {
            return Ok(Outcome::Skipped("no text weights".to_owned()));
        };
        let numbers = Numbers {
            method: Method::ZeroShot,
            alpha: 0.0,
            beta: 0.0,
            lambda: 0.0,
        };
        let scored = Scored::new(numbers, &logits, &self.held.labels)?;
        Ok(Outcome::Scored(scored))
    }

    /// β outer, α inner. Official: the first best accuracy. Wide: ties go to
    /// the lower cross-entropy (at its fitted temperature).
    fn tip_adapter(&self) -> Result<Outcome, TipError> {
        let grid = &self.request.grid;
        let betas = given_or(self.request.beta, grid.betas());
        let mut alphas = given_or(self.request.alpha, grid.alphas());
        let cache_only = self.material.text.is_none();
        if cache_only {
            // α only scales the logits, so the first value is never beaten; the
            // wide search then sets it by the temperature.
            let first = alphas.first().copied().unwrap_or(1.0);
            let free = self.request.alpha.is_none() && !grid.is_official();
            alphas = vec![if free { 1.0 } else { first }];
        }
        let kind = search_kind(self.material, self.held, betas.len());
        let text = self.text_logits(kind)?;
        let labels = &self.held.labels;
        let mut best: Option<(i64, Numbers, Tensor, Option<Fit>)> = None;
        let mut near = None;
        let mut visit = |at: usize, cache: &Tensor| {
            self.watch.step(Method::TipAdapter, at, betas.len())?;
            let beta = betas.get(at).copied().unwrap_or_default();
            for &alpha in &alphas {
                let mut logits = cache.f_mul_scalar(alpha)?;
                if let Some(text) = &text {
                    logits = logits.f_add_(text)?;
                }
                let now = right(&logits, labels)?;
                let numbers = Numbers {
                    method: Method::TipAdapter,
                    alpha,
                    beta,
                    lambda: 0.0,
                };
                let mut fit = None;
                let better = match &mut best {
                    None => true,
                    Some((before, ..)) if now != *before => now > *before,
                    Some(_) if grid.is_official() => false,
                    Some((_, _, kept, known)) => {
                        let before = match *known {
                            Some(fit) => fit,
                            None => rough_fit(kept, labels, near)?,
                        };
                        *known = Some(before);
                        // Neighbours on the grid have temperatures near each other.
                        let now = rough_fit(&logits, labels, near)?;
                        near = Some(now.temperature);
                        fit = Some(now);
                        now.cross_entropy < before.cross_entropy
                    }
                };
                if better {
                    best = Some((now, numbers, logits, fit));
                }
            }
            Ok(())
        };
        let balance = self.request.class_balance;
        sweep(self.material, self.held, &betas, balance, kind, &mut visit)?;
        let Some((_, numbers, logits, _)) = best else {
            return Ok(Outcome::Skipped("nothing to try".to_owned()));
        };
        let mut scored = Scored::new(numbers, &logits, labels)?;
        if self.held.source == SelectionSource::LeaveOneOut {
            let by_rounds = calibrate::tip_adapter(self.material, &numbers, balance)?;
            scored.temperature = by_rounds.unwrap_or(scored.temperature);
        } else {
            let method = Method::TipAdapter;
            scored.temperature = calibrate::by_held(method, self.material, &logits, self.held)?;
        }
        if cache_only && self.request.alpha.is_none() && !grid.is_official() {
            scored.numbers.alpha = 1.0 / scored.temperature;
            scored.temperature = 1.0;
        }
        Ok(Outcome::Scored(scored))
    }

    fn gda(&self) -> Result<Outcome, TipError> {
        let features = &self.held.features;
        let Some(term) = gda_left_out::held_logits(self.material, None, features, self.held)?
        else {
            return Ok(Outcome::Skipped(
                "nothing varies within a class: the pooled covariance is zero".to_owned(),
            ));
        };
        let alphas = match self.material.text {
            Some(_) => given_or(self.request.alpha, self.request.grid.gda_alphas()),
            None => vec![self.request.alpha.unwrap_or(1.0)],
        };
        self.best_alpha(Method::Gda, &term, &alphas)
    }

    fn class_mean(&self) -> Result<Outcome, TipError> {
        let term = class_mean::held_cosines(self.material, self.held)?
            .f_to_kind(Kind::Double)?
            .f_mul_scalar(self.material.logit_scale)?;
        let alphas = match self.material.text {
            Some(_) => given_or(self.request.alpha, self.request.grid.mean_alphas()),
            None => vec![self.request.alpha.unwrap_or(MEAN_ALPHA)],
        };
        self.best_alpha(Method::ClassMean, &term, &alphas)
    }

    /// The best α in `text + α·term`: the first best accuracy (official), ties
    /// by cross-entropy (wide).
    fn best_alpha(
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

    fn prefers(&self, new: &Scored, best: &Scored) -> bool {
        if self.request.grid.is_official() {
            new.right > best.right
        } else {
            new.beats(best)
        }
    }

    /// β outer, λ inner. Official: α = 1/λ (ordinary kernel ridge), the first
    /// best accuracy. Wide: α = 1 (the paper's form), and the defaults: on few
    /// examples the best of a grid is mostly the luckiest.
    fn proker(&self) -> Result<Outcome, TipError> {
        if let Err(error) = check_keys(self.material.key_count()) {
            return Ok(Outcome::Skipped(error.to_string()));
        }
        let grid = &self.request.grid;
        let search = grid.is_official() && self.material.key_count() <= PROKER_SEARCH_KEYS;
        let or = |given: Option<f64>, default: f64, all: Vec<f64>| match given {
            Some(value) => vec![value],
            None if search => all,
            None => vec![default],
        };
        let betas = or(self.request.beta, PROKER_BETA, grid.proker_betas());
        let lambdas = or(self.request.lambda, PROKER_LAMBDA, grid.proker_lambdas());

        let system = proker::system(self.material)?;
        let text = self.text_logits(Kind::Double)?;
        let mut best: Option<(Scored, Tensor)> = None;
        let mut tried = 0;
        for &beta in &betas {
            for &lambda in &lambdas {
                self.watch
                    .step(Method::Proker, tried, betas.len() * lambdas.len())?;
                let alpha = self.request.alpha.unwrap_or(if grid.is_official() {
                    1.0 / lambda
                } else {
                    1.0
                });
                let fitted = system.factorise(beta, lambda)?;
                let mut logits = fitted
                    .held_predictions(&self.held.features, self.held)?
                    .f_mul_scalar_(self.material.logit_scale * alpha * lambda)?;
                if let Some(text) = &text {
                    logits = logits.f_add_(text)?;
                }
                let numbers = Numbers {
                    method: Method::Proker,
                    alpha,
                    beta,
                    lambda,
                };
                let scored = Scored::new(numbers, &logits, &self.held.labels)?;
                tried += 1;
                if best
                    .as_ref()
                    .is_none_or(|(best, _)| self.prefers(&scored, best))
                {
                    best = Some((scored, logits));
                }
            }
        }
        self.calibrated(best)
    }

    /// The best with the temperature that serves.
    fn calibrated(&self, best: Option<(Scored, Tensor)>) -> Result<Outcome, TipError> {
        let Some((mut scored, logits)) = best else {
            return Ok(Outcome::Skipped("nothing to try".to_owned()));
        };
        let method = scored.numbers.method;
        scored.temperature = calibrate::by_held(method, self.material, &logits, self.held)?;
        Ok(Outcome::Scored(scored))
    }
}

fn given_or(given: Option<f64>, all: Vec<f64>) -> Vec<f64> {
    match given {
        Some(value) => vec![value],
        None => all,
    }
}

fn rough_fit(logits: &Tensor, labels: &Tensor, near: Option<f64>) -> Result<Fit, TipError> {
    match near {
        Some(near) => fit_near(logits, labels, near),
        None => fit_temperature(logits, labels),
    }
}
