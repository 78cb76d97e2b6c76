//! The settings of the engine: batching, queues, threads.

use std::time::Duration;

use super::{ConfigError, Given, given::declared};
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
    /// The most of a batch that runs alone; none: as many as all workers have,
    /// on a CPU.
    pub lone: Option<usize>,
}

impl GivenThreads {
    /// The thread settings among these.
    pub(super) fn resolve(given: &Given) -> Result<GivenThreads, ConfigError> {
        Ok(GivenThreads {
            decoders: declared::decode_threads.if_given(given.decode_threads)?,
            workers: declared::workers.if_given(given.workers)?,
            intra_op: declared::torch_threads.if_given(given.torch_threads)?,
            lone: declared::lone_batch_threads.if_given(given.lone_batch_threads)?,
        })
    }

    /// The device's plan, overridden by what was given.
    pub fn over(self, plan: ThreadPlan) -> ThreadPlan {
        let workers = self.workers.unwrap_or(plan.workers);
        let intra_op = self.intra_op.unwrap_or(plan.intra_op);
        // Who gives the encoder fewer cores wants the others left alone.
        let lone = plan.lone.min(workers * intra_op);
        ThreadPlan {
            decoders: self.decoders.unwrap_or(plan.decoders),
            workers,
            intra_op,
            lone: self.lone.unwrap_or(lone),
        }
    }
}

/// The engine's settings without what the device decides.
pub(super) fn settings(given: &Given) -> Result<EngineSettings, ConfigError> {
    Ok(EngineSettings {
        max_queue_delay: Duration::from_millis(
            declared::max_queue_delay_ms.value(given.max_queue_delay_ms)?,
        ),
        queue_items: declared::queue_items.value(given.queue_items)?,
        queue_bytes: declared::queue_bytes.value(given.queue_bytes)?,
        embedding_cache_bytes: declared::embedding_cache_bytes
            .value(given.embedding_cache_bytes)?,
        jpeg_shrink: match given.jpeg_shrink {
            None => 0.0,
            Some(times) if times == 0.0 || (1.0..=8.0).contains(&times) => times,
            Some(times) => return Err(declared::jpeg_shrink.out_of_range(times)),
        },
        ..EngineSettings::default()
    })
}
