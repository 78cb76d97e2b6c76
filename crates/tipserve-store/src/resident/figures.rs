//! What a registry tells of itself.

use std::time::Duration;

use thiserror::Error;

use super::Footprint;

/// Something that happened, for metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// A value that was asked for was resident.
    Hit,
    /// A value was loaded after it was asked for.
    Loaded {
        /// How long that took, from the request.
        seconds: f64,
        /// The memory that it takes.
        footprint: Footprint,
    },
    /// A value could not be made.
    Failed,
    /// A value was dropped so that another fits.
    Evicted {
        /// The memory that it frees, once nothing uses it any more.
        footprint: Footprint,
    },
}

/// Counts since the start, and the present state.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// Values that the registry holds now.
    pub count: u64,
    /// Memory of all values alive, evicted ones still in use included, and of
    /// those being loaded.
    pub bytes: Footprint,
    /// The limit on `bytes`.
    pub budget: Footprint,
    /// Requests for values that were there.
    pub hits: u64,
    /// Loads that succeeded since the start.
    pub loads: u64,
    /// Loads of versions that failed.
    pub failures: u64,
    /// Seconds spent on loads that succeeded.
    pub load_seconds: f64,
    /// Values dropped so that others fit.
    pub evictions: u64,
}

/// Why a value cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResidentError<E> {
    /// The loader failed, with its own error.
    #[error(transparent)]
    Load(E),
    /// It alone is larger than the whole budget.
    #[error("{what} takes {size} bytes of {place} memory; the budget is {budget}")]
    TooLarge {
        /// The key of the value.
        what: String,
        /// Which memory: "host" or "device".
        place: &'static str,
        /// The memory that the value takes, in bytes.
        size: u64,
        /// All of the budget, in bytes.
        budget: u64,
    },
    /// Everything else within the budget stayed in use.
    #[error(
        "{what} does not fit into memory now: everything resident stayed in use for {waited:?}"
    )]
    Busy {
        /// The key of the value.
        what: String,
        /// How long the load waited.
        waited: Duration,
    },
    /// The loader panicked or the runtime is shutting down.
    #[error("loading {what} was aborted")]
    Stopped {
        /// The key of the value.
        what: String,
    },
}
