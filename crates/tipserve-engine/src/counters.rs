//! What the engine has done, counted.

use std::sync::atomic::AtomicU64;

/// What the engine has done since it started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Pictures that were decoded and prepared for the encoder.
    pub decoded: AtomicU64,
    /// Pictures that went through the encoder, retries of a failed batch
    /// included.
    pub encoded: AtomicU64,
    /// Batches that the encoder ran.
    pub batches: AtomicU64,
    /// Jobs dropped because they were cancelled or late.
    pub dropped: AtomicU64,
    /// Pictures whose feature was in the embedding cache.
    pub embedding_hits: AtomicU64,
    /// Pictures that could have been in it, but had to go to the encoder.
    pub embedding_misses: AtomicU64,
    /// Pictures that took the feature of an equal one in flight.
    pub embedding_coalesced: AtomicU64,
}
