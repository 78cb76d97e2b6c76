//! Examples of no class ("none of these") sharpen a version's score for
//! pictures of unknown classes.
//!
//! `score = log Σ exp(logits/T) − w·(c − c̄)`, where
//! `c(f) = log Σ_u exp(−β(1 − f′·u)) − log Σ_s exp(−β(1 − f′·s))` is the
//! logarithm of a ratio of kernel densities: of the examples of no class over
//! those of the classes (the likelihood ratio of Ren et al., NeurIPS 2019, with
//! densities that need no training). The head itself does not change: no such
//! example becomes a key or moves a logit.
//!
//! β is 2 over the standard deviation of the cosines between the
//! examples of the classes; w brings c to half of the spread that the
//! energy has over examples that the head has not seen. Both were chosen on
//! draws of DTD and Caltech101 (`docs/accuracy.md`).

use tch::{Device, Kind, TchError, Tensor};

use super::{
    dimensions::{column_count, row_count},
    error::TipError,
    left_out,
    made::Made,
    material::{Material, check_features},
    spec::ContrastSpec,
    standardise::{Standardise, Statistics},
};

/// β times the standard deviation of the cosines between known examples.
const SHARPNESS: f64 = 2.0;

/// Spread of `w·c` over that of the energy, on examples of the classes.
const SHARE: f64 = 0.5;

/// Most examples of the classes that the density uses, evenly spread: 256 of
/// 1,600 did as well as all of them.
pub const KNOWN_LIMIT: usize = 256;

/// Most examples of no class that the density uses, evenly spread.
pub const NEGATIVE_LIMIT: usize = 2048;

/// Least standard deviation of cosines.
const LEAST_SPREAD: f64 = 1e-3;

/// Most keys that the feature statistics are computed from.
const STATISTICS_LIMIT: usize = 4096;

/// Features whose cosine exceeds 1 minus this are copies.
const COPY: f64 = 1e-5;

/// The two densities, ready to be evaluated.
#[derive(Debug)]
pub struct Contrast {
    width: usize,
    scale: Option<(Vec<f32>, Vec<f32>)>,
    /// Unit rows after standardisation, concatenated.
    known: Vec<f32>,
    negatives: Vec<f32>,
    beta: f64,
}

impl Contrast {
    /// Densities of the keys and of the examples of no class, f32 [M, D] and
    /// [U, D], neither empty. `by` is the head's standardisation.
    ///
    /// # Errors
    /// Torch's.
    pub fn new(
        keys: &Tensor,
        negatives: &Tensor,
        by: Option<&Standardise>,
        spec: &ContrastSpec,
    ) -> Result<Self, TipError> {
        let own = match (by, spec.own_scale) {
            (None, true) => own_scale(keys)?,
            _ => None,
        };
        Self::seen(keys, negatives, by.or(own.as_ref()), spec.beta)
    }

    fn seen(
        keys: &Tensor,
        negatives: &Tensor,
        by: Option<&Standardise>,
        beta: f64,
    ) -> Result<Self, TipError> {
        let rows = |rows: &Tensor, limit: usize| -> Result<Vec<f32>, TchError> {
            let some = spread_evenly(rows, limit)?.f_to_kind(Kind::Float)?;
            let seen = match by {
                Some(by) => by.apply(&some)?,
                None => some,
            };
            Vec::<f32>::try_from(seen.f_contiguous()?.f_flatten(0, -1)?)
        };
        let numbers = |t: &Tensor| Vec::<f32>::try_from(t.f_to_kind(Kind::Float)?);
        Ok(Self {
            width: column_count(keys)?.max(1) as usize,
            scale: match by {
                Some(by) => Some((numbers(&by.shift)?, numbers(&by.scale)?)),
                None => None,
            },
            known: rows(keys, KNOWN_LIMIT)?,
            negatives: rows(negatives, NEGATIVE_LIMIT)?,
            beta,
        })
    }

    /// c of a unit feature of the right width: how much more it resembles the
    /// examples of no class.
    pub fn of(&self, feature: &[f32]) -> f64 {
        self.ratio(feature, f64::INFINITY)
    }

    /// c, ignoring the examples that the feature is a copy of.
    fn left_out(&self, feature: &[f32]) -> f64 {
        self.ratio(feature, 1.0 - COPY)
    }

    fn ratio(&self, feature: &[f32], copy: f64) -> f64 {
        let seen = self.as_seen(feature);
        let density = |rows: &[f32], copy: f64| {
            let cosines: Vec<f64> = rows
                .chunks_exact(self.width)
                .map(|row| f64::from(dot(row, &seen)))
                .filter(|cosine| *cosine <= copy)
                .collect();
            log_sum_exp(cosines.iter().map(|cosine| -self.beta * (1.0 - cosine)))
        };
        // No unit vector is farther than the opposite one.
        let none = -2.0 * self.beta;
        density(&self.negatives, f64::INFINITY).max(none) - density(&self.known, copy).max(none)
    }

    fn as_seen(&self, feature: &[f32]) -> Vec<f32> {
        let Some((shift, scale)) = &self.scale else {
            return feature.to_vec();
        };
        let stretched: Vec<f32> = feature
            .iter()
            .zip(shift)
            .zip(scale)
            .map(|((value, shift), scale)| (value - shift) * scale)
            .collect();
        let norm = dot(&stretched, &stretched).sqrt().max(1e-12);
        stretched.into_iter().map(|value| value / norm).collect()
    }

    /// Bytes of memory it holds.
    pub fn size_bytes(&self) -> usize {
        (self.known.len() + self.negatives.len() + 2 * self.width) * size_of::<f32>()
    }
}

/// Sums in eight lanes, which the compiler turns into vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_parts, a_rest) = a.as_chunks::<8>();
    let (b_parts, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0_f32; 8];
    for (a, b) in a_parts.iter().zip(b_parts) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if most == f64::NEG_INFINITY {
        return most;
    }
    most + values.map(|value| (value - most).exp()).sum::<f64>().ln()
}

/// At most `limit` of the rows, evenly spread.
fn spread_evenly(rows: &Tensor, limit: usize) -> Result<Tensor, TchError> {
    let count = row_count(rows)?.max(0) as usize;
    if count <= limit {
        return Ok(rows.shallow_clone());
    }
    let picked: Vec<i64> = (0..limit).map(|i| (i * count / limit) as i64).collect();
    rows.f_index_select(0, &Tensor::f_from_slice(&picked)?)
}

/// Standardisation by the keys' own statistics, if their dimensions vary alike,
/// as the stack decides it.
fn own_scale(keys: &Tensor) -> Result<Option<Standardise>, TipError> {
    let some = spread_evenly(keys, STATISTICS_LIMIT)?;
    if row_count(&some)? < 2 {
        return Ok(None);
    }
    Standardise::by(&Statistics::of(&some)?)
}

/// Sharpens a head's score by examples of no class, f32 [U, D], unit rows:
/// changes the head's percentiles, and returns what serving needs. None if
/// there are no keys to hold the examples against.
///
/// # Errors
/// Negatives that are not finite unit rows of the width; torch's.
pub fn sharpen(
    material: &Material,
    made: &mut Made,
    negatives: &Tensor,
) -> Result<Option<ContrastSpec>, TipError> {
    let _no_grad = tch::no_grad_guard();
    let count = row_count(negatives)?;
    if count == 0 || material.key_count() == 0 {
        return Ok(None);
    }
    if negatives.size().get(1) != material.keys.size().get(1) {
        return Err(TipError::Shape {
            thing: "examples of no class",
            got: negatives.size(),
            expected: format!("[U, {}]", material.keys.size().get(1).unwrap_or(&0)),
        });
    }
    check_unit(negatives)?;
    let own_scale = made.tensors.standardised.is_none() && even(material)?;
    let by = match &made.tensors.standardised {
        Some(part) => Some(part.by.shallow_clone()),
        None if own_scale => self::own_scale(&material.keys)?,
        None => None,
    };
    let beta = SHARPNESS / spread(&material.keys, by.as_ref())?;
    let contrast = Contrast::seen(&material.keys, negatives, by.as_ref(), beta)?;
    let seen = match &made.unseen {
        Some(answers) => answers.features.shallow_clone(),
        None => spread_evenly(&material.keys, KNOWN_LIMIT)?,
    };
    let ratios = ratios(&contrast, &seen)?;
    let energies = match &made.unseen {
        Some(answers) => Vec::<f64>::try_from(&answers.known)?,
        // The head has not seen these either.
        None => left_out::energies(&made.spec, &made.tensors, negatives)?,
    };
    let (centre, ratio_spread) = moments(&ratios);
    let weight = match (moments(&energies).1, ratio_spread) {
        (_, 0.0) => 0.0,
        // A single example has no spread: use one nat, the energy's unit.
        (0.0, ratio_spread) => SHARE / ratio_spread,
        (energy_spread, ratio_spread) => SHARE * energy_spread / ratio_spread,
    };
    if let (Some(answers), Some(scores)) = (&made.unseen, made.spec.unseen.take()) {
        let known = Vec::<f64>::try_from(&answers.known)?;
        let sharpened: Vec<f64> = known
            .iter()
            .zip(&ratios)
            .map(|(known, ratio)| known - weight * (ratio - centre))
            .collect();
        made.spec.unseen = Some(scores.with_known(&sharpened));
    }
    Ok(Some(ContrastSpec {
        count: count as usize,
        beta,
        weight,
        centre,
        own_scale,
    }))
}

/// Whether examples of no class, [U, D], are finite unit rows.
///
/// # Errors
/// The first that is not.
pub fn check_unit(negatives: &Tensor) -> Result<(), TipError> {
    check_features("example of no class", negatives)
}

/// Whether the keys' dimensions vary alike.
fn even(material: &Material) -> Result<bool, TipError> {
    let keys = spread_evenly(&material.keys, STATISTICS_LIMIT)?;
    let count = row_count(&keys)?;
    if count < 2 {
        return Ok(false);
    }
    Statistics::of(&keys)?.is_even(count)
}

/// Standard deviation of the cosines between different keys, after
/// standardisation.
fn spread(keys: &Tensor, by: Option<&Standardise>) -> Result<f64, TipError> {
    let some = spread_evenly(keys, KNOWN_LIMIT)?.f_to_kind(Kind::Double)?;
    let seen = match by {
        Some(by) => by.apply(&some)?,
        None => some,
    };
    let count = row_count(&seen)?;
    if count < 3 {
        return Ok(1.0);
    }
    let cosines = seen.f_matmul(&seen.f_tr()?)?;
    let options = (Kind::Int64, Device::Cpu);
    let pairs = Tensor::f_tril_indices(count, count, -1, options)?;
    let values = cosines.f_index(&[Some(pairs.f_get(0)?), Some(pairs.f_get(1)?)])?;
    Ok(values.f_std(false)?.f_double_value(&[])?.max(LEAST_SPREAD))
}

/// c of each row, ignoring known examples that it is a copy of.
fn ratios(contrast: &Contrast, features: &Tensor) -> Result<Vec<f64>, TipError> {
    let flat = Vec::<f32>::try_from(
        features
            .f_to_kind(Kind::Float)?
            .f_contiguous()?
            .f_flatten(0, -1)?,
    )?;
    Ok(flat
        .chunks_exact(contrast.width)
        .map(|row| contrast.left_out(row))
        .collect())
}

/// Mean and standard deviation; zeros if there are no values.
fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / count).sqrt())
}
