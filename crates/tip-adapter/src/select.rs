//! Which method, with which numbers, and why.

use super::{
    dimensions::as_count,
    error::TipError,
    hold_out::HoldOut,
    material::Material,
    methods::{
        TrainingFree, by_name,
        calibrate::Calibration,
        search::{Outcome, Search},
    },
    request::HeadRequest,
    score::Numbers,
    spec::{Candidate, Method, Selection, SelectionSource},
    stack::{self, Stacked},
    watch::Watch,
};
use crate::grid::GridValues as _;

/// What is to be made.
#[derive(Debug)]
pub(super) enum Choice {
    /// One method with its numbers.
    Method(Chosen),
    /// A weighted sum, made already.
    Stack(Box<Stacked>),
}

/// A method with its numbers, and how they were chosen.
#[derive(Debug)]
pub(super) struct Chosen {
    pub numbers: Numbers,
    pub temperature: f64,
    pub selection: Selection,
}

/// Chooses what the request leaves open.
pub(super) fn choose(
    material: &Material,
    request: &HeadRequest,
    watch: &Watch<'_>,
) -> Result<Choice, TipError> {
    // λ is ProKeR's alone, and α and β together are Tip-Adapter's.
    let method = match request.method {
        None if request.lambda.is_some() => Some(Method::Proker),
        None if request.alpha.is_some() || request.beta.is_some() => Some(Method::TipAdapter),
        method => method,
    };
    match method {
        None => combine(material, request, watch),
        Some(method) => choose_numbers(method, material, request, watch).map(Choice::Method),
    }
}

/// The numbers of a method that the caller named.
fn choose_numbers(
    method: Method,
    material: &Material,
    request: &HeadRequest,
    watch: &Watch<'_>,
) -> Result<Chosen, TipError> {
    let method = by_name(method)?;
    method.check(material)?;
    let given = method.all_given(request);
    let held = match HoldOut::validation(material)? {
        Some(held) => Some(held),
        None if material.key_count() == 0 => None,
        None => method.hold_out(material, request)?,
    };
    let mut why = "there are no examples to score on".to_owned();
    let scored = match &held {
        None => None,
        Some(held) => match (Search {
            material,
            request,
            held,
            watch,
        })
        .best(method)?
        {
            Outcome::Scored(scored) => Some((scored, held)),
            Outcome::Skipped(reason) => {
                why = reason;
                None
            }
        },
    };
    let grid = method.grid(material, request);
    let Some((scored, held)) = scored else {
        return by_default(method, material, request, given, &why);
    };
    let count = held.count();
    let (source, score, reason) = if given {
        (
            SelectionSource::Given,
            format!("none; temperature by cross-entropy on {}", held.describe),
            format!("{} with the numbers that the caller gave.", method.name()),
        )
    } else {
        (
            held.source,
            format!("{}, on {}", score_words(method, request), held.describe),
            format!(
                "{}, as asked for, with the numbers that do best: {:.1} % of {count} examples.",
                method.name(),
                100.0 * scored.accuracy(),
            ),
        )
    };
    Ok(Chosen {
        numbers: scored.numbers,
        temperature: scored.temperature,
        selection: Selection {
            source,
            example_count: as_count(count)?,
            score,
            grid: if given { "none".to_owned() } else { grid },
            candidates: vec![scored.candidate()],
            reason,
        },
    })
}

/// AUTO: the stack of what there is; zero-shot if there are no examples, and
/// Tip-Adapter if there are too many keys for anything else.
fn combine(
    material: &Material,
    request: &HeadRequest,
    watch: &Watch<'_>,
) -> Result<Choice, TipError> {
    if material.key_count() == 0 {
        return choose_numbers(Method::ZeroShot, material, request, watch).map(Choice::Method);
    }
    if let Some(stacked) = stack::make(material, watch)? {
        return Ok(Choice::Stack(Box::new(stacked)));
    }
    by_default(
        by_name(Method::TipAdapter)?,
        material,
        request,
        false,
        "too many keys for the others",
    )
    .map(Choice::Method)
}

/// Documented defaults (or the caller's numbers), unscored.
fn by_default(
    method: &dyn TrainingFree,
    material: &Material,
    request: &HeadRequest,
    given: bool,
    why: &str,
) -> Result<Chosen, TipError> {
    let numbers = method.defaults(material, request)?;
    let candidates = vec![Candidate {
        alpha: numbers.alpha,
        beta: numbers.beta,
        lambda: numbers.lambda,
        ..Candidate::left_out(
            method.method(),
            format!("not scored: {why}; these are its defaults"),
        )
    }];
    let calibration = Calibration {
        method,
        material,
        numbers: &numbers,
        balance: request.class_balance,
    };
    Ok(Chosen {
        temperature: calibration.by_spread()?,
        numbers,
        selection: Selection {
            source: if given {
                SelectionSource::Given
            } else {
                SelectionSource::Default
            },
            example_count: 0,
            score: "none".to_owned(),
            grid: "none".to_owned(),
            candidates,
            reason: if given {
                format!("{} with the numbers that the caller gave.", method.name())
            } else if !method.sees_examples() {
                "Zero-shot has no numbers to choose.".to_owned()
            } else {
                format!(
                    "{} with its default numbers: there are no validation examples, and too few \
                     shots to leave one out.",
                    method.name()
                )
            },
        },
    })
}

fn score_words(method: &dyn TrainingFree, request: &HeadRequest) -> &'static str {
    if request.grid.is_official() {
        "accuracy, the first best wins"
    } else {
        method.score()
    }
}
