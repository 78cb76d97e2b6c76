//! Heads, and what their numbers were chosen on.

use serde::Serialize;

use super::format::{method_name, short};
use tipserve_api::v1;

/// The numbers of a version's head, and how they were chosen.
#[derive(Debug, Serialize)]
pub(crate) struct HeadDocument {
    pub method: String,
    pub alpha: f64,
    pub beta: f64,
    pub lambda: f64,
    pub logit_scale: f64,
    pub class_balance: String,
    pub temperature: f64,
    pub key_dtype: String,
    pub standardised: Option<String>,
    pub selection: Option<SelectionDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unlabelled: Option<UnlabelledDocument>,
}

/// The effect of unlabelled pictures.
#[derive(Debug, Serialize)]
pub(crate) struct UnlabelledDocument {
    pub count: i64,
    pub used: bool,
    pub example_count: i64,
    pub cross_entropy_before: f64,
    pub cross_entropy_after: f64,
    pub accuracy_before: f64,
    pub accuracy_after: f64,
    pub reason: String,
}

impl From<v1::UnlabelledUse> for UnlabelledDocument {
    fn from(found: v1::UnlabelledUse) -> Self {
        Self {
            count: found.count,
            used: found.used,
            example_count: found.example_count,
            cross_entropy_before: found.cross_entropy_before,
            cross_entropy_after: found.cross_entropy_after,
            accuracy_before: found.accuracy_before,
            accuracy_after: found.accuracy_after,
            reason: found.reason,
        }
    }
}

impl From<v1::Head> for HeadDocument {
    fn from(head: v1::Head) -> Self {
        Self {
            method: method_name(head.method),
            alpha: head.alpha,
            beta: head.beta,
            lambda: head.lambda,
            logit_scale: head.logit_scale,
            class_balance: short(head.class_balance().as_str_name(), "CLASS_BALANCE_"),
            temperature: head.temperature,
            standardised: whose(head.standardised()),
            key_dtype: short(head.key_dtype().as_str_name(), "KEY_DTYPE_"),
            selection: head.selection.map(Into::into),
            unlabelled: head.unlabelled.map(Into::into),
        }
    }
}

/// Whose statistics put features on one scale; none for plain ones.
fn whose(standardised: v1::Standardised) -> Option<String> {
    (standardised != v1::Standardised::Unspecified)
        .then(|| short(standardised.as_str_name(), "STANDARDISED_"))
}

/// On what a head's numbers were chosen.
#[derive(Debug, Serialize)]
pub(crate) struct SelectionDocument {
    pub source: String,
    pub example_count: i64,
    pub score: String,
    pub grid: String,
    pub reason: String,
    pub candidates: Vec<CandidateDocument>,
}

impl From<v1::Selection> for SelectionDocument {
    fn from(selection: v1::Selection) -> Self {
        Self {
            source: short(selection.source().as_str_name(), "SELECTION_SOURCE_"),
            example_count: selection.example_count,
            score: selection.score,
            grid: selection.grid,
            reason: selection.reason,
            candidates: selection.candidates.into_iter().map(Into::into).collect(),
        }
    }
}

/// One method with its best numbers.
#[derive(Debug, Serialize)]
pub(crate) struct CandidateDocument {
    pub method: String,
    pub alpha: f64,
    pub beta: f64,
    pub lambda: f64,
    pub accuracy: f64,
    pub cross_entropy: f64,
    pub weight: Option<f64>,
    pub temperature: Option<f64>,
    pub standardised: Option<String>,
    pub skipped: Option<String>,
}

impl From<v1::Candidate> for CandidateDocument {
    fn from(candidate: v1::Candidate) -> Self {
        Self {
            method: method_name(candidate.method),
            alpha: candidate.alpha,
            beta: candidate.beta,
            lambda: candidate.lambda,
            accuracy: candidate.accuracy,
            cross_entropy: candidate.cross_entropy,
            weight: candidate.weight,
            temperature: candidate.temperature,
            standardised: whose(candidate.standardised()),
            skipped: Some(candidate.skipped).filter(|why| !why.is_empty()),
        }
    }
}
