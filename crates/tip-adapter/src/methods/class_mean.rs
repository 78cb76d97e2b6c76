//! Nearest class mean: `s·α·f·meanᵀ`, added to the text.

use tch::{Kind, Tensor};

use super::{
    TrainingFree, absent_last,
    calibrate::Calibration,
    numbers, plus,
    search::{Outcome, Search, given_or},
};
use crate::{
    class_mean::{class_means, held_cosines},
    error::TipError,
    grid::{GridValues as _, MEAN_ALPHA},
    head::HeadTensors,
    hold_out::HoldOut,
    material::Material,
    request::HeadRequest,
    score::Numbers,
    spec::{ClassBalance, Method},
    spread::MEAN_ONE_SHOT,
};

/// Nearest class mean, see the module.
pub(super) struct ClassMean;

impl TrainingFree for ClassMean {
    fn method(&self) -> Method {
        Method::ClassMean
    }

    fn name(&self) -> &'static str {
        "Nearest class mean"
    }

    fn all_given(&self, request: &HeadRequest) -> bool {
        request.alpha.is_some()
    }

    fn search(&self, search: &Search<'_>) -> Result<Outcome, TipError> {
        let (material, request) = (search.material, search.request);
        let term = held_cosines(material, search.held)?
            .f_to_kind(Kind::Double)?
            .f_mul_scalar(material.logit_scale)?;
        let alphas = match material.text {
            Some(_) => given_or(request.alpha, request.grid.mean_alphas()),
            None => vec![request.alpha.unwrap_or(MEAN_ALPHA)],
        };
        search.best_alpha(Method::ClassMean, &term, &alphas)
    }

    fn defaults(&self, _: &Material, request: &HeadRequest) -> Result<Numbers, TipError> {
        Ok(Numbers {
            alpha: request.alpha.unwrap_or(MEAN_ALPHA),
            ..numbers(Method::ClassMean)
        })
    }

    fn spread_factor(&self, _shots: f64) -> f64 {
        0.6
    }

    fn one_shot_factor(&self) -> f64 {
        MEAN_ONE_SHOT
    }

    fn all_shots_variance(
        &self,
        calibration: &Calibration<'_>,
        _left_out: &Tensor,
        labels: &Tensor,
        held: &HoldOut,
    ) -> Result<f64, TipError> {
        calibration.means_ratio(labels, held)
    }

    fn held_term(
        &self,
        material: &Material,
        numbers: &Numbers,
        _: ClassBalance,
        held: &HoldOut,
    ) -> Result<Option<Tensor>, TipError> {
        let cosines = held_cosines(material, held)?.f_to_kind(Kind::Double)?;
        Ok(Some(
            cosines.f_mul_scalar(material.logit_scale * numbers.alpha)?,
        ))
    }

    fn key_term(
        &self,
        material: &Material,
        numbers: &Numbers,
        _: ClassBalance,
        keys: &HoldOut,
    ) -> Result<Tensor, TipError> {
        let means = class_means(material)?.f_to_kind(Kind::Double)?;
        Ok(keys
            .features
            .f_to_kind(Kind::Double)?
            .f_matmul(&means.f_tr()?)?
            .f_mul_scalar(material.logit_scale * numbers.alpha)?)
    }

    fn add_to(
        &self,
        head: &mut HeadTensors,
        material: &Material,
        numbers: &Numbers,
        _: ClassBalance,
    ) -> Result<(), TipError> {
        let means = class_means(material)?
            .f_to_kind(Kind::Double)?
            .f_mul_scalar(material.logit_scale * numbers.alpha)?;
        head.linear = Some(plus(head.linear.take(), &means)?);
        absent_last(head, material)
    }
}
