//! What a version says besides its best classes: whether it knows the picture's
//! class at all, and which classes contain the right one with a probability
//! that the caller names.

use super::{error::ApiError, request::RequestError};
use crate::catalog::{CatalogError, Classifier};
use tip_adapter::best::{Scored, TopK, best};
use tip_spec::UnseenScores;
use tipserve_api::v1 as pb;

/// Share of pictures of known classes accepted if the client does not say.
pub const DEFAULT_ACCEPT: f64 = 0.95;

/// When an item counts as of an unknown class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reject {
    /// Below what this share of known pictures reaches.
    Accept(f64),
    /// Below this score, as the caller gives it.
    Threshold(f64),
}

impl Reject {
    /// Checks a client's options.
    ///
    /// # Errors
    /// Numbers out of range, or both of them.
    pub fn check(sent: pb::RejectOptions) -> Result<Reject, RequestError> {
        match (sent.accept, sent.threshold) {
            (Some(_), Some(_)) => Err(RequestError::invalid(
                "options.reject",
                "accept and threshold exclude each other",
            )),
            (None, Some(threshold)) if threshold.is_finite() => Ok(Reject::Threshold(threshold)),
            (None, Some(threshold)) => Err(RequestError::invalid(
                "options.reject.threshold",
                format!("{threshold} is not finite"),
            )),
            (accept, None) => Ok(Reject::Accept(share(
                "options.reject.accept",
                accept.unwrap_or(DEFAULT_ACCEPT),
            )?)),
        }
    }

    /// The least score that is accepted.
    ///
    /// # Errors
    /// A version without scores of unseen examples.
    pub fn threshold(self, classifier: &Classifier) -> Result<f64, CatalogError> {
        match self {
            Reject::Threshold(threshold) => Ok(threshold),
            Reject::Accept(accept) => of_unseen(classifier, |scores| scores.threshold(accept)),
        }
    }
}

/// A share between 0 and 1, exclusive.
///
/// # Errors
/// Any other number.
pub fn share(field: &str, value: f64) -> Result<f64, RequestError> {
    if value > 0.0 && value < 1.0 {
        return Ok(value);
    }
    Err(RequestError::invalid(
        field,
        format!("{value} is not over 0 and under 1"),
    ))
}

/// `log Σ exp(logits/T)`, from the best class alone: `z/T − log p`.
pub fn score(best: &Scored, temperature: f64) -> f64 {
    f64::from(best.logit) / temperature - best.probability.ln()
}

/// The classes that hold the item's with this probability: of all logits.
///
/// # Errors
/// A version without scores of unseen examples.
pub fn prediction_set(
    classifier: &Classifier,
    logits: &[f32],
    coverage: f64,
) -> Result<Vec<Scored>, ApiError> {
    let least = of_unseen(classifier, |scores| scores.least_probability(coverage))?;
    let all = best(
        logits,
        TopK {
            classes: logits.len(),
            temperature: classifier.temperature(),
        },
    );
    // At least the best class: an empty set would say nothing.
    let first = all.iter().take(1);
    let others = all.iter().skip(1);
    Ok(first
        .chain(others.take_while(|class| class.probability >= least))
        .copied()
        .collect())
}

fn of_unseen(
    classifier: &Classifier,
    number: impl Fn(&UnseenScores) -> Option<f64>,
) -> Result<f64, CatalogError> {
    let unseen = classifier.manifest.details.head.unseen.as_ref();
    unseen
        .and_then(number)
        .ok_or_else(|| CatalogError::Unsupported {
            version: classifier.name.clone(),
            problem: "has no scores of examples that it had not seen, which say what to accept: \
                      it was made from one example a class, or by an earlier release; add \
                      examples, or give a threshold"
                .to_owned(),
        })
}
