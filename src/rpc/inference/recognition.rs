//! Recognition: whether an element is of a known class at all. The parameters
//! `accept`, `threshold` and `precision`, and the outputs `accepted` and
//! `known_score`.

use super::{
    outputs::OutputRequest,
    parameters::{Parameters, number},
};
use crate::{
    catalog::{Classifier, Seen},
    rpc::{
        confidence::{Recognition, Reject},
        drift,
        error::ApiError,
        request::RequestError,
    },
    telemetry,
};
use tip_adapter::best::TopK;
use tipserve_api::v1 as pb;
use tipserve_engine::JobOutput;

/// What a request's parameters ask for; none if they say nothing.
///
/// # Errors
/// Values that are not numbers or out of range; more than one of the
/// parameters.
pub fn parameters(parameters: &Parameters) -> Result<Option<Reject>, RequestError> {
    let asked = pb::RejectOptions {
        accept: number(parameters, "accept")?,
        threshold: number(parameters, "threshold")?,
        precision: number(parameters, "precision")?,
    };
    match asked {
        pb::RejectOptions {
            accept: None,
            threshold: None,
            precision: None,
        } => Ok(None),
        asked => Reject::check("parameters", asked).map(Some),
    }
}

/// When elements count as of an unknown class; none if nothing asks for it.
pub fn of_outputs(parameters: Option<Reject>, wanted: &[OutputRequest]) -> Option<Reject> {
    let asked = wanted.iter().any(|wanted| wanted.recognises());
    asked.then(|| parameters.unwrap_or_default())
}

/// Counts elements among what a version has been asked.
pub fn count(classifier: &Classifier, outcomes: &[JobOutput], recognised: &[Recognition]) {
    let top_k = TopK {
        classes: 1,
        temperature: classifier.temperature(),
    };
    for (at, outcome) in outcomes.iter().enumerate() {
        let seen = Seen {
            class: outcome.scores.best(top_k).first().map(|best| best.class),
            similarity: None,
            accepted: recognised.get(at).map(|it| it.accepted()),
        };
        drift::count(classifier, seen);
    }
}

/// The version's decision on each element.
///
/// # Errors
/// A version without scores of unseen examples.
pub fn recognise(
    classifier: &Classifier,
    reject: Reject,
    outcomes: &[JobOutput],
) -> Result<Vec<Recognition>, ApiError> {
    classifier.needs_one_label(
        "an element of none of its classes is one whose probabilities all stay under their \
         thresholds: the outputs accepted and known_score are not of it",
    )?;
    let best_alone = TopK {
        classes: 1,
        temperature: classifier.temperature(),
    };
    let mut all = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        let Some(best) = outcome.scores.best(best_alone).into_iter().next() else {
            continue;
        };
        let feature = outcome.feature.as_ref().map(|feature| &feature.unit[..]);
        let recognition = reject.recognise(classifier, &best, feature)?;
        telemetry::recognised(&classifier.name, recognition.accepted());
        all.push(recognition);
    }
    Ok(all)
}
