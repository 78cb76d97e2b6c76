//! A scale of the features, and the parts of a stack on it.

use tch::{Kind, Tensor};

use super::{
    as_new::Scaled,
    held::{self, As},
    left_out,
    part::{Part, Scale},
    text, weights,
};
use crate::{
    error::TipError,
    grid::{PROKER_BETA, PROKER_LAMBDA},
    hold_out::HoldOut,
    kernel_ridge::{DOUBLE_KEYS, Fitted, KernelRidge},
    material::Material,
    proker::check_keys,
    score::right,
    spec::{Candidate, Method, Standardised},
    spread::RIDGE_ONE_SHOT,
    standardise::{Standardise, Statistics},
    told::Told,
    watch::Watch,
};

/// Kernel ridge regression's β on standardised features, whose cosines are
/// spread wider than plain ones.
const STANDARDISED_BETA: f64 = 1.5;

/// Keys on which the scale of the features is decided if there are over
/// [`DOUBLE_KEYS`]: each is left out on both scales, which with 4,096 of a thousand
/// classes took a third of all the time.
const SCALE_KEYS: i64 = 2048;

/// The share of its ridge that GDA keeps on plain features.
const PLAIN_GDA_RIDGE: f64 = 0.25;

/// Shots from which kernel ridge regression's λ falls on plain features, and up to
/// which.
const RIDGE_SHOTS: (f64, f64) = (4.0, 16.0);

/// How much of its ridge a part keeps on features of a scale.
///
/// A ridge shrinks all directions alike. Plain features are those whose dimensions
/// vary unevenly: much of what tells classes apart is in directions that hardly
/// vary, which the ridge hides. So GDA keeps a quarter. Kernel ridge regression, which
/// pools no covariance, needs shots to learn these directions from: the more there
/// are, the less it keeps. On standardised features it does not matter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ridges {
    pub gda: f64,
    pub kernel: f64,
}

impl Ridges {
    fn of(whose: Option<Standardised>, shots: f64) -> Self {
        let (from, to) = RIDGE_SHOTS;
        match whose {
            Some(_) => Self {
                gda: 1.0,
                kernel: 1.0,
            },
            None => Self {
                gda: PLAIN_GDA_RIDGE,
                kernel: from / shots.clamp(from, to),
            },
        }
    }
}

/// Plain or standardised features, and the kernel ridge regression on them.
#[derive(Debug)]
pub(super) struct Space {
    whose: Option<Standardised>,
    pub by: Option<Standardise>,
    /// The keys on this scale, f32 [M, D].
    pub keys: Tensor,
    /// The shares of their ridges that the parts keep.
    pub ridges: Ridges,
    /// Kernel ridge regression on one-hot labels; none if there are too many
    /// keys.
    pub ridge: Option<Fitted>,
    too_many: Option<String>,
}

/// Parts with their temperatures and weights.
#[derive(Debug)]
pub(super) struct Fit {
    pub space: Space,
    pub parts: Vec<Part>,
    pub left_out: Vec<Candidate>,
    /// Accuracy of the sum on the held-out examples; 0 if there are none.
    pub accuracy: f64,
    /// Cross-entropy of each held-out example; none if there are none.
    pub losses: Option<Tensor>,
    /// Logits of the held-out examples, f64 [Q, classes that can be told]; none
    /// if there are none.
    pub logits: Option<Tensor>,
}

impl Space {
    /// None if these statistics are missing, or nothing varies in them. `held`: the
    /// examples that it will be scored on, if there are any.
    pub fn new(
        material: &Material,
        whose: Option<Standardised>,
        held: Option<&HoldOut>,
        watch: &Watch<'_>,
    ) -> Result<Option<Self>, TipError> {
        watch.step(Method::Stack, 0, 1)?;
        let by = match whose {
            None => None,
            Some(Standardised::Own) => Standardise::by(&Statistics::of(&material.keys)?)?,
            Some(Standardised::Bundle) => match &material.statistics {
                Some(statistics) => Standardise::by(statistics)?,
                None => None,
            },
        };
        if whose.is_some() && by.is_none() {
            return Ok(None);
        }
        let keys = match &by {
            Some(by) => by.apply(&material.keys)?,
            None => material.keys.f_contiguous()?,
        };
        let mut space = Self {
            ridges: Ridges::of(whose, material.shots()?),
            whose,
            by,
            keys,
            ridge: None,
            too_many: None,
        };
        match check_keys(material.key_count()) {
            Err(error) => space.too_many = Some(error.to_string()),
            Ok(()) => {
                let targets = material.labels.f_one_hot(material.n())?;
                let system = match only_round(held)? {
                    Some(last) => KernelRidge::to_leave_out(&space.keys, &targets, &last)?,
                    None => KernelRidge::new(&space.keys, &targets)?,
                };
                space.ridge = Some(system.factorise(space.beta(), space.lambda())?);
            }
        }
        Ok(Some(space))
    }

    pub fn whose(&self) -> Option<Standardised> {
        self.whose
    }

    pub fn beta(&self) -> f64 {
        match self.whose {
            Some(_) => STANDARDISED_BETA,
            None => PROKER_BETA,
        }
    }

    pub fn lambda(&self) -> f64 {
        if self
            .keys
            .size()
            .first()
            .is_some_and(|&keys| keys > DOUBLE_KEYS)
        {
            // Solved in f32, whose error only λ bounds.
            return PROKER_LAMBDA;
        }
        self.ridges.kernel * PROKER_LAMBDA
    }

    pub fn scaled(&self) -> Scaled<'_> {
        Scaled {
            by: self.by.as_ref(),
            keys: &self.keys,
            beta: self.beta(),
            lambda: self.lambda(),
            share: self.ridges.gda,
            ridge: self.ridge.as_ref(),
        }
    }

    /// Temperatures and weights by held-out examples; none if there is no part.
    pub fn fit(
        self,
        material: &Material,
        held: &HoldOut,
        how: As,
        watch: &Watch<'_>,
    ) -> Result<Option<Fit>, TipError> {
        let labels = Told::of(material)?.labels(&held.labels)?;
        let (mut parts, mut scaled, mut left) = (Vec::new(), Vec::new(), Vec::new());
        let mut add = |part: Part, logits: &Tensor| -> Result<(), TipError> {
            scaled.push(logits.f_div_scalar(part.temperature)?);
            parts.push(part);
            Ok(())
        };
        let shots = material.shots()?;
        let found = held::logits(&self, material, held, how, watch)?;
        let too_many = self.too_many.as_deref().unwrap_or_default();
        for (method, logits, missing) in [
            (Method::Gda, found.gda, NOTHING_VARIES),
            (Method::Proker, found.ridge, too_many),
        ] {
            let Some(logits) = logits else {
                left.push(left_out(method, missing));
                continue;
            };
            match Part::fitted(method, &logits, &labels, shots)? {
                Some(part) => add(part, &logits)?,
                None => left.push(left_out(method, ALL_ALIKE)),
            }
        }
        match (
            text_part(material, &held.features, &labels)?,
            &material.text,
        ) {
            (Some((part, logits)), _) => add(part, &logits)?,
            (None, Some(_)) => left.push(left_out(Method::ZeroShot, NOT_EARNED)),
            (None, None) => left.push(left_out(Method::ZeroShot, NO_TEXT)),
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let fitted = weights::fit(&scaled, &labels, found.lack_a_shot.then_some(shots))?;
        let mut sum = Tensor::f_zeros_like(&scaled[0])?;
        for ((part, z), &weight) in parts.iter_mut().zip(&scaled).zip(&fitted.weights) {
            part.weight = weight;
            sum = sum.f_add_(&z.f_mul_scalar(weight)?)?;
        }
        Ok(Some(Fit {
            accuracy: right(&sum, &labels)? as f64 / labels.numel().max(1) as f64,
            space: self,
            parts,
            left_out: left,
            losses: Some(fitted.losses),
            logits: Some(sum),
        }))
    }

    /// The parts if nothing can be held out: kernel ridge regression at the
    /// temperature of its spread, and text at its own; none if there are too
    /// many keys for the former.
    pub fn by_spread(self, material: &Material) -> Result<Option<Fit>, TipError> {
        let Some(ridge) = &self.ridge else {
            return Ok(None);
        };
        let told = Told::of(material)?;
        let labels = told.labels(&material.labels)?;
        let out = neutral(material, &ridge.one_out_predictions()?)?;
        let spread = Part::spread(Method::Proker, &told.logits(&out)?, &labels, 1.0)?;
        let temperature = spread.map_or(1.0, |spread| spread * RIDGE_ONE_SHOT);
        let mut parts = vec![Part::unscored(Method::Proker, temperature)];
        let mut left = vec![left_out(
            Method::Gda,
            "its covariance needs a second example of most classes",
        )];
        match (text::earned(material)?, &material.text) {
            // Text has seen none of the examples: all of them score it.
            (Some(earned), Some(text)) => {
                let (features, labels) = (&material.keys, &material.labels);
                let logits = features
                    .f_to_kind(Kind::Double)?
                    .f_matmul(&text.f_to_kind(Kind::Double)?.f_tr()?)?;
                let mut part = Part::scored(
                    Method::ZeroShot,
                    &logits,
                    labels,
                    earned.fit.temperature,
                    earned.fit.cross_entropy,
                )?;
                part.weight = earned.weight;
                parts.push(part);
            }
            (None, Some(_)) => left.push(left_out(Method::ZeroShot, NOT_EARNED)),
            _ => left.push(left_out(Method::ZeroShot, NO_TEXT)),
        }
        Ok(Some(Fit {
            space: self,
            parts,
            left_out: left,
            accuracy: 0.0,
            losses: None,
            logits: None,
        }))
    }
}

const NOTHING_VARIES: &str = "nothing varies within a class: the pooled covariance is zero";
const ALL_ALIKE: &str = "its left-out logits are all alike";
const NO_TEXT: &str = "no text weights";
const NOT_EARNED: &str = "tells the examples no better than chance";

impl Fit {
    /// What the parts see, in a candidate's terms.
    pub fn scale(&self) -> Scale {
        Scale {
            beta: self.space.beta(),
            lambda: self.space.lambda(),
            whose: self.space.whose,
        }
    }

    /// The sum as a candidate.
    pub fn candidate(&self) -> Candidate {
        let entropy = self
            .losses
            .as_ref()
            .and_then(|losses| losses.f_mean(Kind::Double).ok())
            .and_then(|mean| mean.f_double_value(&[]).ok());
        Candidate {
            method: Method::Stack,
            alpha: 0.0,
            beta: self.space.beta(),
            lambda: self.space.lambda(),
            accuracy: self.accuracy,
            cross_entropy: entropy.unwrap_or(0.0),
            weight: None,
            temperature: Some(1.0),
            standardised: self.space.whose,
            skipped: self.losses.is_none().then(|| {
                "not scored: without a second example of most classes there is none to leave \
                     out; weights are not fitted"
                    .to_owned()
            }),
        }
    }
}

/// Text as a part, and its logits of held-out examples; none if it tells them no
/// better than chance.
fn text_part(
    material: &Material,
    features: &Tensor,
    labels: &Tensor,
) -> Result<Option<(Part, Tensor)>, TipError> {
    let (Some(earned), Some(text)) = (text::earned(material)?, &material.text) else {
        return Ok(None);
    };
    let temperature = earned.fit.temperature;
    let f = features.f_to_kind(Kind::Double)?;
    let logits = f.f_matmul(&text.f_to_kind(Kind::Double)?.f_tr()?)?;
    let at = crate::temperature::cross_entropy(&logits, labels, temperature)?;
    let part = Part::scored(Method::ZeroShot, &logits, labels, temperature, at)?;
    Ok(Some((part, logits)))
}

/// Columns [.., N] in which a class without examples has the mean of the
/// others': neither for nor against it.
pub(super) fn neutral(material: &Material, columns: &Tensor) -> Result<Tensor, TipError> {
    let present = material.counts()?.f_gt(0)?;
    if present.f_all()?.f_int64_value(&[])? != 0 {
        return Ok(columns.shallow_clone());
    }
    let share = present.f_to_kind(columns.kind())?;
    let share = share.f_div(&share.f_sum(columns.kind())?.f_clamp_min(1.0)?)?;
    let mean = columns.f_matmul(&share)?.f_unsqueeze(1)?;
    Ok(mean.f_where_self(&present.f_logical_not()?, columns)?)
}

/// The keys that are left out, if all of them are together.
fn only_round(held: Option<&HoldOut>) -> Result<Option<Tensor>, TipError> {
    let Some(held) = held.filter(|held| held.leaves_out()) else {
        return Ok(None);
    };
    Ok(match held.split()?.as_slice() {
        [only] => Some(only.left_out.shallow_clone()),
        _ => None,
    })
}

/// The first shots of every class, about [`SCALE_KEYS`] in all; none if two of each
/// are more than [`DOUBLE_KEYS`].
pub(super) fn some_shots(material: &Material) -> Result<Option<Material>, TipError> {
    let classes = material.n().max(1);
    let shots = (SCALE_KEYS / classes).max(2);
    if shots * classes > DOUBLE_KEYS {
        return Ok(None);
    }
    let mut seen = vec![0i64; material.classes];
    let mut rows: Vec<i64> = Vec::new();
    for (row, label) in Vec::<i64>::try_from(&material.labels)?
        .into_iter()
        .enumerate()
    {
        let count = usize::try_from(label).ok().and_then(|c| seen.get_mut(c));
        if let Some(count) = count.filter(|count| **count < shots) {
            *count += 1;
            rows.push(row as i64);
        }
    }
    Ok(Some(Material {
        statistics: None,
        ..material.with_rows(&Tensor::f_from_slice(&rows)?)?
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys that the scale is decided on, of classes with some shots each.
    fn decided_on(classes: i64, shots: i64) -> Option<i64> {
        let labels = Tensor::arange(classes, (Kind::Int64, tch::Device::Cpu));
        let labels = labels.repeat([shots]);
        let material = Material {
            keys: Tensor::ones([classes * shots, 2], (Kind::Float, tch::Device::Cpu)),
            labels,
            classes: usize::try_from(classes).expect("classes"),
            views: None,
            text: None,
            validation: None,
            logit_scale: 100.0,
            statistics: None,
            unlabelled: None,
        };
        let some = some_shots(&material).expect("torch");
        some.map(|some| some.key_count())
    }

    #[test]
    fn the_scale_is_decided_on_some_two_thousand_keys() {
        assert_eq!(decided_on(20, 300), Some(2040));
        assert_eq!(decided_on(1000, 5), Some(2000));
        assert_eq!(decided_on(2048, 3), Some(4096));
        assert_eq!(decided_on(2049, 3), None);
    }
}
