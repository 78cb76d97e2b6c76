//! Which method, with which numbers, and why.

use super::{
    calibrate,
    defaults::default_numbers,
    error::TipError,
    hold_out::HoldOut,
    material::Material,
    proker::{PROKER_SEARCH_KEYS, check_keys},
    request::HeadRequest,
    score::Numbers,
    search::{Outcome, Search},
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
    match method {
        Method::TipAdapterF => return Err(TipError::NotTrainingFree(method)),
        Method::Stack => return Err(TipError::NotByName(method)),
        Method::ZeroShot if material.text.is_none() => return Err(TipError::NeedsText(method)),
        Method::ZeroShot => {}
        _ if material.key_count() == 0 => return Err(TipError::NeedsExamples(method)),
        Method::Proker => check_keys(material.key_count())?,
        _ => {}
    }
    let given = all_given(method, request);
    let held = match HoldOut::validation(material)? {
        Some(held) => Some(held),
        None if material.key_count() == 0 => None,
        // Tip-Adapter alone: each key masked in turn, as it is commonly done.
        None if method == Method::TipAdapter => HoldOut::one_out(material)?,
        None => HoldOut::one_of_each_out(material)?,
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
    let grid = grid_words(method, material, request);
    let Some((scored, held)) = scored else {
        return by_default(method, material, request, given, &why);
    };
    let count = held.count();
    let (source, score, reason) = if given {
        (
            SelectionSource::Given,
            format!("none; temperature by cross-entropy on {}", held.describe),
            format!("{} with the numbers that the caller gave.", name(method)),
        )
    } else {
        (
            held.source,
            format!("{}, on {}", score_words(method, request), held.describe),
            format!(
                "{}, as asked for, with the numbers that do best: {:.1} % of {count} examples.",
                name(method),
                100.0 * scored.accuracy(),
            ),
        )
    };
    Ok(Chosen {
        numbers: scored.numbers,
        temperature: scored.temperature,
        selection: Selection {
            source,
            example_count: held_count(count),
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
        Method::TipAdapter,
        material,
        request,
        false,
        "too many keys for the others",
    )
    .map(Choice::Method)
}

/// Documented defaults (or the caller's numbers), unscored.
fn by_default(
    method: Method,
    material: &Material,
    request: &HeadRequest,
    given: bool,
    why: &str,
) -> Result<Chosen, TipError> {
    let numbers = default_numbers(method, material, request)?;
    let candidates = vec![Candidate {
        alpha: numbers.alpha,
        beta: numbers.beta,
        lambda: numbers.lambda,
        ..Candidate::left_out(method, format!("not scored: {why}"))
    }];
    Ok(Chosen {
        numbers,
        temperature: calibrate::by_spread(&numbers, material, request.class_balance)?,
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
                format!("{} with the numbers that the caller gave.", name(method))
            } else if method == Method::ZeroShot {
                "Zero-shot has no numbers to choose.".to_owned()
            } else {
                format!(
                    "{} with its default numbers: there are no validation examples, and too few \
                     shots to leave one out.",
                    name(method)
                )
            },
        },
    })
}

fn all_given(method: Method, request: &HeadRequest) -> bool {
    let (alpha, beta, lambda) = (
        request.alpha.is_some(),
        request.beta.is_some(),
        request.lambda.is_some(),
    );
    match method {
        Method::ZeroShot | Method::TipAdapterF | Method::Stack => false,
        Method::TipAdapter => alpha && beta,
        Method::Gda | Method::ClassMean => alpha,
        Method::Proker => beta && lambda,
    }
}

fn score_words(method: Method, request: &HeadRequest) -> &'static str {
    match method {
        _ if request.grid.is_official() => "accuracy, the first best wins",
        Method::Proker => "none: β and λ keep their defaults",
        _ => "accuracy, ties by cross-entropy",
    }
}

fn grid_words(method: Method, material: &Material, request: &HeadRequest) -> String {
    let grid = request.grid.describe();
    match method {
        Method::Proker if !request.grid.is_official() => "none".to_owned(),
        Method::Proker if material.key_count() > PROKER_SEARCH_KEYS => format!(
            "{grid}; ProKeR's β and λ not searched over {PROKER_SEARCH_KEYS} keys ({} here)",
            material.key_count()
        ),
        _ => grid,
    }
}

fn held_count(count: i64) -> usize {
    usize::try_from(count).unwrap_or(0)
}

fn name(method: Method) -> &'static str {
    match method {
        Method::ZeroShot => "Zero-shot",
        Method::TipAdapter => "Tip-Adapter",
        Method::Gda => "GDA",
        Method::Proker => "ProKeR",
        Method::ClassMean => "Nearest class mean",
        Method::TipAdapterF => "Tip-Adapter-F",
        Method::Stack => "The stack",
    }
}
