//! Which method, with which numbers, and why.

use super::{
    defaults::{default_method, default_numbers, default_temperature},
    error::TipError,
    held::Held,
    make::{HeadRequest, Watch},
    material::Material,
    proker::{PROKER_SEARCH_KEYS, check_keys},
    score::{Numbers, Scored},
    search::{Outcome, Search},
    spec::{Candidate, Method, Selection, SelectionSource},
};
use crate::grid::GridValues as _;

/// The methods that AUTO compares, those it trusts most first: on equal
/// evidence the earlier one stays.
const ORDER: [Method; 5] = [
    Method::Proker,
    Method::Gda,
    Method::TipAdapter,
    Method::ClassMean,
    Method::ZeroShot,
];

/// What was chosen.
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
) -> Result<Chosen, TipError> {
    // λ is ProKeR's alone, and α and β together are Tip-Adapter's.
    let method = match request.method {
        None if request.lambda.is_some() => Some(Method::Proker),
        None if request.alpha.is_some() || request.beta.is_some() => Some(Method::TipAdapter),
        method => method,
    };
    match method {
        None => choose_method(material, request, watch),
        Some(method) => choose_numbers(method, material, request, watch),
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
        Method::ZeroShot if material.text.is_none() => return Err(TipError::NeedsText(method)),
        Method::ZeroShot => {}
        _ if material.key_count() == 0 => return Err(TipError::NeedsExamples(method)),
        Method::Proker => check_keys(material.key_count())?,
        _ => {}
    }
    let given = all_given(method, request);
    let held = match Held::validation(material)? {
        Some(held) => Some(held),
        None if material.key_count() == 0 => None,
        // Tip-Adapter alone: each key masked in turn, as it is commonly done.
        None if method == Method::TipAdapter => Held::one_out(material)?,
        None => Held::one_of_each_out(material)?,
    };
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
            Outcome::Skipped(_) => None,
        },
    };
    let grid = grid_words(method, material, request);
    let Some((scored, held)) = scored else {
        return by_default(method, material, request, given, Vec::new());
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

/// AUTO: every method's best numbers, then the best method.
///
/// The first method of [`ORDER`] that can be scored stays unless another is
/// right more often by over one standard error (Breiman et al., 1984): the
/// scores are estimates, and picking the largest of several picks luck.
fn choose_method(
    material: &Material,
    request: &HeadRequest,
    watch: &Watch<'_>,
) -> Result<Chosen, TipError> {
    if material.key_count() == 0 {
        return choose_numbers(Method::ZeroShot, material, request, watch);
    }
    let held = match Held::validation(material)? {
        Some(held) => Some(held),
        None => Held::one_of_each_out(material)?,
    };
    let Some(held) = held else {
        let method = default_method(material);
        let others = ORDER
            .into_iter()
            .filter(|&m| m != method)
            .map(|m| {
                skipped(
                    m,
                    skip_reason(
                        m,
                        material,
                        "not scored: too few classes have a second shot",
                    ),
                )
            })
            .collect();
        return by_default(method, material, request, false, others);
    };
    let search = Search {
        material,
        request,
        held: &held,
        watch,
    };
    let mut scored: Vec<Scored> = Vec::new();
    let mut left_out = Vec::new();
    for method in ORDER {
        match search.best(method)? {
            Outcome::Scored(one) => scored.push(one),
            Outcome::Skipped(reason) => left_out.push(skipped(method, reason)),
        }
    }
    let best = scored
        .iter()
        .copied()
        .reduce(|best, new| if new.beats(&best) { new } else { best });
    let (Some(&first), Some(best)) = (scored.first(), best) else {
        return by_default(default_method(material), material, request, false, left_out);
    };
    let chosen = if best.clearly_beats(&first) {
        best
    } else {
        first
    };
    let percent = |s: &Scored| 100.0 * s.accuracy();
    let reason = if chosen == best {
        format!(
            "{} is right most often: {:.1} % of {} examples.",
            name(chosen.numbers.method),
            percent(&chosen),
            chosen.count,
        )
    } else {
        format!(
            "{} stays: {:.1} % of {} examples, and the best, {} with {:.1} %, is within one \
             standard error.",
            name(chosen.numbers.method),
            percent(&chosen),
            chosen.count,
            name(best.numbers.method),
            percent(&best),
        )
    };
    scored.sort_by(|a, b| {
        (*b == chosen)
            .cmp(&(*a == chosen))
            .then(b.right.cmp(&a.right))
            .then(a.cross_entropy.total_cmp(&b.cross_entropy))
    });
    let mut candidates: Vec<Candidate> = scored.iter().map(Scored::candidate).collect();
    candidates.extend(left_out);
    Ok(Chosen {
        numbers: chosen.numbers,
        temperature: chosen.temperature,
        selection: Selection {
            source: held.source,
            example_count: held_count(held.count()),
            score: format!(
                "accuracy, ties by cross-entropy, {} unless beaten by over one standard error, \
                 on {}",
                name(first.numbers.method),
                held.describe
            ),
            grid: grid_words(Method::Proker, material, request),
            candidates,
            reason,
        },
    })
}

/// Documented defaults (or the caller's numbers), unscored.
fn by_default(
    method: Method,
    material: &Material,
    request: &HeadRequest,
    given: bool,
    others: Vec<Candidate>,
) -> Result<Chosen, TipError> {
    let numbers = default_numbers(method, material, request)?;
    let mut candidates = vec![Candidate {
        method,
        alpha: numbers.alpha,
        beta: numbers.beta,
        lambda: numbers.lambda,
        accuracy: 0.0,
        cross_entropy: 0.0,
        skipped: Some("not scored: there are no examples to score on".to_owned()),
    }];
    candidates.extend(others);
    Ok(Chosen {
        numbers,
        temperature: default_temperature(&numbers, material)?,
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
        Method::ZeroShot | Method::TipAdapterF => false,
        Method::TipAdapter => alpha && beta,
        Method::Gda | Method::ClassMean => alpha,
        Method::Proker => beta && lambda,
    }
}

fn skipped(method: Method, reason: String) -> Candidate {
    Candidate {
        method,
        alpha: 0.0,
        beta: 0.0,
        lambda: 0.0,
        accuracy: 0.0,
        cross_entropy: 0.0,
        skipped: Some(reason),
    }
}

fn skip_reason(method: Method, material: &Material, otherwise: &str) -> String {
    match method {
        Method::ZeroShot if material.text.is_none() => "no text weights".to_owned(),
        Method::Proker => match check_keys(material.key_count()) {
            Err(error) => error.to_string(),
            Ok(()) => otherwise.to_owned(),
        },
        _ => otherwise.to_owned(),
    }
}

fn score_words(method: Method, request: &HeadRequest) -> &'static str {
    match method {
        _ if request.grid.is_official() => "accuracy, the first best wins",
        Method::Proker => "accuracy, the defaults unless beaten by over one standard error",
        _ => "accuracy, ties by cross-entropy",
    }
}

fn grid_words(method: Method, material: &Material, request: &HeadRequest) -> String {
    let grid = request.grid.describe();
    if method == Method::Proker && material.key_count() > PROKER_SEARCH_KEYS {
        return format!(
            "{grid}; ProKeR's β and λ not searched over {PROKER_SEARCH_KEYS} keys ({} here)",
            material.key_count()
        );
    }
    grid
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
    }
}
