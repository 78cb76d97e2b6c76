//! GDA: `α·(f·w + b)`, added to the text.

use tch::{Kind, Tensor};

use super::{
    TrainingFree, numbers, of_means, plus,
    search::{Outcome, Search, given_or},
};
use crate::{
    error::TipError,
    gda, gda_left_out,
    grid::{GDA_ALPHA, GDA_ALPHA_IDENTITY, GridValues as _},
    head::HeadTensors,
    hold_out::HoldOut,
    material::Material,
    request::HeadRequest,
    score::Numbers,
    spec::{ClassBalance, Method},
    spread::GDA_FACTOR,
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
        let Some(term) = gda_left_out::held_logits(material, None, features, search.held)? else {
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
        let default = if gda::fit(material, None)?.identity {
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

    fn spread_factor(&self, _has_text: bool) -> f64 {
        GDA_FACTOR
    }

    /// √((n − 1)/n) for n shots per class on average: how much a mean of one
    /// shot fewer shrinks margins. Over draws of CLIP features and pictures the
    /// best temperature was 0.55 to 0.73 of the left-out one at 2 shots, 0.84
    /// to 0.87 at 4, 0.92 to 1.05 at 8.
    fn fewer_shots(&self, material: &Material) -> Result<f64, TipError> {
        of_means(material)
    }

    fn held_term(
        &self,
        material: &Material,
        numbers: &Numbers,
        _: ClassBalance,
        held: &HoldOut,
    ) -> Result<Option<Tensor>, TipError> {
        let features = held.features.f_to_kind(Kind::Double)?;
        Ok(gda_left_out::held_logits(material, None, &features, held)?
            .map(|term| term.f_mul_scalar(numbers.alpha))
            .transpose()?)
    }

    fn key_term(
        &self,
        material: &Material,
        numbers: &Numbers,
        _: ClassBalance,
    ) -> Result<Tensor, TipError> {
        let fit = gda::fit(material, None)?;
        let keys = material.keys.f_to_kind(Kind::Double)?;
        Ok(keys
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
        let gaussian = gda::fit(material, None)?;
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
