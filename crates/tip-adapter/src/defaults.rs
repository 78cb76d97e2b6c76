//! What holds where nothing can be chosen: one shot a class and no validation
//! examples.

use super::{
    error::TipError,
    gda,
    grid::{
        GDA_ALPHA, GDA_ALPHA_IDENTITY, MEAN_ALPHA, PROKER_BETA, PROKER_LAMBDA, TIP_ALPHA, TIP_BETA,
    },
    make::HeadRequest,
    material::Material,
    proker::PROKER_KEY_LIMIT,
    score::Numbers,
    spec::Method,
};

/// The method where nothing can be scored: ProKeR, which did best at one shot
/// on every data set tried, as far as it goes.
pub(super) fn default_method(material: &Material) -> Method {
    if material.key_count() <= PROKER_KEY_LIMIT {
        Method::Proker
    } else {
        Method::TipAdapter
    }
}

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
        Method::ZeroShot | Method::TipAdapterF => none,
        Method::TipAdapter => Numbers {
            alpha: alpha(TIP_ALPHA),
            beta: request.beta.unwrap_or(TIP_BETA),
            ..none
        },
        Method::Gda if gda::fit(material)?.identity => Numbers {
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

/// Temperatures where none can be fitted: the middle of what fitted best at one
/// shot on three real data sets (ViT-B/32), scaled with the head's own numbers.
pub(super) fn default_temperature(numbers: &Numbers, material: &Material) -> Result<f64, TipError> {
    let scale = material.logit_scale / 100.0;
    Ok(match numbers.method {
        Method::Proker => 0.5 * scale,
        Method::TipAdapter if material.text.is_none() => 0.04 * numbers.alpha,
        Method::ClassMean => 3.0 * scale * numbers.alpha.max(1.0),
        Method::Gda if gda::fit(material)?.identity => 0.05 * numbers.alpha.max(10.0),
        _ => scale,
    })
}

/// GDA's α where nothing is searched.
fn default_gda_alpha(material: &Material) -> f64 {
    if material.text.is_some() {
        GDA_ALPHA
    } else {
        1.0
    }
}
