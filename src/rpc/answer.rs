//! From the engine's outcome to the API's answer.

use super::request::RequestError;
use crate::{
    catalog::Classifier,
    engine::{Outcome, StageTimes},
    proto::v1 as pb,
};

/// Classes returned where the client does not say.
pub const DEFAULT_TOP: usize = 5;
/// Most neighbours returned.
const MAX_NEIGHBOURS: u32 = 100;

/// What to return for each item, checked.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    top: usize,
    logits: bool,
    probabilities: bool,
    /// How many neighbours.
    pub neighbours: usize,
    /// Whether the embedding is returned.
    pub embedding: bool,
    timings: bool,
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
        })
    }
}

/// softmax(logits / temperature), in f64.
pub fn probabilities(logits: &[f32], temperature: f64) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut shares: Vec<f64> = logits
        .iter()
        .map(|logit| (f64::from(logit - most) / temperature).exp())
        .collect();
    let sum: f64 = shares.iter().sum();
    for share in &mut shares {
        *share /= sum;
    }
    shares
}

/// Indices of the `k` largest logits, largest first; of equals the lower
/// index first.
pub fn top(logits: &[f32], k: usize) -> Vec<usize> {
    let k = k.min(logits.len());
    let by_logit = |a: &usize, b: &usize| {
        let logit = |i: &usize| logits.get(*i).copied().unwrap_or(f32::NEG_INFINITY);
        logit(b).total_cmp(&logit(a)).then(a.cmp(b))
    };
    let mut order: Vec<usize> = (0..logits.len()).collect();
    if k > 0 && k < order.len() {
        order.select_nth_unstable_by(k - 1, by_logit);
    }
    order.truncate(k);
    order.sort_unstable_by(by_logit);
    order
}

/// The API's answer for one item.
pub fn classification(
    classifier: &Classifier,
    options: &Options,
    outcome: Outcome,
) -> pb::Classification {
    let logits: &[f32] = &outcome.logits;
    let shares = probabilities(logits, classifier.temperature());
    let class_name = |index: usize| classifier.class_name(index).to_owned();
    let best = top(logits, options.top)
        .into_iter()
        .map(|index| pb::ClassScore {
            index: index as i32,
            display_name: class_name(index),
            logit: logits.get(index).copied().unwrap_or_default(),
            probability: shares.get(index).copied().unwrap_or_default() as f32,
        })
        .collect();
    let neighbours = outcome
        .neighbours
        .iter()
        .map(|(key, similarity)| {
            let class = classifier.class_of(*key);
            pb::Neighbour {
                example_id: classifier.example_id(*key).to_owned(),
                class_index: class as i32,
                display_name: class_name(class),
                similarity: *similarity,
            }
        })
        .collect();
    pb::Classification {
        version: classifier.name.clone(),
        top: best,
        logits: if options.logits {
            logits.to_vec()
        } else {
            Vec::new()
        },
        probabilities: if options.probabilities {
            shares.iter().map(|share| *share as f32).collect()
        } else {
            Vec::new()
        },
        neighbours,
        embedding: outcome.feature.map(|feature| pb::Embedding {
            values: feature.unit.to_vec(),
        }),
        timings: options.timings.then(|| timings(&outcome.times)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_of_equals_the_lower_index() {
        assert_eq!(top(&[1.0, 3.0, 3.0, 2.0], 3), [1, 2, 3]);
        assert_eq!(top(&[1.0, 3.0], 9), [1, 0]);
        assert!(top(&[], 3).is_empty());
    }

    #[test]
    fn probabilities_survive_large_logits() {
        let shares = probabilities(&[1000.0, 999.0], 1.0);
        assert!((shares[0] - 1.0 / (1.0 + (-1f64).exp())).abs() < 1e-12);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
