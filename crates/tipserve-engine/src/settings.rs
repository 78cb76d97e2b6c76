//! The settings of the engine.

use std::{sync::Arc, time::Duration};

use tip_adapter::answer::TopKBackend;

use crate::observer::{Observer, Unobserved};

/// How the machine's cores are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadPlan {
    /// Number of threads that decode pictures.
    pub decoders: usize,
    /// Workers that run the encoder, sharing its weights.
    pub workers: usize,
    /// torch's threads inside one operation, per worker.
    pub intra_op: usize,
    /// The most torch threads of a batch that runs alone; no more than
    /// `intra_op`: as any other.
    pub lone: usize,
}

impl ThreadPlan {
    /// The plan for a CPU device with `cores` cores: a worker with one torch
    /// thread per core. Workers with a core each need no barrier between
    /// threads inside an operation, so that a core lost to another process
    /// slows one worker instead of all (`docs/performance.md` has the
    /// figures). Decoders are as many: the ready queue is bounded, so they
    /// take only the time that the encoder needs.
    pub fn for_cpu(cores: usize) -> ThreadPlan {
        let cores = cores.max(1);
        ThreadPlan {
            decoders: cores,
            workers: cores,
            intra_op: 1,
            lone: cores,
        }
    }

    /// The plan for CUDA devices: all cores decode, and three workers a device
    /// keep it without gaps: while one's batch is computed, another's is copied
    /// to the device and a third's answers are written.
    pub fn for_cuda(cores: usize, devices: usize) -> ThreadPlan {
        ThreadPlan {
            decoders: cores.max(1),
            workers: 3 * devices.max(1),
            intra_op: 1,
            lone: 1,
        }
    }
}

/// Settings of the engine. All are checked by `config`.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Most pictures in one batch.
    pub max_batch: usize,
    /// Most embeddings in one batch of the head worker.
    pub max_head_batch: usize,
    /// How long an idle device waits for a batch to fill. Default zero: it
    /// takes what is there at once.
    pub max_queue_delay: Duration,
    /// Most jobs in the engine at once, in all its queues.
    pub queue_items: usize,
    /// Most bytes that these jobs may hold.
    pub queue_bytes: usize,
    /// Most bytes of features that are kept for pictures sent again; 0 keeps
    /// none, and equal pictures in flight are encoded one by one.
    pub embedding_cache_bytes: usize,
    /// Decode a large JPEG at a half, a quarter or an eighth, as long as each
    /// side keeps this many times the pixels that it is resized to; 0: never.
    pub jpeg_shrink: f64,
    /// How long a training step yields to interactive work before it takes its
    /// turn.
    pub step_patience: Duration,
    /// Batch sizes that every worker runs, twice, before the engine is ready.
    pub warm: Vec<usize>,
    /// Once a batch takes longer than this, larger ones are not warmed: a
    /// picture of a large model takes a CPU seconds.
    pub warm_patience: Duration,
    /// A batch runs alone if for so long no two ran at once: where callers
    /// come close upon each other, a batch on all cores is in the way of the next.
    pub lone_after: Duration,
    /// Where the best classes are chosen.
    pub top_k_backend: TopKBackend,
    /// How the cores are shared out.
    pub threads: ThreadPlan,
    /// Receives the engine's events: counts, latencies, warnings.
    pub observer: Arc<dyn Observer>,
}

impl EngineSettings {
    /// Most pictures in one batch on a CPU, if nothing is said. The
    /// activations of 32 outgrow the caches: two batches of 16 are quicker, and
    /// take less memory (`docs/performance.md`).
    pub const MAX_BATCH_ON_CPU: usize = 16;

    /// Most pictures in one batch on CUDA, if nothing is said.
    pub const MAX_BATCH_ON_CUDA: usize = 256;

    /// [`EngineSettings::warm_patience`] on a CPU, where no size has kernels of
    /// its own. Of a batch that takes this long the share that is not its
    /// pictures' is little.
    pub const WARM_PATIENCE_ON_CPU: Duration = Duration::from_secs(2);

    /// Sizes to warm on a CPU: nothing is compiled per shape there, so a few
    /// small ones allocate what all need and teach the cost model its line.
    pub fn warm_on_cpu(max_batch: usize) -> Vec<usize> {
        [1, 2, 4].into_iter().filter(|n| *n <= max_batch).collect()
    }

    /// Sizes to warm on CUDA: every power of two, and the largest; kernels are
    /// chosen per shape.
    pub fn warm_on_cuda(max_batch: usize) -> Vec<usize> {
        std::iter::successors(Some(1), |n| Some(n * 2))
            .take_while(|n| *n < max_batch)
            .chain([max_batch])
            .collect()
    }
}

impl Default for EngineSettings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        EngineSettings {
            max_batch: EngineSettings::MAX_BATCH_ON_CPU,
            max_head_batch: 256,
            max_queue_delay: Duration::ZERO,
            queue_items: 8192,
            queue_bytes: 1 << 30,
            embedding_cache_bytes: 0,
            jpeg_shrink: 0.0,
            step_patience: Duration::from_millis(200),
            warm: EngineSettings::warm_on_cpu(EngineSettings::MAX_BATCH_ON_CPU),
            warm_patience: EngineSettings::WARM_PATIENCE_ON_CPU,
            lone_after: Duration::from_secs(1),
            top_k_backend: TopKBackend::Automatic,
            threads: ThreadPlan::for_cpu(cores),
            observer: Arc::new(Unobserved),
        }
    }
}
