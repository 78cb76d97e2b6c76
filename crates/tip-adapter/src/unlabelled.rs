//! Learning from unlabelled pictures: expectation–maximisation of the Gaussian
//! classifier ([`mixture`]) over a pool, initialised with the supervised head's
//! answers.
//!
//! The head becomes the mean of both: `logits = (head/T + EM/T′)/2`, over a
//! temperature fitted on unseen examples (validation examples, or folds of the
//! shots). They also decide whether the pool helps: the head stays as it was
//! unless their mean cross-entropy falls, with many shots by nearly its
//! standard error. At one shot a class nothing can be left out, and the pool is
//! used unchecked, if it is large: a small one mostly does harm then.
//!
//! Only AUTO's head learns from a pool: a method that is requested by name is
//! exactly that method.

use tch::{Kind, Tensor};

use super::{
    dimensions::{as_count, row_count},
    error::TipError,
    folds::folds,
    gda::NEVER,
    head::{HeadTensors, StandardisedPart, Values},
    made::Made,
    material::Material,
    request::{HeadRequest, Pool},
    score::right,
    spec::{HeadSpec, Method, UnlabelledUse},
    supervised::supervised,
    temperature::{Near, cross_entropy, fit_held_near},
    unseen::UnseenAnswers,
    watch::Watch,
};

mod familiar;
mod mixture;

use familiar::Fold;
use mixture::Mixture;

/// The weight of EM in the mean; the head has the rest.
const SHARE: f64 = 0.5;

/// Up to this many shots any gain counts; with more, the gain must come nearer
/// to its standard error, since a pool then adds less.
const FEW_SHOTS: f64 = 2.0;

/// Different pictures for each class that a pool needs, if unseen examples decide.
/// One that is smaller says next to nothing, and is used or not by chance.
const LEAST_CHECKED: usize = 1;

/// The same if nothing can decide. With up to five for each class the head mostly
/// lost, with eight of the classes' own it gained, with as many of other classes
/// among them at fifteen (`docs/accuracy.md`).
const LEAST_UNCHECKED: usize = 10;

const ALL_ALIKE: &str = "unlabelled pictures were not used: they are all alike";

/// How many examples the prior for a temperature of 1 counts as.
const STRENGTH: f64 = 5.0;

/// The head after learning from the material's pool, and the effect.
pub(super) fn learn(
    material: &Material,
    made: Made,
    request: &HeadRequest,
    watch: &Watch<'_>,
) -> Result<Made, TipError> {
    let Some(pool) = material.unlabelled() else {
        return Ok(made);
    };
    let count = usize::try_from(row_count(pool)?).unwrap_or(usize::MAX);
    if made.spec.method != Method::Stack {
        let reason = "not used: only AUTO learns from unlabelled pictures".to_owned();
        return Ok(with_record(made, unchecked(count, false, reason)));
    }
    let reason = match request.pool {
        Pool::Ignore => return Ok(made),
        Pool::Use => "unlabelled pictures were used, as was decided before".to_owned(),
        Pool::Decide => {
            let (different, classes) = (different(pool)?, present(material)?);
            if different < LEAST_CHECKED * classes {
                let reason = format!(
                    "unlabelled pictures were not used: {different} different ones are fewer \
                     than the {classes} classes"
                );
                return Ok(with_record(made, unchecked(count, false, reason)));
            }
            match judge(material, &made, request, watch)? {
                Some(judged) => return by_judgement(material, made, judged, count, watch),
                None if different < LEAST_UNCHECKED * classes => {
                    let reason = format!(
                        "unlabelled pictures were not used: whether they help could not be \
                         checked ({UNCHECKED}), and {different} different ones are fewer than \
                         {LEAST_UNCHECKED} for each of {classes} classes, from where on they \
                         mostly do"
                    );
                    return Ok(with_record(made, unchecked(count, false, reason)));
                }
                None => format!(
                    "{count} unlabelled pictures were used; whether they help could not be \
                     checked: {UNCHECKED}"
                ),
            }
        }
    };
    Ok(match mixed(material, &made, 1.0, watch)? {
        Some(with) => with_record(with, unchecked(count, true, reason)),
        None => with_record(made, unchecked(count, false, ALL_ALIKE.to_owned())),
    })
}

const UNCHECKED: &str =
    "too few classes have a second example, and there are no validation examples";

/// How many different pictures a pool has.
fn different(pool: &Tensor) -> Result<usize, TipError> {
    let (rows, _, _) = pool.f_unique_dim(0, true, false, false)?;
    Ok(as_count(row_count(&rows)?)?)
}

/// How many classes have examples.
fn present(material: &Material) -> Result<usize, TipError> {
    let present = material.counts()?.f_gt(0)?.f_sum(Kind::Int64)?;
    Ok(as_count(present.f_int64_value(&[])?)?)
}

/// What is recorded if no examples decided.
fn unchecked(count: usize, used: bool, reason: String) -> UnlabelledUse {
    UnlabelledUse {
        count,
        used,
        example_count: 0,
        cross_entropy_before: 0.0,
        cross_entropy_after: 0.0,
        accuracy_before: 0.0,
        accuracy_after: 0.0,
        reason,
    }
}

/// The head with or without the pool, as unseen examples say.
fn by_judgement(
    material: &Material,
    made: Made,
    judged: Judged,
    count: usize,
    watch: &Watch<'_>,
) -> Result<Made, TipError> {
    let shots = material.shots()?.max(1.0);
    let helped = judged.before - judged.after > (1.0 - FEW_SHOTS / shots).max(0.0) * judged.error;
    let with = match helped {
        true => mixed(material, &made, judged.temperature, watch)?,
        false => None,
    };
    let figures = format!(
        "cross-entropy {:.4} without and {:.4} with {count} unlabelled pictures on {} examples \
         that neither had seen, accuracy {:.1} % and {:.1} %",
        judged.before,
        judged.after,
        judged.count,
        100.0 * judged.right_before,
        100.0 * judged.right_after,
    );
    let record = |used, reason| UnlabelledUse {
        example_count: judged.count,
        cross_entropy_before: judged.before,
        cross_entropy_after: judged.after,
        accuracy_before: judged.right_before,
        accuracy_after: judged.right_after,
        ..unchecked(count, used, reason)
    };
    Ok(match with {
        Some(mut with) => {
            let record = record(true, format!("unlabelled pictures helped: {figures}"));
            let answers = as_served(material, judged, &with)?;
            with.spec.unseen = answers.scores()?;
            with.unseen = Some(answers);
            with_record(with, record)
        }
        None => {
            let reason = format!("unlabelled pictures did not help and were not used: {figures}");
            with_record(made, record(false, reason))
        }
    })
}

/// The answers for unseen examples, as familiar as the head that serves would find
/// them.
fn as_served(material: &Material, judged: Judged, with: &Made) -> Result<UnseenAnswers, TipError> {
    let Some(pool) = material.unlabelled().filter(|_| !judged.folds.is_empty()) else {
        return Ok(judged.answers);
    };
    let served = familiar::logits(with, &familiar::some(material, pool)?)?;
    let answers = judged.answers;
    let known = familiar::as_served(&answers.known, &judged.folds, judged.temperature, &served)?;
    Ok(UnseenAnswers { known, ..answers })
}

fn with_record(made: Made, record: UnlabelledUse) -> Made {
    Made {
        spec: HeadSpec {
            unlabelled: Some(record),
            ..made.spec
        },
        ..made
    }
}

/// The mean of a head and EM over the pool, over a temperature; none if
/// nothing differs in the pool.
fn mixed(
    material: &Material,
    made: &Made,
    temperature: f64,
    watch: &Watch<'_>,
) -> Result<Option<Made>, TipError> {
    let Some(mixture) = Mixture::fit(material, made, watch)? else {
        return Ok(None);
    };
    let of_head = (1.0 - SHARE) / (temperature * made.spec.temperature);
    let of_pool = SHARE / temperature;
    let absent = material.counts()?.f_eq(0)?;
    let tensors = made.tensors.shallow_clone();
    Ok(Some(Made {
        tensors: sum(tensors, of_head, &mixture, of_pool, material, &absent)?,
        spec: HeadSpec {
            temperature: 1.0,
            unseen: None,
            ..made.spec.clone()
        },
        unseen: None,
    }))
}

/// `a·head + b·EM` as one head.
fn sum(
    head: HeadTensors,
    a: f64,
    mixture: &Mixture,
    b: f64,
    material: &Material,
    absent: &Tensor,
) -> Result<HeadTensors, TipError> {
    let times = |t: Option<Tensor>| {
        t.map(|t| t.f_to_kind(Kind::Double)?.f_mul_scalar(a))
            .transpose()
    };
    let float = |t: Option<Tensor>| {
        t.map(|t| t.f_to_kind(Kind::Float)?.f_contiguous())
            .transpose()
    };
    let plus = |t: Option<Tensor>, added: &Tensor| -> Result<Option<Tensor>, TipError> {
        let added = added.f_mul_scalar(b)?;
        Ok(Some(match times(t)? {
            Some(t) => t.f_add(&added)?,
            None => added,
        }))
    };
    let mut bias = plus(head.bias, &mixture.bias)?;
    if material.text.is_none() {
        bias = bias.map(|b| b.f_masked_fill(absent, NEVER)).transpose()?;
    }
    let cache = match head.cache {
        Some((keys, Values::Dense(values))) => {
            Some((keys, Values::Dense(values.f_mul_scalar(a)?.f_contiguous()?)))
        }
        Some((keys, Values::OneHot { labels, weight })) => Some((
            keys,
            Values::OneHot {
                labels,
                weight: weight.f_mul_scalar(a)?,
            },
        )),
        None => None,
    };
    let (linear, standardised) = match head.standardised {
        Some(part) => (
            times(head.linear)?,
            Some(StandardisedPart {
                by: part.by,
                linear: float(plus(part.linear, &mixture.weight)?)?,
            }),
        ),
        None => (plus(head.linear, &mixture.weight)?, None),
    };
    Ok(HeadTensors {
        classes: head.classes,
        linear: float(linear)?,
        bias: float(bias)?,
        cache,
        standardised,
    })
}

/// The answers of heads without and with the pool for unseen examples.
struct Judged {
    /// Mean cross-entropy without the pool.
    before: f64,
    /// Mean cross-entropy with the pool, at the fitted temperature.
    after: f64,
    right_before: f64,
    right_after: f64,
    temperature: f64,
    /// Standard error of the difference of the cross-entropies.
    error: f64,
    count: usize,
    /// The answers of the head with the pool.
    answers: UnseenAnswers,
    /// The folds that the examples were left out in; none of validation examples.
    folds: Vec<Fold>,
}

/// None if there is nothing to judge on.
fn judge(
    material: &Material,
    made: &Made,
    request: &HeadRequest,
    watch: &Watch<'_>,
) -> Result<Option<Judged>, TipError> {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let (mut seen, mut labels) = (Vec::new(), Vec::new());
    let mut of_folds = Vec::new();
    if let Some((features, truth)) = material.validation() {
        before.push(familiar::logits(made, features)?);
        let with = mixed(material, made, 1.0, watch)?;
        after.push(familiar::logits(with.as_ref().unwrap_or(made), features)?);
        seen.push(features.shallow_clone());
        labels.push(truth.shallow_clone());
    } else {
        let request = HeadRequest {
            pool: Pool::Ignore,
            ..request.clone()
        };
        let pool = material.unlabelled();
        let pictures = pool
            .map(|pool| familiar::some(material, pool))
            .transpose()?;
        for fold in folds(material)? {
            let rest = material.with_rows(&fold.rest)?;
            let without = supervised(&rest, &request, watch)?;
            before.push(familiar::logits(&without, &fold.features)?);
            let with = mixed(&rest, &without, 1.0, watch)?;
            let with = with.as_ref().unwrap_or(&without);
            after.push(familiar::logits(with, &fold.features)?);
            if let Some(pool) = &pictures {
                of_folds.push(Fold {
                    examples: fold.labels.numel() as i64,
                    pool: familiar::logits(with, pool)?,
                });
            }
            seen.push(fold.features);
            labels.push(fold.labels);
        }
    }
    if labels.is_empty() {
        return Ok(None);
    }
    let (before, after) = (Tensor::f_cat(&before, 0)?, Tensor::f_cat(&after, 0)?);
    let (seen, labels) = (Tensor::f_cat(&seen, 0)?, Tensor::f_cat(&labels, 0)?);
    let count = labels.numel();
    let fit = fit_held_near(
        &after,
        &labels,
        Near {
            temperature: 1.0,
            strength: STRENGTH,
        },
    )?;
    let answers = UnseenAnswers::of(&seen, &labels, &after.f_div_scalar(fit.temperature)?)?;
    let own_before = UnseenAnswers::of(&seen, &labels, &before)?.own;
    let gain = answers.own.f_log()?.f_sub(&own_before.f_log()?)?;
    let error = if count > 1 {
        (gain.f_var(true)?.f_double_value(&[])? / count as f64).sqrt()
    } else {
        f64::INFINITY
    };
    let share = |right: i64| right as f64 / count.max(1) as f64;
    Ok(Some(Judged {
        before: cross_entropy(&before, &labels, 1.0)?,
        after: fit.cross_entropy,
        right_before: share(right(&before, &labels)?),
        right_after: share(right(&after, &labels)?),
        temperature: fit.temperature,
        error,
        count,
        answers,
        folds: of_folds,
    }))
}
