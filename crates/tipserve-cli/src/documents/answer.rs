//! Answers of `classify`.

use serde::Serialize;

use super::rejected::ItemError;
use tipserve_api::v1::{ClassScore, Classification, PictureNote};

/// One line of `classify --json`.
#[derive(Debug, Serialize)]
pub(crate) struct ReplyDocument {
    pub id: String,
    pub index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ItemError>,
    #[serde(flatten)]
    pub answer: Option<AnswerDocument>,
}

/// An answer of the server to one item.
#[derive(Debug, Serialize)]
pub(crate) struct AnswerDocument {
    version: String,
    top: Vec<ScoreDocument>,
    neighbours: Vec<NeighbourDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probabilities: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<TimingsDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prediction_set: Vec<ScoreDocument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    labels: Vec<ScoreDocument>,
    /// What is odd about the picture's file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ScoreDocument {
    index: i32,
    display_name: String,
    logit: f32,
    probability: f32,
}

#[derive(Debug, Serialize)]
pub(crate) struct NeighbourDocument {
    example_id: String,
    class_index: i32,
    display_name: String,
    /// Of versions with several labels an example.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    class_indices: Vec<i32>,
    similarity: f32,
}

#[derive(Debug, Serialize)]
pub(crate) struct TimingsDocument {
    decode_queue_seconds: f64,
    decode_seconds: f64,
    queue_seconds: f64,
    encode_seconds: f64,
    head_seconds: f64,
    total_seconds: f64,
    batch_size: i32,
}

impl From<ClassScore> for ScoreDocument {
    fn from(score: ClassScore) -> Self {
        Self {
            index: score.index,
            display_name: score.display_name,
            logit: score.logit,
            probability: score.probability,
        }
    }
}

/// A note as documents write it: `no_end_mark`.
fn note(note: PictureNote) -> String {
    let name = note.as_str_name();
    let name = name.strip_prefix("PICTURE_NOTE_").unwrap_or(name);
    name.to_lowercase()
}

impl From<Classification> for AnswerDocument {
    fn from(answer: Classification) -> Self {
        let notes = answer.notes().map(note).collect();
        Self {
            notes,
            version: answer.version,
            top: answer.top.into_iter().map(Into::into).collect(),
            neighbours: answer
                .neighbours
                .into_iter()
                .map(|near| NeighbourDocument {
                    example_id: near.example_id,
                    class_index: near.class_index,
                    display_name: near.display_name,
                    class_indices: near.class_indices,
                    similarity: near.similarity,
                })
                .collect(),
            logits: Some(answer.logits).filter(|values| !values.is_empty()),
            probabilities: Some(answer.probabilities).filter(|values| !values.is_empty()),
            embedding: answer.embedding.map(|embedding| embedding.values),
            timings: answer.timings.map(|timings| TimingsDocument {
                decode_queue_seconds: timings.decode_queue_seconds,
                decode_seconds: timings.decode_seconds,
                queue_seconds: timings.queue_seconds,
                encode_seconds: timings.encode_seconds,
                head_seconds: timings.head_seconds,
                total_seconds: timings.total_seconds,
                batch_size: timings.batch_size,
            }),
            score: answer.score,
            threshold: answer.threshold,
            accepted: answer.accepted,
            prediction_set: answer.prediction_set.into_iter().map(Into::into).collect(),
            labels: answer.labels.into_iter().map(Into::into).collect(),
        }
    }
}
