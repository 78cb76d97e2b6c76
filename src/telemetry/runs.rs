//! Fine-tuning runs: how many wait and train, and how they end.

use metrics::{counter, gauge};

use super::names::{RUNS, RUNS_ENDED, RUNS_STARTED};

/// Brings the series with labels into being, at zero.
pub(super) fn register() {
    for ending in [RunEnd::Succeeded, RunEnd::Failed, RunEnd::Cancelled] {
        counter!(RUNS_ENDED, "outcome" => ending.name()).absolute(0);
    }
    for state in [Run::Queued, Run::Running] {
        gauge!(RUNS, "state" => state.name()).set(0.0);
    }
}

/// Where a fine-tuning run is before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    /// Waiting until a place is free.
    Queued,
    /// Training, at a place of its own.
    Running,
}

impl Run {
    fn name(self) -> &'static str {
        match self {
            Run::Queued => "queued",
            Run::Running => "running",
        }
    }
}

/// How a fine-tuning run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// With a version, new or unchanged.
    Succeeded,
    /// With an error, which its record has.
    Failed,
    /// By being cancelled before its end.
    Cancelled,
}

impl RunEnd {
    fn name(self) -> &'static str {
        match self {
            RunEnd::Succeeded => "succeeded",
            RunEnd::Failed => "failed",
            RunEnd::Cancelled => "cancelled",
        }
    }
}

/// Counts one fine-tuning run in the state that it is in, as long as it lives.
#[derive(Debug)]
pub struct RunCount(Run);

impl RunCount {
    /// A run was asked for.
    pub fn queued() -> RunCount {
        counter!(RUNS_STARTED).increment(1);
        gauge!(RUNS, "state" => Run::Queued.name()).increment(1.0);
        RunCount(Run::Queued)
    }

    /// Counts the run as training from now on.
    pub fn running(&mut self) {
        gauge!(RUNS, "state" => self.0.name()).decrement(1.0);
        self.0 = Run::Running;
        gauge!(RUNS, "state" => self.0.name()).increment(1.0);
    }

    /// Counts the run as ended.
    pub fn ended(self, how: RunEnd) {
        counter!(RUNS_ENDED, "outcome" => how.name()).increment(1);
    }
}

impl Drop for RunCount {
    fn drop(&mut self) {
        gauge!(RUNS, "state" => self.0.name()).decrement(1.0);
    }
}
