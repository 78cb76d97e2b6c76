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
    /// Below the threshold at which its class's answers have this precision.
    Precision(f64),
}

impl Default for Reject {
    fn default() -> Self {
        Reject::Accept(DEFAULT_ACCEPT)
    }
}

impl Reject {
    /// Checks a client's options; `field` names them in errors.
    ///
    /// # Errors
    /// Numbers out of range, or both of them.
    pub fn check(field: &str, sent: pb::RejectOptions) -> Result<Reject, RequestError> {
        match (sent.accept, sent.threshold, sent.precision) {
            (None, Some(threshold), None) if threshold.is_finite() => {
                Ok(Reject::Threshold(threshold))
            }
            (None, Some(threshold), None) => Err(RequestError::invalid(
                format!("{field}.threshold"),
                format!("{threshold} is not finite"),
            )),
            (None, None, Some(precision)) => {
                share(&format!("{field}.precision"), precision).map(Reject::Precision)
            }
            (accept, None, None) => Ok(Reject::Accept(share(
                &format!("{field}.accept"),
                accept.unwrap_or(DEFAULT_ACCEPT),
            )?)),
            _ => Err(RequestError::invalid(
                field,
                "accept, threshold and precision exclude each other",
            )),
        }
    }

    /// Whether it decides by the score of belonging to any known class.
    pub fn is_by_score(self) -> bool {
        !matches!(self, Reject::Precision(_))
    }

    /// An item's score, given its best class, and the least score that is
    /// accepted.
    ///
    /// # Errors
    /// A version without the figures to decide by.
    pub fn recognise(
        self,
        classifier: &Classifier,
        best: &Scored,
        feature: Option<&[f32]>,
    ) -> Result<Recognition, CatalogError> {
        let (score, threshold) = match self {
            Reject::Threshold(threshold) => (score(classifier, best, feature)?, threshold),
            Reject::Accept(accept) => (
                score(classifier, best, feature)?,
                of_unseen(classifier, |scores| scores.threshold(accept))?,
            ),
            Reject::Precision(precision) => (
                classifier.probability(best),
                classifier
                    .precision_threshold(best.class, precision)?
                    .threshold,
            ),
        };
        Ok(Recognition { score, threshold })
    }
}

/// Whether an item is accepted as of a known class, or as certain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recognition {
    /// The item's score: energy, or the class's probability.
    pub score: f64,
    /// The least score that is accepted.
    pub threshold: f64,
}

impl Recognition {
    /// Whether the score reaches the threshold.
    pub fn accepted(self) -> bool {
        self.score >= self.threshold
    }

    /// How far it is above the threshold: from 0 where it reaches it.
    pub fn margin(self) -> f64 {
        self.score - self.threshold
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

/// An item's score of belonging to any known class: from its best class alone,
/// `log Σ exp(logits/T) = z/T − log p`, and from its unit feature if the
/// version has examples of no class.
///
/// # Errors
/// A feature is needed but missing.
pub fn score(
    classifier: &Classifier,
    best: &Scored,
    feature: Option<&[f32]>,
) -> Result<f64, CatalogError> {
    let energy = f64::from(best.logit) / classifier.temperature() - best.probability.ln();
    classifier.score(energy, feature)
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
            problem: match unseen {
                Some(few) => format!(
                    "has scores of {} examples that it had not seen, and fewer than 3 do not say \
                     what to accept; add examples, or give a threshold",
                    few.count
                ),
                None => "has no scores of examples that it had not seen, which say what to \
                         accept: it was made from one example a class (copies of a picture are \
                         one), of one class alone, by fine-tuning with the Tip-Adapter-F recipe \
                         without validation examples, or by an earlier release; add examples, or \
                         give a threshold"
                    .to_owned(),
            },
        })
}
