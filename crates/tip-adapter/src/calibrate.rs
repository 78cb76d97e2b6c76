//! The temperatures of single methods.
//!
//! Where examples are held out, T minimises their cross-entropy, held near the
//! temperature of the logits' own spread with the strength of five examples;
//! if none can be, it is the latter. Left-out logits come from one shot
//! fewer than will serve, which some methods' scale depends on: that is made
//! good.

use tch::{Device, Kind, Tensor};

use super::{
    class_mean,
    error::TipError,
    gda,
    hold_out::HoldOut,
    material::Material,
    proker,
    score::Numbers,
    spec::{ClassBalance, Method, SelectionSource},
    spread::{self, wrong_class_spread},
    temperature::{Near, fit_held_near, fit_temperature},
    tip_adapter::{seen_counts, sweep},
};

/// How many examples the spread's temperature counts as.
const STRENGTH: f64 = 5.0;

/// T of a method's held-out logits, f64 [Q, N].
pub(super) fn by_held(
    method: Method,
    material: &Material,
    logits: &Tensor,
    held: &HoldOut,
) -> Result<f64, TipError> {
    // Text has seen none of the examples, and the temperature of weak text has
    // no bound.
    if method == Method::ZeroShot {
        return Ok(fit_temperature(logits, &held.labels)?.temperature);
    }
    let Some(spread) = wrong_class_spread(logits, &held.labels, None)? else {
        return Ok(fit_temperature(logits, &held.labels)?.temperature);
    };
    let near = Near {
        temperature: spread * spread::factor(method, material.text.is_some()),
        strength: STRENGTH,
    };
    let fit = fit_held_near(logits, &held.labels, near)?;
    let fewer = match (method, held.source) {
        (Method::Gda, SelectionSource::LeaveOneOut) => fewer_shots(material)?,
        _ => 1.0,
    };
    Ok(fit.temperature * fewer)
}

/// √((n − 1)/n) for n shots a class on average: what GDA's margins lack by a
/// mean of one shot fewer. Over draws of CLIP features and pictures the best
/// temperature was 0.55 to 0.73 of the left-out one at 2 shots, 0.84 to 0.87 at
/// 4, 0.92 to 1.05 at 8.
fn fewer_shots(material: &Material) -> Result<f64, TipError> {
    let counts = material.counts()?;
    let some = counts.f_gt(0)?.f_sum(Kind::Int64)?.f_int64_value(&[])?;
    let shots = material.key_count() as f64 / some.max(1) as f64;
    Ok(((shots - 1.0).max(0.5) / shots.max(1.0)).sqrt())
}

/// T of Tip-Adapter by rounds: plain leave-one-out, which its α and β are
/// searched on, leaves the own class one key short of the others, and that
/// alone. Sums over a class's keys are brought to the shots that will serve.
pub(super) fn tip_adapter(
    material: &Material,
    numbers: &Numbers,
    balance: ClassBalance,
) -> Result<Option<f64>, TipError> {
    let held = match HoldOut::validation(material)? {
        Some(held) => Some(held),
        None => HoldOut::one_of_each_out(material)?,
    };
    let Some(held) = held else { return Ok(None) };
    let mut logits = cache_logits(material, numbers, balance, &held)?;
    if balance == ClassBalance::Sum {
        let counts = material.counts()?.f_to_kind(Kind::Double)?;
        let seen = seen_counts(material, &held)?.f_clamp_min(1.0)?;
        logits = logits.f_mul(&counts.f_div(&seen)?)?;
    }
    let logits = plus_text(material, &held.features, logits)?;
    by_held(numbers.method, material, &logits, &held).map(Some)
}

/// α·exp(−β(1 − f·Kᵀ))·V without the keys that each example may not see.
pub(super) fn cache_logits(
    material: &Material,
    numbers: &Numbers,
    balance: ClassBalance,
    held: &HoldOut,
) -> Result<Tensor, TipError> {
    let mut found = None;
    let betas = [numbers.beta];
    sweep(
        material,
        held,
        &betas,
        balance,
        Kind::Double,
        &mut |_, sums| {
            found = Some(sums.f_mul_scalar(numbers.alpha)?);
            Ok(())
        },
    )?;
    match found {
        Some(logits) => Ok(logits),
        None => Ok(Tensor::f_zeros(
            [held.count(), material.n()],
            (Kind::Double, Device::Cpu),
        )?),
    }
}

pub(super) fn plus_text(
    material: &Material,
    f: &Tensor,
    logits: Tensor,
) -> Result<Tensor, TipError> {
    Ok(match &material.text {
        None => logits,
        Some(text) => logits.f_add(
            &f.f_to_kind(Kind::Double)?
                .f_matmul(&text.f_to_kind(Kind::Double)?.f_tr()?)?
                .f_mul_scalar(material.logit_scale)?,
        )?,
    })
}

/// T if nothing can be held out: that of the logits' spread over the wrong
/// classes, each key without itself.
pub(super) fn by_spread(
    numbers: &Numbers,
    material: &Material,
    balance: ClassBalance,
) -> Result<f64, TipError> {
    let keys = || material.keys.f_to_kind(Kind::Double);
    let cache = match numbers.method {
        Method::TipAdapter | Method::TipAdapterF => {
            cache_logits(material, numbers, balance, &HoldOut::each_out(material)?)?
        }
        // The true class's logit does not count, and its keys do not affect the
        // others'.
        Method::Gda => {
            let fit = gda::fit(material, None)?;
            keys()?
                .f_matmul(&fit.weight.f_tr()?)?
                .f_add(&fit.bias)?
                .f_mul_scalar(numbers.alpha)?
        }
        Method::ClassMean => keys()?
            .f_matmul(
                &class_mean::class_means(material)?
                    .f_to_kind(Kind::Double)?
                    .f_tr()?,
            )?
            .f_mul_scalar(material.logit_scale * numbers.alpha)?,
        Method::Proker => proker::system(material)?
            .factorise(numbers.beta, numbers.lambda)?
            .one_out_predictions()?
            .f_mul_scalar(material.logit_scale * numbers.alpha * numbers.lambda)?,
        Method::ZeroShot | Method::Stack => Tensor::f_zeros(
            [material.key_count(), material.n()],
            (Kind::Double, Device::Cpu),
        )?,
    };
    let present = material.counts()?.f_gt(0)?.f_nonzero()?.f_squeeze_dim(1)?;
    let logits = plus_text(material, &material.keys, cache)?.f_index_select(1, &present)?;
    let labels = material
        .labels
        .f_searchsorted(&present, false, false, "left", None::<Tensor>)?;
    if numbers.method == Method::ZeroShot {
        return Ok(fit_temperature(&logits, &labels)?.temperature);
    }
    let spread = wrong_class_spread(&logits, &labels, None)?;
    let factor = spread::factor(numbers.method, material.text.is_some());
    Ok(spread.map_or(1.0, |spread| spread * factor))
}
