//! Background work that yields to pictures.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

/// A short piece of background work for a device worker.
pub(crate) struct Step {
    run: Box<dyn FnOnce() + Send>,
    since: Instant,
}

impl Step {
    pub fn new(run: impl FnOnce() + Send + 'static) -> Step {
        Step {
            run: Box::new(run),
            since: Instant::now(),
        }
    }

    /// Runs it. It reports its own failures; a panic in one must not take the
    /// worker with it.
    pub fn run(self) {
        let _ = catch_unwind(AssertUnwindSafe(self.run));
    }

    pub fn waited(&self) -> Duration {
        self.since.elapsed()
    }
}
