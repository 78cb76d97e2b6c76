//! What all stages share: the queues between them, and the device's state.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::{
    cost::CostModel,
    counters::Counters,
    embeddings::CachedEmbedding,
    encoder::EncodeFault,
    job::Item,
    lone::Lone,
    machine::Shares,
    queue::FairQueue,
    settings::EngineSettings,
    work_item::{DecodeJob, ReadyJob},
};
use tipserve_clip::{ImageSpec, PictureLimits};

/// How long the engine counts as overloaded after it refused an item for lack
/// of time: long against the time between two refusals under overload, short
/// against a caller's patience.
const OVERLOADED_FOR: Duration = Duration::from_secs(1);

/// The state that admission, decoders and workers share.
pub(crate) struct Shared {
    pub settings: EngineSettings,
    pub spec: Option<ImageSpec>,
    pub limits: PictureLimits,
    /// The engine's shares of the machine.
    pub shares: Shares,
    pub decode: FairQueue<DecodeJob>,
    pub ready: FairQueue<ReadyJob>,
    pub heads: FairQueue<ReadyJob>,
    pub cost: Mutex<CostModel>,
    pub counters: Counters,
    /// Jobs between the decode queue and their answer, for predicting waits.
    pub in_device: AtomicUsize,
    /// When an item was last refused because its deadline could not be met.
    pub refused: Mutex<Option<Instant>>,
    /// A device that no later batch can use (a poisoned CUDA context).
    pub broken: AtomicBool,
    /// How batches run that run alone, once a trial has shown that a team is
    /// quicker.
    pub lone: OnceLock<Lone>,
    /// How far the workers are with running every batch size.
    pub warm: (Mutex<Warming>, Condvar),
}

/// What came of running the batch sizes that are warmed.
#[derive(Debug, Default)]
pub(crate) struct Warming {
    /// Workers that have run every size.
    pub workers: usize,
    /// Workers that begin to serve.
    pub ready: usize,
    /// Whether a batch of any size gave features.
    pub ran: bool,
    /// Why one did not: the first reason, or the one that broke the device.
    pub fault: Option<EncodeFault>,
}

impl Warming {
    pub fn fail(&mut self, fault: EncodeFault) {
        if self.fault.is_none() || fault.fatal {
            self.fault = Some(fault);
        }
    }

    /// Why no batch can be encoded; none if some can: those that are too large
    /// now may fit later.
    pub fn failure(&self) -> Option<&EncodeFault> {
        let fault = self.fault.as_ref();
        fault.filter(|fault| fault.fatal || !self.ran)
    }
}

impl Shared {
    /// Marks the device as broken: nothing runs on it any more, and the server
    /// is unready.
    pub fn break_device(&self, fault: &EncodeFault) {
        tracing::error!(detail = fault.detail, "the device is broken");
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Whether there is more work than can be done in time.
    pub fn is_overloaded(&self) -> bool {
        self.refused
            .lock()
            .is_some_and(|at| at.elapsed() < OVERLOADED_FOR)
    }

    /// Whether a worker that has a slot is the only one at work, and has been of late.
    pub fn is_alone(&self) -> bool {
        let shares = &self.shares;
        let apart = shares.workers.without_overlap();
        self.decode.len() + self.ready.len() == 0
            && shares.decoders.is_idle()
            && apart.is_some_and(|time| time >= self.settings.lone_after)
    }

    /// Sends an item whose feature is cached to its head.
    pub fn answer_cached(&self, item: Item, cached: CachedEmbedding) {
        let (flow, priority) = (item.flow, item.priority);
        self.heads
            .push(flow, priority, ReadyJob::cached(cached, item));
    }
}
