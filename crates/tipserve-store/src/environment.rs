//! What a store takes from the world around it besides its objects: time,
//! randomness, background tasks. A test that replaces them can replay every
//! interleaving from a seed.

use std::{fmt::Debug, sync::LazyLock, time::Duration};

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use tokio::time::Instant;

/// Clock, randomness and background tasks of a store.
pub trait Environment: Debug + Send + Sync {
    /// Monotonic time since an arbitrary moment.
    fn now(&self) -> Duration;
    /// The time of day, for people. Nothing is decided by it: ages are measured
    /// by the storage's own clock.
    fn time_of_day(&self) -> DateTime<Utc>;
    /// Completes after `duration` has passed.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
    /// Random bits, unlike any other writer's.
    fn random(&self) -> u128;
    /// Runs a task in the background.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

/// The machine's own clock and randomness, tokio's tasks.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Environment for System {
    fn now(&self) -> Duration {
        START.elapsed()
    }

    fn time_of_day(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn random(&self) -> u128 {
        rand::random()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        // A runtime that is shutting down runs no more tasks.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(task);
        }
    }
}
