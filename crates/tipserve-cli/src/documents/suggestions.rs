//! Which pictures to label.

use serde::Serialize;

use super::{format::short, rejected::RejectedDocument};
use tipserve_api::v1;

/// The document of `suggest --json`.
#[derive(Debug, Serialize)]
pub(crate) struct SuggestionsDocument {
    /// Pictures to label, the most useful first.
    pub suggestions: Vec<SuggestionDocument>,
    pub strategy: String,
    pub reason: String,
    pub version: Option<String>,
    pub received: i64,
    pub distinct_count: i64,
    pub already_labelled: Vec<LabelledDuplicateDocument>,
    pub already_labelled_count: i64,
    pub duplicate_similarity: f64,
    pub rejected: Vec<RejectedDocument>,
    pub rejected_count: i64,
}

/// A picture worth a label.
#[derive(Debug, Serialize)]
pub(crate) struct SuggestionDocument {
    pub id: String,
    pub sequence: u64,
    pub score: f64,
    pub reason: String,
    pub cluster_size: i64,
    pub top: Vec<TopDocument>,
    pub duplicate_ids: Vec<String>,
    pub duplicate_count: i64,
}

/// One of the version's best classes for a picture.
#[derive(Debug, Serialize)]
pub(crate) struct TopDocument {
    pub index: i32,
    pub display_name: String,
    pub probability: f32,
}

/// A picture that nearly repeats a labelled example.
#[derive(Debug, Serialize)]
pub(crate) struct LabelledDuplicateDocument {
    pub id: String,
    pub example_id: String,
    pub class_index: i32,
    pub display_name: String,
    pub similarity: f64,
}

impl SuggestionsDocument {
    /// What the server answered, and what this side could not send.
    pub(crate) fn new(
        m: v1::SuggestExamplesResponse,
        local: Vec<RejectedDocument>,
    ) -> SuggestionsDocument {
        let rejected_count = m.rejected_count + local.len() as i64;
        let strategy = m.strategy().as_str_name();
        let mut rejected = local;
        let received = m.received + rejected.len() as i64;
        rejected.extend(m.rejected.into_iter().map(Into::into));
        Self {
            strategy: short(strategy, "STRATEGY_"),
            suggestions: m.suggestions.into_iter().map(Into::into).collect(),
            reason: m.reason,
            version: Some(m.version).filter(|version| !version.is_empty()),
            received,
            distinct_count: m.distinct_count,
            already_labelled: (m.already_labelled.into_iter())
                .map(|it| LabelledDuplicateDocument {
                    id: it.id,
                    example_id: it.example_id,
                    class_index: it.class_index,
                    display_name: it.display_name,
                    similarity: it.similarity,
                })
                .collect(),
            already_labelled_count: m.already_labelled_count,
            duplicate_similarity: m.duplicate_similarity,
            rejected,
            rejected_count,
        }
    }
}

impl From<v1::Suggestion> for SuggestionDocument {
    fn from(it: v1::Suggestion) -> Self {
        Self {
            reason: short(it.reason().as_str_name(), "REASON_"),
            id: it.id,
            sequence: it.sequence,
            score: it.score,
            cluster_size: it.cluster_size,
            top: (it.top.into_iter())
                .map(|class| TopDocument {
                    index: class.index,
                    display_name: class.display_name,
                    probability: class.probability,
                })
                .collect(),
            duplicate_ids: it.duplicate_ids,
            duplicate_count: it.duplicate_count,
        }
    }
}
