//! What holds if nothing can be chosen: one shot a class and no validation
//! examples.

use super::{
    error::TipError,
    gda,
    grid::{
        GDA_ALPHA, GDA_ALPHA_IDENTITY, MEAN_ALPHA, PROKER_BETA, PROKER_LAMBDA, TIP_ALPHA, TIP_BETA,
    },
    material::Material,
    request::HeadRequest,
    score::Numbers,
    spec::Method,
};

pub(super) fn default_numbers(
    method: Method,
    material: &Material,
    request: &HeadRequest,
) -> Result<Numbers, TipError> {
    let alpha = |default: f64| request.alpha.unwrap_or(default);
    let none = Numbers {
        method,
        alpha: 0.0,
        beta: 0.0,
        lambda: 0.0,
    };
    Ok(match method {
        Method::ZeroShot | Method::TipAdapterF | Method::Stack => none,
        Method::TipAdapter => Numbers {
            alpha: alpha(TIP_ALPHA),
            beta: request.beta.unwrap_or(TIP_BETA),
            ..none
        },
        Method::Gda if gda::fit(material, None)?.identity => Numbers {
            alpha: alpha(GDA_ALPHA_IDENTITY),
            ..none
        },
        Method::Gda => Numbers {
            alpha: alpha(default_gda_alpha(material)),
            ..none
        },
        Method::Proker => Numbers {
            alpha: alpha(1.0),
            beta: request.beta.unwrap_or(PROKER_BETA),
            lambda: request.lambda.unwrap_or(PROKER_LAMBDA),
            ..none
        },
        Method::ClassMean => Numbers {
            alpha: alpha(MEAN_ALPHA),
            ..none
        },
    })
}

/// GDA's α if nothing is searched.
fn default_gda_alpha(material: &Material) -> f64 {
    if material.text.is_some() {
        GDA_ALPHA
    } else {
        1.0
    }
}
