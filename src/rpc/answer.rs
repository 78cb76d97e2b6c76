//! From the engine's outcome to the API's answer.

use std::sync::Arc;

use super::{
    confidence::{Recognition, Reject, prediction_set, share},
    drift,
    error::ApiError,
    request::RequestError,
};
use crate::{
    catalog::{CatalogError, Classifier, Seen},
    telemetry,
};
use tip_adapter::{
    best::{Scored, TopK, best, probabilities},
    evaluate_labels::sigmoid,
};
use tipserve_api::v1 as pb;
use tipserve_engine::{JobOutput, ScoresRequest, StageTimes, Work};

/// Classes returned if the client does not say.
pub const DEFAULT_TOP: usize = 5;
/// Most neighbours that an item may ask for.
const MAX_NEIGHBOURS: u32 = 100;

/// What to return for each item, checked.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    top: usize,
    logits: bool,
    probabilities: bool,
    neighbours: usize,
    embedding: bool,
    timings: bool,
    reject: Option<Reject>,
    coverage: Option<f64>,
}

impl Options {
    /// Checks a client's options.
    ///
    /// # Errors
    /// Numbers out of range.
    pub fn check(sent: pb::ClassifyOptions) -> Result<Options, RequestError> {
        let top = match sent.top_k {
            0 => DEFAULT_TOP,
            k => usize::try_from(k)
                .map_err(|_| RequestError::invalid("options.top_k", format!("{k} is negative")))?,
        };
        let neighbours = u32::try_from(sent.neighbours)
            .ok()
            .filter(|k| *k <= MAX_NEIGHBOURS)
            .ok_or_else(|| {
                RequestError::invalid(
                    "options.neighbours",
                    format!("{} is not in 0 to {MAX_NEIGHBOURS}", sent.neighbours),
                )
            })?;
        Ok(Options {
            top,
            logits: sent.logits,
            probabilities: sent.probabilities,
            neighbours: neighbours as usize,
            embedding: sent.embedding,
            timings: sent.timings,
            reject: (sent.reject)
                .map(|reject| Reject::check("options.reject", reject))
                .transpose()?,
            coverage: (sent.coverage)
                .map(|coverage| share("options.coverage", coverage))
                .transpose()?,
        })
    }

    /// The classes that are returned of a classifier's.
    fn top_k(&self, classifier: &Classifier) -> TopK {
        TopK {
            classes: self.top,
            temperature: classifier.temperature(),
        }
    }

    /// What the engine is to do for an item of this classifier.
    pub fn work(&self, classifier: &Classifier) -> Work {
        Work::Classify {
            head: Arc::clone(&classifier.head),
            wanted: if self.logits
                || self.probabilities
                || self.coverage.is_some()
                || classifier.label_thresholds().is_some()
            {
                ScoresRequest::Logits
            } else {
                ScoresRequest::Best(self.top_k(classifier))
            },
            neighbours: classifier.traffic.neighbours(self.neighbours),
            embedding: self.embedding
                || (self.reject.is_some_and(Reject::is_by_score) && classifier.scores_by_feature()),
        }
    }
}

/// The API's answer for one item.
///
/// # Errors
/// A version whose parts do not fit together.
pub fn classification(
    classifier: &Classifier,
    options: &Options,
    outcome: JobOutput,
) -> Result<pb::Classification, ApiError> {
    let class_name = |index: usize| classifier.class_name(index).to_owned();
    let class_score = |best: &Scored| pb::ClassScore {
        index: best.class as i32,
        display_name: class_name(best.class),
        logit: best.logit,
        probability: classifier.probability(best) as f32,
    };
    let top = outcome.scores.best(options.top_k(classifier));
    let logits = outcome.scores.logits();
    let feature = outcome.feature.as_ref().map(|feature| &feature.unit[..]);
    let labels = labels(classifier, options, logits)?;
    let recognition = match (options.reject, top.first()) {
        (Some(reject), Some(first)) if labels.is_none() => {
            Some(reject.recognise(classifier, first, feature)?)
        }
        _ => None,
    };
    if let Some(recognition) = recognition {
        telemetry::recognised(&classifier.name, recognition.accepted());
    }
    let set = match options.coverage {
        Some(coverage) => prediction_set(classifier, logits, coverage)?,
        None => Vec::new(),
    };
    let seen = Seen {
        class: top.first().map(|best| best.class),
        similarity: classifier.traffic.compare(&outcome.neighbours),
        accepted: recognition.map(Recognition::accepted),
    };
    drift::count(classifier, seen);
    let neighbours = neighbours(classifier, options, &outcome.neighbours)?;
    Ok(pb::Classification {
        version: classifier.name.clone(),
        top: top.iter().map(class_score).collect(),
        logits: if options.logits {
            logits.to_vec()
        } else {
            Vec::new()
        },
        probabilities: if options.probabilities {
            let shares = match labels {
                Some(_) => logits.iter().map(|logit| sigmoid(*logit)).collect(),
                None => probabilities(logits, classifier.temperature()),
            };
            shares.into_iter().map(|share| share as f32).collect()
        } else {
            Vec::new()
        },
        neighbours,
        embedding: (options.embedding)
            .then_some(feature)
            .flatten()
            .map(|unit| pb::Embedding {
                values: unit.to_vec(),
            }),
        timings: options.timings.then(|| timings(&outcome.times)),
        score: recognition.map(|it| it.score),
        accepted: recognition.map(Recognition::accepted),
        threshold: recognition.map(|it| it.threshold),
        prediction_set: set.iter().map(class_score).collect(),
        labels: labels.iter().flatten().map(class_score).collect(),
        notes: notes(outcome.lacks_end_mark),
    })
}

/// The nearest examples, as many as are asked for.
///
/// # Errors
/// A key without a label.
fn neighbours(
    classifier: &Classifier,
    options: &Options,
    found: &[(usize, f32)],
) -> Result<Vec<pb::Neighbour>, CatalogError> {
    let nearest = found.iter().take(options.neighbours);
    nearest
        .map(|(key, similarity)| {
            let classes = classifier.classes_of(*key).ok_or_else(|| {
                CatalogError::internal(format!("{} has no label for key {key}", classifier.name))
            })?;
            let mut neighbour = pb::Neighbour {
                example_id: classifier.example_id(*key).to_owned(),
                similarity: *similarity,
                ..pb::Neighbour::default()
            };
            match classes {
                [class] if classifier.label_thresholds().is_none() => {
                    neighbour.class_index = *class as i32;
                    neighbour.display_name = classifier.class_name(*class).to_owned();
                }
                classes => {
                    neighbour.class_indices = classes.iter().map(|class| *class as i32).collect();
                }
            }
            Ok(neighbour)
        })
        .collect()
}

/// Every class whose probability reaches its threshold, the most probable first;
/// none if the version's answers are of one class.
///
/// # Errors
/// Options that only such versions have.
fn labels(
    classifier: &Classifier,
    options: &Options,
    logits: &[f32],
) -> Result<Option<Vec<Scored>>, ApiError> {
    let Some(thresholds) = classifier.label_thresholds() else {
        return Ok(None);
    };
    let precision = match (options.coverage, options.reject) {
        (Some(_), _) => {
            let reason = "its classes do not exclude each other, so that no set of them holds the \
                          one: options.coverage is not for it";
            classifier.needs_one_label(reason)?;
            None
        }
        (None, None) => None,
        (None, Some(Reject::Precision(precision))) => Some(precision),
        (None, Some(_)) => {
            let reason = "an item of none of its classes is one without labels: of options.reject \
                          only precision is for it";
            classifier.needs_one_label(reason)?;
            None
        }
    };
    let all = best(
        logits,
        TopK {
            classes: logits.len(),
            temperature: classifier.temperature(),
        },
    );
    let mut labels = Vec::new();
    for scored in all {
        let threshold = match precision {
            Some(precision) => {
                classifier
                    .precision_threshold(scored.class, precision)?
                    .threshold
            }
            None => thresholds
                .get(scored.class)
                .copied()
                .unwrap_or(f64::INFINITY),
        };
        if sigmoid(scored.logit) >= threshold {
            labels.push(scored);
        }
    }
    Ok(Some(labels))
}

fn notes(lacks_end_mark: bool) -> Vec<i32> {
    match lacks_end_mark {
        true => vec![pb::PictureNote::NoEndMark as i32],
        false => Vec::new(),
    }
}

fn timings(times: &StageTimes) -> pb::Timings {
    pb::Timings {
        decode_queue_seconds: times.decode_queue.as_secs_f64(),
        decode_seconds: times.decode.as_secs_f64(),
        queue_seconds: times.queue.as_secs_f64(),
        encode_seconds: times.encode.as_secs_f64(),
        head_seconds: times.head.as_secs_f64(),
        total_seconds: times.total.as_secs_f64(),
        batch_size: i32::try_from(times.batch_size).unwrap_or(i32::MAX),
    }
}
