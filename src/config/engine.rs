//! The settings of the engine: batching, queues, threads.

use std::time::Duration;

use super::{
    ConfigError, Given,
    range::{bytes, count, threads, within},
};
use tipserve_engine::{EngineSettings, ThreadPlan};

/// Thread settings as given, before the device is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct GivenThreads {
    /// Threads that decode pictures; none: the device decides.
    pub decoders: Option<usize>,
    /// Workers that run the encoder; none: the device decides.
    pub workers: Option<usize>,
    /// torch's threads of each worker; none: the device decides.
    pub intra_op: Option<usize>,
}

impl GivenThreads {
    /// The thread settings among these.
    pub(super) fn resolve(given: &Given) -> Result<GivenThreads, ConfigError> {
        Ok(GivenThreads {
            decoders: threads("decode_threads", given.decode_threads)?,
            workers: threads("workers", given.workers)?,
            intra_op: threads("torch_threads", given.torch_threads)?,
        })
    }

    /// The device's plan, but for what was given.
    pub fn over(self, plan: ThreadPlan) -> ThreadPlan {
        ThreadPlan {
            decoders: self.decoders.unwrap_or(plan.decoders),
            workers: self.workers.unwrap_or(plan.workers),
            intra_op: self.intra_op.unwrap_or(plan.intra_op),
        }
    }
}

/// The engine's settings, but for what the device decides.
pub(super) fn settings(given: &Given) -> Result<EngineSettings, ConfigError> {
    let defaults = EngineSettings::default();
    Ok(EngineSettings {
        max_queue_delay: Duration::from_millis(within(
            "max_queue_delay_ms",
            given.max_queue_delay_ms.unwrap_or(0),
            0,
            60_000,
            "0 to 60,000",
        )?),
        queue_items: count("queue_items", given.queue_items, defaults.queue_items)?,
        queue_bytes: bytes("queue_bytes", given.queue_bytes, defaults.queue_bytes)?,
        embedding_cache_bytes: within(
            "embedding_cache_bytes",
            given
                .embedding_cache_bytes
                .unwrap_or(defaults.embedding_cache_bytes),
            0,
            1 << 50,
            "0 to 1 PiB",
        )?,
        jpeg_shrink: match given.jpeg_shrink.unwrap_or(0.0) {
            never if never == 0.0 => never,
            times => within("jpeg_shrink", times, 1.0, 8.0, "0, or 1 to 8")?,
        },
        ..defaults
    })
}
