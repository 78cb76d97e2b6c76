//! Tip-Adapter: `α·exp(−β(1 − f·Kᵀ))·V`, added to the text.

use tch::{Kind, Tensor};

use super::{
    TrainingFree,
    calibrate::{Calibration, STRENGTH},
    numbers,
    search::{Outcome, Search, given_or, rough_fit},
};
use crate::{
    error::TipError,
    grid::{GridValues as _, TIP_ALPHA, TIP_BETA},
    head::{HeadTensors, Values},
    hold_out::HoldOut,
    material::Material,
    request::HeadRequest,
    score::{Numbers, Scored, right},
    spec::{ClassBalance, Method, SelectionSource},
    spread::wrong_class_spread,
    temperature::{Fit, Near, fit_held_near, fit_temperature},
    tip_adapter::{cache_logits, class_factors, search_kind, seen_counts, sweep},
    told::Told,
};

/// Tip-Adapter, as the module's head describes it.
pub(super) struct TipAdapter;

/// The best candidate so far: its right answers, hyperparameters, logits, and
/// its temperature if requested.
type Best = (i64, Numbers, Tensor, Option<Fit>);

impl TrainingFree for TipAdapter {
    fn method(&self) -> Method {
        Method::TipAdapter
    }

    fn name(&self) -> &'static str {
        "Tip-Adapter"
    }

    fn all_given(&self, request: &HeadRequest) -> bool {
        request.alpha.is_some() && request.beta.is_some()
    }

    /// By the official grid each key is masked in turn, as it is commonly done.
    /// That leaves the own class one key short, which a large β makes good: at
    /// few shots it chooses the largest there is, and probabilities suffer
    /// (`docs/accuracy.md`).
    fn hold_out(
        &self,
        material: &Material,
        request: &HeadRequest,
    ) -> Result<Option<HoldOut>, TipError> {
        if request.grid.is_official() {
            HoldOut::one_out(material)
        } else {
            HoldOut::one_of_each_out(material)
        }
    }

    fn search(&self, search: &Search<'_>) -> Result<Outcome, TipError> {
        let (material, request, held) = (search.material, search.request, search.held);
        let grid = &request.grid;
        let free = material.text.is_none() && request.alpha.is_none() && !grid.is_official();
        let best = if free {
            calm_beta(search, self.spread_factor(material.shots()?))?
        } else {
            best_of(search)?.map(|(_, numbers, logits, _)| (numbers, logits))
        };
        let Some((numbers, logits)) = best else {
            return Ok(Outcome::Skipped("nothing to try".to_owned()));
        };
        let mut scored = Scored::new(numbers, &logits, &held.labels)?;
        let calibration = Calibration {
            method: self,
            material,
            numbers: &numbers,
            balance: request.class_balance,
        };
        if held.source == SelectionSource::LeaveOneOut {
            scored.temperature = calibration.by_rounds()?.unwrap_or(scored.temperature);
        } else {
            scored.temperature = calibration.by_held(&logits, held)?;
        }
        if free {
            scored.numbers.alpha = 1.0 / scored.temperature;
            scored.temperature = 1.0;
        }
        Ok(Outcome::Scored(scored))
    }

    fn defaults(&self, _: &Material, request: &HeadRequest) -> Result<Numbers, TipError> {
        Ok(Numbers {
            alpha: request.alpha.unwrap_or(TIP_ALPHA),
            beta: request.beta.unwrap_or(TIP_BETA),
            ..numbers(Method::TipAdapter)
        })
    }

    fn spread_factor(&self, _shots: f64) -> f64 {
        0.6
    }

    fn one_shot_factor(&self) -> f64 {
        0.85
    }

    fn all_shots_variance(
        &self,
        calibration: &Calibration<'_>,
        left_out: &Tensor,
        labels: &Tensor,
        held: &HoldOut,
    ) -> Result<f64, TipError> {
        calibration.variance_ratio(left_out, labels, held)
    }

    /// Sums over a class's keys are scaled up to all of its shots.
    fn held_term(
        &self,
        material: &Material,
        numbers: &Numbers,
        balance: ClassBalance,
        held: &HoldOut,
    ) -> Result<Option<Tensor>, TipError> {
        let logits = cache_logits(material, numbers, balance, held)?;
        if balance == ClassBalance::Mean {
            return Ok(Some(logits));
        }
        let counts = material.counts()?.f_to_kind(Kind::Double)?;
        let seen = seen_counts(material, held)?.f_clamp_min(1.0)?;
        Ok(Some(logits.f_mul(&counts.f_div(&seen)?)?))
    }

    fn key_term(
        &self,
        material: &Material,
        numbers: &Numbers,
        balance: ClassBalance,
        keys: &HoldOut,
    ) -> Result<Tensor, TipError> {
        let alone = keys.each_alone(material)?;
        cache_logits(material, numbers, balance, &alone)
    }

    fn add_to(
        &self,
        head: &mut HeadTensors,
        material: &Material,
        numbers: &Numbers,
        balance: ClassBalance,
    ) -> Result<(), TipError> {
        let weight = class_factors(material, balance)?;
        let values = Values::OneHot {
            labels: material.labels.f_contiguous()?,
            weight: weight.f_mul_scalar(numbers.alpha)?,
        };
        head.cache = Some((material.keys.f_contiguous()?, values));
        Ok(())
    }
}

/// A β without text, where α only scales the logits and is set by the temperature
/// afterwards.
struct Tried {
    beta: f64,
    /// Which held-out examples it has right, i64 [Q].
    right: Tensor,
    /// Their number.
    count: i64,
    /// Cross-entropy at its temperature, and what is unlikely of the β itself.
    cost: f64,
}

/// Among the β that have not clearly fewer examples right than the best (by more than
/// one standard error of the paired difference), the one of the lowest cross-entropy.
///
/// A large β lets only the nearest key speak. That may have an example or two more
/// right, but then all held-out logits are next to nothing, the temperature that
/// makes up for it knows no bound, and a picture a little nearer than they were is
/// as certain as can be. So the temperature is held near the spread's, and β near the
/// authors' with the strength of one example (`docs/accuracy.md`, "Calibration").
fn calm_beta(
    search: &Search<'_>,
    spread_factor: f64,
) -> Result<Option<(Numbers, Tensor)>, TipError> {
    let (material, request, held) = (search.material, search.request, search.held);
    let betas = given_or(request.beta, request.grid.betas());
    let told = Told::of(material)?;
    let labels = told.labels(&held.labels)?;
    let examples = held.count().max(1) as f64;
    let kind = search_kind(material, held, betas.len());
    let mut tried: Vec<Tried> = Vec::new();
    let mut visit = |at: usize, logits: &Tensor| {
        search.watch.step(Method::TipAdapter, at, betas.len())?;
        let beta = betas.get(at).copied().unwrap_or_default();
        let right = logits.f_argmax(1, false)?.f_eq_tensor(&held.labels)?;
        let logits = told.logits(logits)?;
        let fit = match wrong_class_spread(&logits, &labels, None)? {
            Some(spread) if spread > 0.0 => {
                let temperature = spread * spread_factor;
                fit_held_near(
                    &logits,
                    &labels,
                    Near {
                        temperature,
                        strength: STRENGTH,
                    },
                )?
            }
            _ => fit_temperature(&logits, &labels)?,
        };
        tried.push(Tried {
            beta,
            count: right.f_sum(Kind::Int64)?.f_int64_value(&[])?,
            right,
            cost: fit.cross_entropy + (beta / TIP_BETA).ln().powi(2) / examples,
        });
        Ok(())
    };
    sweep(
        material,
        held,
        &betas,
        request.class_balance,
        kind,
        &mut visit,
    )?;
    let Some(most) = tried
        .iter()
        .reduce(|a, b| if b.count > a.count { b } else { a })
    else {
        return Ok(None);
    };
    let mut best = most;
    for one in &tried {
        let differ = one.right.f_ne_tensor(&most.right)?.f_sum(Kind::Int64)?;
        let standard_error = differ.f_double_value(&[])?.sqrt();
        if (most.count - one.count) as f64 <= standard_error && one.cost < best.cost {
            best = one;
        }
    }
    let numbers = Numbers {
        alpha: 1.0,
        beta: best.beta,
        ..numbers(Method::TipAdapter)
    };
    let logits = cache_logits(material, &numbers, request.class_balance, held)?;
    Ok(Some((numbers, logits)))
}

/// β outer, α inner. Official: the first best accuracy. Wide: ties go to the
/// lower cross-entropy (at its fitted temperature).
fn best_of(search: &Search<'_>) -> Result<Option<Best>, TipError> {
    let (material, request, held) = (search.material, search.request, search.held);
    let grid = &request.grid;
    let betas = given_or(request.beta, grid.betas());
    let mut alphas = given_or(request.alpha, grid.alphas());
    if material.text.is_none() {
        // Without text α only scales the logits: no later one beats the first.
        alphas.truncate(1);
    }
    let kind = search_kind(material, held, betas.len());
    let text = search.text_logits(kind)?;
    let labels = &held.labels;
    let mut best: Option<Best> = None;
    let mut near = None;
    let mut visit = |at: usize, cache: &Tensor| {
        search.watch.step(Method::TipAdapter, at, betas.len())?;
        let beta = betas.get(at).copied().unwrap_or_default();
        for &alpha in &alphas {
            let mut logits = cache.f_mul_scalar(alpha)?;
            if let Some(text) = &text {
                logits = logits.f_add_(text)?;
            }
            let now = right(&logits, labels)?;
            let numbers = Numbers {
                alpha,
                beta,
                ..numbers(Method::TipAdapter)
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
                    // Neighbours on the grid have similar temperatures.
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
    sweep(
        material,
        held,
        &betas,
        request.class_balance,
        kind,
        &mut visit,
    )?;
    Ok(best)
}
