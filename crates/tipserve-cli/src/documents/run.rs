//! Fine-tuning runs.

use serde::Serialize;

use super::{
    cache::VersionDocument,
    format::{short, time},
    rejected::ItemError,
};
use tipserve_api::v1;

/// A fine-tuning run: its state, progress and outcome.
#[derive(Debug, Serialize)]
pub(crate) struct RunDocument {
    pub name: String,
    pub state: String,
    pub parent: String,
    pub create_time: Option<String>,
    pub end_time: Option<String>,
    pub alias_moved: bool,
    pub unchanged: bool,
    pub outcome: Option<String>,
    pub progress: Option<ProgressDocument>,
    pub error: Option<ItemError>,
    pub version: Option<VersionDocument>,
}

impl From<v1::FineTuneRun> for RunDocument {
    fn from(run: v1::FineTuneRun) -> Self {
        Self {
            state: short(run.state().as_str_name(), "STATE_"),
            parent: run.parent,
            create_time: time(run.create_time),
            end_time: time(run.end_time),
            alias_moved: run.alias_moved,
            unchanged: run.unchanged,
            outcome: Some(run.outcome).filter(|outcome| !outcome.is_empty()),
            progress: run.progress.map(Into::into),
            error: run.error.map(Into::into),
            version: run.version.map(Into::into),
            name: run.name,
        }
    }
}

/// How far a run is.
#[derive(Debug, Serialize)]
pub(crate) struct ProgressDocument {
    pub epoch: i32,
    pub epochs: i32,
    pub step: i64,
    pub steps: i64,
    pub loss: f64,
    pub train_accuracy: f64,
    pub validation_accuracy: Option<f64>,
    pub learning_rate: f64,
    pub seconds_left: Option<f64>,
}

impl From<v1::FineTuneProgress> for ProgressDocument {
    fn from(progress: v1::FineTuneProgress) -> Self {
        Self {
            epoch: progress.epoch,
            epochs: progress.epochs,
            step: progress.step,
            steps: progress.steps,
            loss: progress.loss,
            train_accuracy: progress.train_accuracy,
            validation_accuracy: progress.validation_accuracy,
            learning_rate: progress.learning_rate,
            seconds_left: progress
                .time_left
                .map(|left| left.seconds as f64 + f64::from(left.nanos) * 1e-9),
        }
    }
}
