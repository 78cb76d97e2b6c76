//! GDA: `α·(f·w + b)`, added to the text.

use tch::{Kind, Tensor};

use super::{
    TrainingFree,
    calibrate::Calibration,
    numbers, plus,
    search::{Outcome, Search, given_or},
};
use crate::{
    error::TipError,
    gda::{self, WHOLE_RIDGE},
    gda_left_out, gda_one_out,
    grid::{GDA_ALPHA, GDA_ALPHA_IDENTITY, GridValues as _},
    head::HeadTensors,
    hold_out::{ALL_OUT_KEYS, HoldOut},
    material::Material,
    request::HeadRequest,
    score::Numbers,
    spec::{ClassBalance, Method},
    spread::{MEAN_ONE_SHOT, gda_factor},
};

/// Gaussian discriminant analysis, see the module.
pub(super) struct Gda;

impl TrainingFree for Gda {
    fn method(&self) -> Method {
        Method::Gda
    }

    fn name(&self) -> &'static str {
        "GDA"
    }

    fn all_given(&self, request: &HeadRequest) -> bool {
        request.alpha.is_some()
    }

    fn search(&self, search: &Search<'_>) -> Result<Outcome, TipError> {
        let (material, request) = (search.material, search.request);
        let features = &search.held.features;
        let Some(term) =
            gda_left_out::held_logits(material, None, features, search.held, WHOLE_RIDGE)?
        else {
            return Ok(Outcome::Skipped(
                "nothing varies within a class: the pooled covariance is zero".to_owned(),
            ));
        };
        let alphas = match material.text {
            Some(_) => given_or(request.alpha, request.grid.gda_alphas()),
            None => vec![request.alpha.unwrap_or(1.0)],
        };
        search.best_alpha(Method::Gda, &term, &alphas)
    }

    fn defaults(&self, material: &Material, request: &HeadRequest) -> Result<Numbers, TipError> {
        let default = if gda::fit(material, None, WHOLE_RIDGE)?.identity {
            GDA_ALPHA_IDENTITY
        } else if material.text.is_some() {
            GDA_ALPHA
        } else {
            1.0
        };
        Ok(Numbers {
            alpha: request.alpha.unwrap_or(default),
            ..numbers(Method::Gda)
        })
    }

    fn spread_factor(&self, shots: f64) -> f64 {
        gda_factor(shots)
    }

    /// With one shot and one view it is the nearest class mean.
    fn one_shot_factor(&self) -> f64 {
        MEAN_ONE_SHOT
    }

    /// Where there is no closed form (views, copies). Its covariance has seen the
    /// keys, so that of the cosines with class means is taken. The bias is quadratic in the means, which adds to their noise:
    /// over draws of eight sets the best temperature falls with the ratio to the
    /// power of about one and a half.
    fn all_shots_variance(
        &self,
        calibration: &Calibration<'_>,
        _left_out: &Tensor,
        labels: &Tensor,
        held: &HoldOut,
    ) -> Result<f64, TipError> {
        Ok(calibration.means_ratio(labels, held)?.powf(1.5))
    }

    fn as_new_term(
        &self,
        material: &Material,
        numbers: &Numbers,
        held: &HoldOut,
    ) -> Result<Option<Tensor>, TipError> {
        if material.key_count() > ALL_OUT_KEYS || !held.scores_every_left_out()? {
            return Ok(None);
        }
        Ok(
            gda_one_out::logits(material, None, &held.features, held, WHOLE_RIDGE)?
                .map(|term| term.f_mul_scalar(numbers.alpha))
                .transpose()?,
        )
    }

    fn held_term(
        &self,
        material: &Material,
        numbers: &Numbers,
        _: ClassBalance,
        held: &HoldOut,
    ) -> Result<Option<Tensor>, TipError> {
        let features = held.features.f_to_kind(Kind::Double)?;
        Ok(
            gda_left_out::held_logits(material, None, &features, held, WHOLE_RIDGE)?
                .map(|term| term.f_mul_scalar(numbers.alpha))
                .transpose()?,
        )
    }

    fn key_term(
        &self,
        material: &Material,
        numbers: &Numbers,
        _: ClassBalance,
        keys: &HoldOut,
    ) -> Result<Tensor, TipError> {
        let fit = gda::fit(material, None, WHOLE_RIDGE)?;
        Ok(keys
            .features
            .f_to_kind(Kind::Double)?
            .f_matmul(&fit.weight.f_tr()?)?
            .f_add(&fit.bias)?
            .f_mul_scalar(numbers.alpha)?)
    }

    fn add_to(
        &self,
        head: &mut HeadTensors,
        material: &Material,
        numbers: &Numbers,
        _: ClassBalance,
    ) -> Result<(), TipError> {
        let gaussian = gda::fit(material, None, WHOLE_RIDGE)?;
        let weight = gaussian.weight.f_mul_scalar(numbers.alpha)?;
        head.linear = Some(plus(head.linear.take(), &weight)?);
        head.bias = Some(
            gaussian
                .bias
                .f_mul_scalar(numbers.alpha)?
                .f_to_kind(Kind::Float)?,
        );
        Ok(())
    }
}
