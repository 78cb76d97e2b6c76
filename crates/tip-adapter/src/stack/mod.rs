//! What AUTO makes: `logits = Σ w_k·z_k/T_k` over the text classifier, GDA and
//! kernel ridge regression without text ([`part`]), on plain or standardised
//! features ([`space`]).
//!
//! Picking the best of several methods wastes what the others know; a weighted
//! sum of heads is one head again. Each T_k is fitted on held-out logits, then
//! the weights are ([`weights`]); at one shot, if no class has an example to
//! spare, kernel ridge regression's temperature comes from the logits' spread, and
//! text's weight is what it has earned ([`text`]).

mod as_new;
mod head;
mod held;
mod part;
mod space;
mod text;
mod weights;

use tch::{Kind, Tensor};

use super::{
    dimensions::as_count,
    error::TipError,
    head::HeadTensors,
    hold_out::HoldOut,
    kernel_ridge::DOUBLE_KEYS,
    material::Material,
    spec::{Candidate, Method, Selection, SelectionSource, Standardised},
    standardise::Statistics,
    told::Told,
    unseen::UnseenAnswers,
    watch::Watch,
};
use held::As;
use space::{Fit, Space};

/// Paired standard errors by which left-out losses must differ to overrule
/// what the features alone say.
const CLEAR: f64 = 2.0;

/// A stack that was made.
#[derive(Debug)]
pub(super) struct Stacked {
    pub tensors: HeadTensors,
    pub beta: f64,
    pub lambda: f64,
    pub standardised: Option<Standardised>,
    pub selection: Selection,
    pub unseen: Option<UnseenAnswers>,
}

/// Makes the stack; none if no part can be made.
pub(super) fn make(material: &Material, watch: &Watch<'_>) -> Result<Option<Stacked>, TipError> {
    let held = match HoldOut::validation(material)? {
        Some(held) => Some(held),
        None => HoldOut::one_of_each_out(material)?,
    };
    let spaces = candidates(material)?;
    let (chosen, other, why) = match (spaces.as_slice(), &held) {
        ([first, second], Some(_)) if material.key_count() > DOUBLE_KEYS => {
            // Compares both scales on some shots of each class, then fits the
            // better one on all.
            match space::some_shots(material)? {
                None => (fit(material, *first, &held, watch)?, None, PRIOR),
                Some(few) => {
                    let held_few = match HoldOut::validation(&few)? {
                        Some(held) => Some(held),
                        None => HoldOut::one_of_each_out(&few)?,
                    };
                    let a = fit(&few, *first, &held_few, watch)?;
                    let b = fit(&few, *second, &held_few, watch)?;
                    let overruled = clearly_better(b.as_ref(), a.as_ref())?;
                    let whose = if overruled { *second } else { *first };
                    let why = if overruled { SCORES } else { PRIOR };
                    drop((a, b));
                    (fit(material, whose, &held, watch)?, None, why)
                }
            }
        }
        ([first, second], Some(_)) => {
            let a = fit(material, *first, &held, watch)?;
            let b = fit(material, *second, &held, watch)?;
            if clearly_better(b.as_ref(), a.as_ref())? {
                (b, a, SCORES)
            } else {
                (a, b, PRIOR)
            }
        }
        ([first, ..], _) => {
            let why = match first {
                Some(Standardised::Bundle) => BUNDLE,
                _ => PRIOR,
            };
            (fit(material, *first, &held, watch)?, None, why)
        }
        ([], _) => return Ok(None),
    };
    let Some(chosen) = chosen else {
        return Ok(None);
    };
    watch.step(Method::Stack, 1, 1)?;
    let selection = describe(material, &held, &chosen, other.as_ref(), why)?;
    Ok(Some(Stacked {
        beta: chosen.space.beta(),
        lambda: chosen.space.lambda(),
        standardised: chosen.space.whose(),
        tensors: head::tensors(material, &chosen)?,
        selection,
        unseen: unseen_answers(material, &held, &chosen)?,
    }))
}

/// The sum's answers for the held-out examples.
fn unseen_answers(
    material: &Material,
    held: &Option<HoldOut>,
    fit: &Fit,
) -> Result<Option<UnseenAnswers>, TipError> {
    let (Some(held), Some(logits)) = (held, &fit.logits) else {
        return Ok(None);
    };
    let logits = Told::of(material)?.all_classes(logits, material.n())?;
    UnseenAnswers::of(&held.features, &held.labels, &logits).map(Some)
}

const BUNDLE: &str = "the bundle's statistics put features on one scale";
const PRIOR: &str = "the features' scale is chosen by how evenly their dimensions vary";
const SCORES: &str = "the features' scale is chosen by left-out cross-entropy";

/// The scales of features to try, the one that the features speak for first.
fn candidates(material: &Material) -> Result<Vec<Option<Standardised>>, TipError> {
    if material.statistics.is_some() {
        return Ok(vec![Some(Standardised::Bundle)]);
    }
    if material.key_count() < 2 {
        return Ok(vec![None]);
    }
    let even = Statistics::of(&material.keys)?.is_even(material.key_count())?;
    Ok(if even {
        vec![Some(Standardised::Own), None]
    } else {
        vec![None, Some(Standardised::Own)]
    })
}

fn fit(
    material: &Material,
    whose: Option<Standardised>,
    held: &Option<HoldOut>,
    watch: &Watch<'_>,
) -> Result<Option<Fit>, TipError> {
    let Some(space) = Space::new(material, whose, held.as_ref(), watch)? else {
        return Ok(None);
    };
    match held {
        Some(held) => space.fit(material, held, As::New, watch),
        None => space.by_spread(material),
    }
}

/// Logits of held-out examples in their rounds by the stack of features on one
/// scale, f64 [Q, N], with weights and temperatures fitted on them; none if no part
/// can be scored.
pub(super) fn held_logits(
    material: &Material,
    whose: Option<Standardised>,
    held: &HoldOut,
    watch: &Watch<'_>,
) -> Result<Option<Tensor>, TipError> {
    let Some(space) = Space::new(material, whose, Some(held), watch)? else {
        return Ok(None);
    };
    let Some(Fit {
        logits: Some(logits),
        ..
    }) = space.fit(material, held, As::InRounds, watch)?
    else {
        return Ok(None);
    };
    Told::of(material)?
        .all_classes(&logits, material.n())
        .map(Some)
}

/// Whether the first losses are lower than the second by more than [`CLEAR`]
/// standard errors of the difference.
fn clearly_better(first: Option<&Fit>, second: Option<&Fit>) -> Result<bool, TipError> {
    let (first, second) = match (first, second) {
        (Some(first), Some(second)) => (first, second),
        (first, _) => return Ok(first.is_some()),
    };
    let (Some(a), Some(b)) = (&first.losses, &second.losses) else {
        return Ok(false);
    };
    let gain = b.f_sub(a)?;
    let count = gain.numel() as f64;
    if count < 2.0 {
        return Ok(false);
    }
    let mean = gain.f_mean(Kind::Double)?.f_double_value(&[])?;
    let error = (gain.f_var(true)?.f_double_value(&[])? / count).sqrt();
    Ok(mean > CLEAR * error && mean > 0.0)
}

fn describe(
    material: &Material,
    held: &Option<HoldOut>,
    chosen: &Fit,
    other: Option<&Fit>,
    scale: &str,
) -> Result<Selection, TipError> {
    let mut candidates = vec![chosen.candidate()];
    let scale_of = chosen.scale();
    candidates.extend(chosen.parts.iter().map(|part| part.candidate(&scale_of)));
    candidates.extend(chosen.left_out.iter().cloned());
    candidates.extend(other.map(Fit::candidate));
    let words: Vec<String> = chosen
        .parts
        .iter()
        .map(|part| format!("{} {:.2}", part.name(), part.weight))
        .collect();
    let sum = words.join(" + ");
    let (source, count, score, reason) = match held {
        Some(held) => (
            held.source,
            as_count(held.count())?,
            format!(
                "cross-entropy, temperatures held near the logits' spread and weights near equal \
                 ones, on {}",
                held.describe
            ),
            format!(
                "{sum}: right on {:.1} % of {} examples; {scale}.",
                100.0 * chosen.accuracy,
                held.count()
            ),
        ),
        None => (
            SelectionSource::Default,
            0,
            match material.text {
                Some(_) => "text's temperature by cross-entropy on the shots; the others' by the \
                            logits' spread"
                    .to_owned(),
                None => "temperatures by the logits' spread".to_owned(),
            },
            format!("{sum}: no validation examples, and too few shots to leave one out; {scale}."),
        ),
    };
    Ok(Selection {
        source,
        example_count: count,
        score,
        grid: "none".to_owned(),
        candidates,
        reason,
    })
}

/// A part that was left out, as a candidate.
fn left_out(method: Method, reason: &str) -> Candidate {
    Candidate::left_out(method, reason.to_owned())
}
