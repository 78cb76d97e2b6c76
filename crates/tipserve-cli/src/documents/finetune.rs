//! What fine-tuning did to a version.

use serde::Serialize;

use super::format::short;
use tipserve_api::v1;

/// How a version was fine-tuned, and what that gained.
#[derive(Debug, Serialize)]
pub(crate) struct FineTuneDocument {
    pub epochs: i32,
    pub best_epoch: i32,
    pub seed: u64,
    pub loss: f64,
    pub accuracy_before: f64,
    pub accuracy_after: f64,
    pub source: String,
    pub seconds: f64,
    pub recipe: String,
    pub strength: f64,
    pub cross_entropy_before: Option<f64>,
    pub cross_entropy_after: Option<f64>,
    pub example_count: i64,
}

impl From<v1::FineTuneRecord> for FineTuneDocument {
    fn from(record: v1::FineTuneRecord) -> Self {
        Self {
            epochs: record.epochs,
            best_epoch: record.best_epoch,
            seed: record.seed,
            loss: record.loss,
            accuracy_before: record.accuracy_before,
            accuracy_after: record.accuracy_after,
            source: short(record.source().as_str_name(), "SELECTION_SOURCE_"),
            seconds: record.seconds,
            recipe: short(record.recipe().as_str_name(), "FINE_TUNE_RECIPE_"),
            strength: record.strength,
            cross_entropy_before: record.cross_entropy_before,
            cross_entropy_after: record.cross_entropy_after,
            example_count: record.example_count,
        }
    }
}
