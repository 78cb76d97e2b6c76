//! ProKeR: `s·α·λ·k(f, S)(K_SS + λI)⁻¹(Y − S·Wᵀ)`, added to the text.

use tch::Tensor;

use super::{
    TrainingFree, absent_last, numbers,
    search::{Outcome, Search},
};
use crate::{
    error::TipError,
    grid::{GridValues as _, PROKER_BETA, PROKER_LAMBDA},
    head::{HeadTensors, Values},
    hold_out::HoldOut,
    kernel_ridge::Fitted,
    material::Material,
    proker::{PROKER_SEARCH_KEYS, check_keys, system},
    request::HeadRequest,
    score::{Numbers, Scored},
    spec::{ClassBalance, Method},
    spread::RIDGE_FACTOR,
};

/// ProKeR, as the module's head describes it.
pub(super) struct Proker;

fn fit(material: &Material, numbers: &Numbers) -> Result<Fitted, TipError> {
    system(material)?.factorise(numbers.beta, numbers.lambda)
}

/// The factor on ordinary kernel ridge regression.
fn factor(material: &Material, numbers: &Numbers) -> f64 {
    material.logit_scale * numbers.alpha * numbers.lambda
}

impl TrainingFree for Proker {
    fn method(&self) -> Method {
        Method::Proker
    }

    fn name(&self) -> &'static str {
        "ProKeR"
    }

    fn check(&self, material: &Material) -> Result<(), TipError> {
        if material.key_count() == 0 {
            return Err(TipError::NeedsExamples(Method::Proker));
        }
        check_keys(material.key_count())
    }

    fn all_given(&self, request: &HeadRequest) -> bool {
        request.beta.is_some() && request.lambda.is_some()
    }

    /// β outer, λ inner. Official: α = 1/λ (ordinary kernel ridge), the first
    /// best accuracy. Wide: α = 1 (the paper's form), and the defaults: with
    /// few examples the best of a grid is mostly luck.
    fn search(&self, search: &Search<'_>) -> Result<Outcome, TipError> {
        let (material, request) = (search.material, search.request);
        if let Err(error) = check_keys(material.key_count()) {
            return Ok(Outcome::Skipped(error.to_string()));
        }
        let grid = &request.grid;
        let wide = !grid.is_official() || material.key_count() > PROKER_SEARCH_KEYS;
        let or = |given: Option<f64>, default: f64, all: Vec<f64>| match given {
            Some(value) => vec![value],
            None if wide => vec![default],
            None => all,
        };
        let betas = or(request.beta, PROKER_BETA, grid.proker_betas());
        let lambdas = or(request.lambda, PROKER_LAMBDA, grid.proker_lambdas());

        let system = system(material)?;
        let text = search.text_logits(tch::Kind::Double)?;
        let mut best: Option<(Scored, Tensor)> = None;
        let mut tried = 0;
        for &beta in &betas {
            for &lambda in &lambdas {
                search
                    .watch
                    .step(Method::Proker, tried, betas.len() * lambdas.len())?;
                let alpha = request.alpha.unwrap_or(if grid.is_official() {
                    1.0 / lambda
                } else {
                    1.0
                });
                let numbers = Numbers {
                    method: Method::Proker,
                    alpha,
                    beta,
                    lambda,
                };
                let mut logits = system
                    .factorise(beta, lambda)?
                    .held_predictions(&search.held.features, search.held)?
                    .f_mul_scalar_(factor(material, &numbers))?;
                if let Some(text) = &text {
                    logits = logits.f_add_(text)?;
                }
                let scored = Scored::new(numbers, &logits, &search.held.labels)?;
                tried += 1;
                if best
                    .as_ref()
                    .is_none_or(|(best, _)| search.prefers(&scored, best))
                {
                    best = Some((scored, logits));
                }
            }
        }
        search.calibrated(best)
    }

    fn score(&self) -> &'static str {
        "none: β and λ keep their defaults"
    }

    fn grid(&self, material: &Material, request: &HeadRequest) -> String {
        let grid = request.grid.describe();
        if !request.grid.is_official() {
            "none".to_owned()
        } else if material.key_count() > PROKER_SEARCH_KEYS {
            format!(
                "{grid}; ProKeR's β and λ not searched over {PROKER_SEARCH_KEYS} keys ({} here)",
                material.key_count()
            )
        } else {
            grid
        }
    }

    fn defaults(&self, _: &Material, request: &HeadRequest) -> Result<Numbers, TipError> {
        Ok(Numbers {
            alpha: request.alpha.unwrap_or(1.0),
            beta: request.beta.unwrap_or(PROKER_BETA),
            lambda: request.lambda.unwrap_or(PROKER_LAMBDA),
            ..numbers(Method::Proker)
        })
    }

    fn spread_factor(&self, _shots: f64) -> f64 {
        RIDGE_FACTOR
    }

    fn held_term(
        &self,
        material: &Material,
        numbers: &Numbers,
        _: ClassBalance,
        held: &HoldOut,
    ) -> Result<Option<Tensor>, TipError> {
        let predictions = fit(material, numbers)?.held_predictions(&held.features, held)?;
        Ok(Some(predictions.f_mul_scalar(factor(material, numbers))?))
    }

    fn key_term(
        &self,
        material: &Material,
        numbers: &Numbers,
        _: ClassBalance,
        keys: &HoldOut,
    ) -> Result<Tensor, TipError> {
        let predictions = fit(material, numbers)?
            .one_out_predictions()?
            .f_index_select(0, &keys.key_index)?;
        Ok(predictions.f_mul_scalar(factor(material, numbers))?)
    }

    fn add_to(
        &self,
        head: &mut HeadTensors,
        material: &Material,
        numbers: &Numbers,
        _: ClassBalance,
    ) -> Result<(), TipError> {
        let values = fit(material, numbers)?
            .coefficients()?
            .f_mul_scalar(factor(material, numbers))?
            .f_to_kind(tch::Kind::Float)?
            .f_contiguous()?;
        head.cache = Some((material.keys.f_contiguous()?, Values::Dense(values)));
        absent_last(head, material)
    }
}
