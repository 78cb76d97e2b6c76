//! What the engine reports while it works, to be counted and measured.

use std::{fmt::Debug, time::Duration};

use crate::stage::{Stage, StageTimes};

/// Why an admitted item got no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// The caller cancelled the call or closed the connection.
    Cancelled,
    /// Its deadline passed at this stage.
    Expired(Stage),
    /// The engine is shutting down.
    ShuttingDown,
}

/// Called on the engine's own threads: implementations must not block.
pub trait Observer: Debug + Send + Sync {
    /// A picture was decoded; `decode_queue` and `decode` are set.
    fn decoded(&self, _times: &StageTimes) {}
    /// The encoder ran a batch of `size` pictures.
    fn batch_encoded(&self, _size: usize, _took: Duration) {}
    /// The heads of a batch ran.
    fn heads_ran(&self, _took: Duration) {}
    /// An item was answered with a result.
    fn answered(&self, _times: &StageTimes) {}
    /// An item was answered without one, through no fault of its content.
    fn dropped(&self, _reason: Dropped) {}
}

/// An observer that ignores every event: for tests and tools.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}
