//! From the engine's outcome to the API's answer.

use std::sync::Arc;

use super::{
    confidence::{Reject, prediction_set, score, share},
    error::ApiError,
    request::RequestError,
};
use crate::{
    catalog::{CatalogError, Classifier},
    telemetry,
};
use tip_adapter::best::{Scored, TopK, probabilities};
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
            reject: sent.reject.map(Reject::check).transpose()?,
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
            wanted: if self.logits || self.probabilities || self.coverage.is_some() {
                ScoresRequest::Logits
            } else {
                ScoresRequest::Best(self.top_k(classifier))
            },
            neighbours: self.neighbours,
            embedding: self.embedding,
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
        probability: best.probability as f32,
    };
    let best = outcome.scores.best(options.top_k(classifier));
    let logits = outcome.scores.logits();
    let (known, threshold) = match (options.reject, best.first()) {
        (Some(reject), Some(first)) => (
            Some(score(first, classifier.temperature())),
            Some(reject.threshold(classifier)?),
        ),
        _ => (None, None),
    };
    let accepted = known
        .zip(threshold)
        .map(|(score, threshold)| score >= threshold);
    if let Some(accepted) = accepted {
        telemetry::recognised(accepted);
    }
    let set = match options.coverage {
        Some(coverage) => prediction_set(classifier, logits, coverage)?,
        None => Vec::new(),
    };
    let neighbours = outcome
        .neighbours
        .iter()
        .map(|(key, similarity)| {
            let class = classifier.class_of(*key).ok_or_else(|| {
                CatalogError::internal(format!("{} has no label for key {key}", classifier.name))
            })?;
            Ok(pb::Neighbour {
                example_id: classifier.example_id(*key).to_owned(),
                class_index: class as i32,
                display_name: class_name(class),
                similarity: *similarity,
            })
        })
        .collect::<Result<_, CatalogError>>()?;
    Ok(pb::Classification {
        version: classifier.name.clone(),
        top: best.iter().map(class_score).collect(),
        logits: if options.logits {
            logits.to_vec()
        } else {
            Vec::new()
        },
        probabilities: if options.probabilities {
            let shares = probabilities(logits, classifier.temperature());
            shares.into_iter().map(|share| share as f32).collect()
        } else {
            Vec::new()
        },
        neighbours,
        embedding: outcome.feature.map(|feature| pb::Embedding {
            values: feature.unit.to_vec(),
        }),
        timings: options.timings.then(|| timings(&outcome.times)),
        score: known,
        accepted,
        threshold,
        prediction_set: set.iter().map(class_score).collect(),
        notes: notes(outcome.lacks_end_mark),
    })
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
