//! Whether a version knows an element's class at all: the parameters `accept`
//! and `threshold`, and what the outputs `accepted` and `known_score` say.

use super::{
    outputs::Wanted,
    parameters::{Parameters, number},
};
use crate::{
    catalog::Classifier,
    rpc::{
        confidence::{Reject, score},
        error::ApiError,
        request::RequestError,
    },
    telemetry,
};
use tip_adapter::best::Wish;
use tipserve_api::v1 as pb;
use tipserve_engine::JobOutput;

/// What a version says of an element.
#[derive(Clone, Copy, Debug)]
pub struct Recognised {
    /// How much of what it knows it finds in it.
    pub score: f64,
    /// Whether that reaches the threshold.
    pub accepted: bool,
}

/// What a request's parameters ask for; none where they say nothing.
///
/// # Errors
/// Numbers that are none or out of range, and both of them.
pub fn parameters(parameters: &Parameters) -> Result<Option<Reject>, RequestError> {
    let asked = pb::RejectOptions {
        accept: number(parameters, "accept")?,
        threshold: number(parameters, "threshold")?,
    };
    match asked {
        pb::RejectOptions {
            accept: None,
            threshold: None,
        } => Ok(None),
        asked => Reject::check("parameters", asked).map(Some),
    }
}

/// When elements count as of an unknown class; none where nothing asks for it.
pub fn of_outputs(parameters: Option<Reject>, wanted: &[Wanted]) -> Option<Reject> {
    let asked = wanted.iter().any(|wanted| wanted.recognises());
    asked.then(|| parameters.unwrap_or_default())
}

/// What the version says of each element.
///
/// # Errors
/// A version without scores of unseen examples.
pub fn recognise(
    classifier: &Classifier,
    reject: Reject,
    outcomes: &[JobOutput],
) -> Result<Vec<Recognised>, ApiError> {
    let threshold = reject.threshold(classifier)?;
    let wish = Wish {
        classes: 1,
        temperature: classifier.temperature(),
    };
    let mut all = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        let Some(best) = outcome.scores.best(wish).into_iter().next() else {
            continue;
        };
        let feature = outcome.feature.as_ref().map(|feature| &feature.unit[..]);
        let score = score(classifier, &best, feature)?;
        let accepted = score >= threshold;
        telemetry::recognised(&classifier.name, accepted);
        all.push(Recognised { score, accepted });
    }
    Ok(all)
}
