//! How much each encoder of a joined bundle counts in a version.
//!
//! A joined bundle's feature is [√w₁·f₁; √w₂·f₂; …] of unit vectors fᵢ. A
//! version with the weights vᵢ works on [√v₁·f₁; √v₂·f₂; …]: the bundle's
//! feature with each part times √(vᵢ/wᵢ). Its features are stored so, and all
//! that is computed from them is consistent. What the encoder gives for a
//! picture to be classified stays the bundle's; the head takes it unchanged,
//! because the factors are multiplied into its tensors when it is loaded.

use half::f16;
use tch::{Kind, Tensor};

use super::CatalogError;
use tip_adapter::{
    head::{HeadTensors, StandardisedPart},
    make::{self, HeadRequest},
    material::Material,
    standardise::{Standardise, Statistics},
};
use tip_spec::Method;
use tipserve_store::PartWeight;

/// What the ratio of a part's weight to the others' is multiplied by, one part
/// after the other. At an 81st a part is as good as left out, as one must be
/// that tells nothing.
const RATIOS: [f64; 6] = [1.0 / 81.0, 1.0 / 9.0, 1.0 / 3.0, 3.0, 9.0, 81.0];
/// Text weights below this are the zeros of the parts without text.
const NO_TEXT: f64 = 1e-6;

/// A version's weights as a factor √(vᵢ/wᵢ) for each dimension.
#[derive(Clone, Debug)]
pub(super) struct Weighing {
    factors: Vec<f32>,
}

impl Weighing {
    /// None if the weights are the bundle's own.
    pub(super) fn of(parts: &[PartWeight]) -> Option<Weighing> {
        if parts.iter().all(|part| part.used == part.bundle) {
            return None;
        }
        let factors = parts.iter().flat_map(|part| {
            let factor = (part.used / part.bundle).sqrt() as f32;
            std::iter::repeat_n(factor, part.width)
        });
        Some(Weighing {
            factors: factors.collect(),
        })
    }

    /// The bundle's unit features as the version's, in place: [M, D] by rows.
    pub(super) fn apply(&self, rows: &mut [f32]) {
        self.each(rows, |value, factor| value * factor);
    }

    /// The same for views.
    pub(super) fn apply_to_views(&self, rows: &mut [f16]) {
        self.each_view(rows, |value, factor| value * factor);
    }

    /// The version's features as the bundle's again.
    pub(super) fn undo(&self, rows: &mut [f32]) {
        self.each(rows, |value, factor| value / factor);
    }

    /// The same for views.
    pub(super) fn undo_for_views(&self, rows: &mut [f16]) {
        self.each_view(rows, |value, factor| value / factor);
    }

    fn each_view(&self, rows: &mut [f16], change: impl Fn(f32, f32) -> f32) {
        let mut wide: Vec<f32> = rows.iter().map(|value| value.to_f32()).collect();
        self.each(&mut wide, change);
        for (value, wide) in rows.iter_mut().zip(wide) {
            *value = f16::from_f32(wide);
        }
    }

    /// The mean of several views has parts of other lengths than the weights
    /// say, so rows are made unit ones again.
    fn each(&self, rows: &mut [f32], change: impl Fn(f32, f32) -> f32) {
        for row in rows.chunks_exact_mut(self.factors.len().max(1)) {
            for (value, factor) in row.iter_mut().zip(&self.factors) {
                *value = change(*value, *factor);
            }
            let squares = row.iter().map(|value| f64::from(*value).powi(2));
            let norm = squares.sum::<f64>().sqrt();
            if norm > 0.0 {
                for value in row {
                    *value = (f64::from(*value) / norm) as f32;
                }
            }
        }
    }

    /// A feature as the version's head sees it, not made a unit one again.
    pub(super) fn seen(&self, feature: &[f32]) -> Vec<f32> {
        let pairs = feature.iter().zip(&self.factors);
        pairs.map(|(value, factor)| value * factor).collect()
    }

    fn tensor(&self) -> Result<Tensor, CatalogError> {
        Tensor::f_from_slice(&self.factors).map_err(CatalogError::internal)
    }

    /// Rows [M, D] times the factors.
    pub(super) fn times(&self, rows: &Tensor) -> Result<Tensor, CatalogError> {
        rows.f_mul(&self.tensor()?).map_err(CatalogError::internal)
    }

    /// A head of the version's features as one of the bundle's: with the
    /// factors D it is f′ = D·f, f′·k′ = f·(D·k′), and (f′ − μ)·σ =
    /// (f − μ/D)·(D·σ).
    pub(super) fn fold(&self, head: HeadTensors) -> Result<HeadTensors, CatalogError> {
        let factors = self.tensor()?;
        let times = |rows: &Tensor| rows.f_mul(&factors).map_err(CatalogError::internal);
        let HeadTensors {
            classes,
            linear,
            bias,
            cache,
            standardised,
        } = head;
        // Keys on the standardised scale do not depend on the factors.
        let cache = match (cache, &standardised) {
            (Some((keys, values)), None) => Some((times(&keys)?, values)),
            (cache, _) => cache,
        };
        let standardised = match standardised {
            None => None,
            Some(part) => Some(StandardisedPart {
                by: Standardise {
                    shift: (part.by.shift.f_div(&factors)).map_err(CatalogError::internal)?,
                    scale: times(&part.by.scale)?,
                },
                linear: part.linear,
            }),
        };
        Ok(HeadTensors {
            classes,
            linear: linear.map(|linear| times(&linear)).transpose()?,
            bias,
            cache,
            standardised,
        })
    }

    /// Statistics of the bundle's features as those of the version's.
    pub(super) fn statistics(&self, of: &Statistics) -> Result<Statistics, CatalogError> {
        let factors = self.tensor()?;
        let squared = factors.f_square().map_err(CatalogError::internal)?;
        let times = |rows: &Tensor, by: &Tensor| rows.f_mul(by).map_err(CatalogError::internal);
        Ok(Statistics {
            mean: times(&of.mean, &factors)?,
            variance: times(&of.variance, &squared)?,
        })
    }

    /// What a version divides the logit scale by, so that its text's logits are
    /// the bundle's: the factor of the one part that has text.
    ///
    /// # Errors
    /// torch's.
    pub(super) fn of_text(
        &self,
        parts: &[PartWeight],
        text: Option<&Tensor>,
    ) -> Result<f64, CatalogError> {
        let Some(text) = text else {
            return Ok(1.0);
        };
        let Some(part) = text_part(parts, text)? else {
            return Ok(1.0);
        };
        Ok((part.used / part.bundle).sqrt())
    }
}

/// The part that all text weights [N, D] lie in; none if they lie in several.
fn text_part(parts: &[PartWeight], text: &Tensor) -> Result<Option<PartWeight>, CatalogError> {
    let mut found = None;
    let mut start = 0;
    for part in parts {
        let largest = text
            .f_narrow(1, start, part.width as i64)
            .and_then(|rows| rows.f_abs()?.f_max()?.f_double_value(&[]))
            .map_err(CatalogError::internal)?;
        start += part.width as i64;
        if largest > NO_TEXT {
            if found.is_some() {
                return Ok(None);
            }
            found = Some(*part);
        }
    }
    Ok(found)
}

/// The weights under which the examples tell each other's classes best: the
/// mean cross-entropy of the validation examples if there are any, else of the
/// examples left out one by one, by the request's method (Tip-Adapter for AUTO,
/// which takes a hundredth of its time). The bundle's own weights where nothing
/// is left out, and where none are better by a standard error.
///
/// # Errors
/// Material that no head can be made of; cancelled; torch's.
pub(super) fn choose(
    material: &Material,
    request: &HeadRequest,
    parts: Vec<PartWeight>,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<PartWeight>, CatalogError> {
    let text_is_elsewhere = match &material.text {
        Some(text) => text_part(&parts, text)?.is_none(),
        None => false,
    };
    let is_text_alone = request.method == Some(Method::ZeroShot) || material.key_count() == 0;
    if parts.len() < 2 || text_is_elsewhere || is_text_alone {
        return Ok(parts);
    }
    let Some(mut best) = log_likelihoods(material, request, &parts, stop)? else {
        return Ok(parts);
    };
    let mut chosen = parts;
    // Of two parts the second's ratios are the first's, turned round.
    let turns = if chosen.len() == 2 { 1 } else { chosen.len() };
    for at in 0..turns {
        let start = chosen.clone();
        for ratio in RATIOS {
            let tried = tilted(&start, at, ratio);
            let found = log_likelihoods(material, request, &tried, stop)?;
            if let Some(found) = found.filter(|found| is_better(found, &best)) {
                (best, chosen) = (found, tried);
            }
        }
    }
    Ok(chosen)
}

/// The weights with one part's ratio to the others multiplied.
fn tilted(parts: &[PartWeight], at: usize, ratio: f64) -> Vec<PartWeight> {
    let weight = |(index, part): (usize, &PartWeight)| match index == at {
        true => part.used * ratio,
        false => part.used,
    };
    let sum: f64 = parts.iter().enumerate().map(weight).sum();
    let parts = parts.iter().enumerate();
    parts
        .map(|(index, part)| PartWeight {
            used: weight((index, part)) / sum,
            ..*part
        })
        .collect()
}

/// Whether the mean of paired log-likelihoods is larger by more than one
/// standard error of the difference (the rule of Breiman et al. 1984, 3.4.3):
/// what is less than that is chance, or an encoder that a sharper β makes up
/// for. Two would keep an encoder of random weights at four examples a class.
fn is_better(found: &[f64], best: &[f64]) -> bool {
    let gains: Vec<f64> = found.iter().zip(best).map(|(new, old)| new - old).collect();
    let count = gains.len() as f64;
    if found.len() != best.len() || count < 2.0 {
        return false;
    }
    let mean = gains.iter().sum::<f64>() / count;
    let squares = gains.iter().map(|gain| (gain - mean).powi(2)).sum::<f64>();
    mean > (squares / (count - 1.0) / count).sqrt()
}

/// The log-likelihood of each unseen example's class under these weights, in
/// nats; always in the same order.
fn log_likelihoods(
    material: &Material,
    request: &HeadRequest,
    parts: &[PartWeight],
    stop: &dyn Fn() -> bool,
) -> Result<Option<Vec<f64>>, CatalogError> {
    let method = match request.method {
        None | Some(Method::Stack) => Method::TipAdapter,
        Some(method) => method,
    };
    let request = HeadRequest {
        method: Some(method),
        ..request.clone()
    };
    let material = weighed(material, parts)?;
    let made = make::make(&material, &request, &|_| !stop())?;
    let Some(unseen) = made.unseen else {
        return Ok(None);
    };
    let own = unseen.own.f_to_kind(Kind::Double);
    let own = own.and_then(Vec::<f64>::try_from);
    let own = own.map_err(CatalogError::internal)?;
    Ok(Some(own).filter(|own| own.iter().all(|value| value.is_finite())))
}

/// Material of the bundle's features under these weights.
fn weighed(material: &Material, parts: &[PartWeight]) -> Result<Material, CatalogError> {
    let weighing = Weighing::of(parts);
    let features = |rows: &Tensor| -> Result<Tensor, CatalogError> {
        let Some(weighing) = &weighing else {
            return Ok(rows.shallow_clone());
        };
        let norms = |rows: &Tensor| rows.f_norm_scalaropt_dim(2.0, [1i64].as_slice(), true);
        let times = weighing.times(rows)?;
        norms(&times)
            .and_then(|norm| times.f_div(&norm))
            .map_err(CatalogError::internal)
    };
    let text = material.text.as_ref();
    let of_text = match &weighing {
        Some(weighing) => weighing.of_text(parts, text)?,
        None => 1.0,
    };
    let statistics = material.statistics.as_ref();
    Ok(Material {
        keys: features(&material.keys)?,
        labels: material.labels.shallow_clone(),
        classes: material.classes,
        views: None,
        text: text.map(Tensor::shallow_clone),
        validation: match &material.validation {
            Some((rows, labels)) => Some((features(rows)?, labels.shallow_clone())),
            None => None,
        },
        logit_scale: material.logit_scale / of_text,
        statistics: match (&weighing, statistics) {
            (Some(weighing), Some(statistics)) => Some(weighing.statistics(statistics)?),
            (None, statistics) => statistics.map(Statistics::shallow_clone),
            (Some(_), None) => None,
        },
        unlabelled: None,
    })
}
