//! The engine: decode pool → batcher → device workers.
//!
//! ```text
//!  submit ─► admission ─► decode queue ─► decoders ─► ready queue ─► device workers ─► ticket
//!            items, bytes,  fair by flow    check, decode,  fair by flow,   encode the batch,
//!            deadline                       resize, crop    bounded         one head per cache
//!
//!  embeddings skip the decoders and the encoder: submit ─► head queue ─► head worker ─► ticket
//! ```
//!
//! One queue serves all callers, streams and caches of a model. Forward only:
//! no stage calls back, every stage drops work that is cancelled or past its
//! deadline before it pays for it, and every admitted job gets exactly one
//! answer ([`Ticket`] sees to it, even when it is dropped).
//!
//! - [`Engine`]: started with an [`Encoder`] and [`EngineSettings`]; one a
//!   model, shared by all callers.
//! - [`Job`]: a picture or an embedding, what to do with its feature, whose it
//!   is ([`FlowId`]), how urgent, and until when; answered through its
//!   [`Ticket`].
//! - [`Admission`]: bounds on what is in the engine, which is what gives
//!   callers backpressure.
//! - [`Machine`]: what several engines share, each with an encoder of its own:
//!   those bounds, and slots in which they take turns.
//!
//! The engine knows nothing of RPCs or files.
//!
//! ```
//! use tipserve_engine::Admission;
//!
//! // Two items or 4 KiB at once.
//! let admission = Admission::new(2, 4096);
//! let first = admission.try_enter(1024)?;
//! let second = admission.try_enter(1024)?;
//! // Overload: the bound that was reached is named.
//! let refusal = admission.try_enter(1024).unwrap_err();
//! assert_eq!((refusal.limit, refusal.value), ("queue_items", 2));
//! drop(first);
//! assert!(admission.try_enter(1024).is_ok());
//! # drop(second);
//! # Ok::<(), tipserve_engine::Refusal>(())
//! ```

#![forbid(unsafe_code)]

mod admission;
mod background;
mod batch_plan;
mod cost;
mod counters;
mod decode;
mod device;
mod embeddings;
mod encoder;
mod error;
mod heads;
mod job;
mod lone;
mod machine;
mod observer;
mod queue;
mod settings;
mod shared;
mod slots;
mod stage;
mod work_item;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

use parking_lot::{Condvar, Mutex};

pub use admission::{Admission, Permit, Refusal};
pub use cost::CostModel;
pub use counters::Counters;
pub use encoder::{EncodeFault, Encoder};
pub use error::EngineError;
pub use job::{Content, Crop, Feature, FlowId, Job, JobOutput, Priority, Source, Ticket, Work};
pub use machine::{HeldTurn, Machine, Turns};
pub use observer::{Dropped, Observer, Unobserved};
pub use settings::{EngineSettings, ThreadPlan};
pub use stage::{Stage, StageTimes};
pub use tip_adapter::answer::{Row, Scores, ScoresRequest, TopKBackend};

use background::Step;
use device::Device;
use job::Item;
use queue::FairQueue;
use shared::Shared;
use tipserve_clip::{ImageSpec, PictureLimits};
use work_item::{DecodeJob, ReadyJob};

/// The handle to the engine; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Engine {
    /// Starts the decoders and device workers, with a machine of their own.
    /// `encoder` is absent for a bundle that only takes embeddings.
    ///
    /// # Errors
    /// The operating system's, if a thread cannot be started.
    pub fn start(
        settings: EngineSettings,
        encoder: Option<(Arc<dyn Encoder>, ImageSpec)>,
        limits: PictureLimits,
    ) -> std::io::Result<Engine> {
        Engine::start_on(&Machine::new(&settings), settings, encoder, limits)
    }

    /// The same on a machine shared with other engines, whose settings differ
    /// only in what a bundle decides.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn start_on(
        machine: &Machine,
        settings: EngineSettings,
        encoder: Option<(Arc<dyn Encoder>, ImageSpec)>,
        limits: PictureLimits,
    ) -> std::io::Result<Engine> {
        let (encoder, spec) = match encoder {
            Some((encoder, spec)) => (Some(encoder), Some(spec)),
            None => (None, None),
        };
        let shared = Arc::new(Shared {
            shares: machine.shares(),
            decode: FairQueue::new(usize::MAX),
            // Decoding far ahead of the encoder would spend cores and memory
            // on pictures that may yet be cancelled or late.
            ready: FairQueue::new(settings.max_batch * settings.threads.workers * 2),
            heads: FairQueue::new(usize::MAX),
            cost: Mutex::new(CostModel::default()),
            counters: Counters::default(),
            in_device: AtomicUsize::new(0),
            refused: Mutex::new(None),
            broken: AtomicBool::new(false),
            lone: OnceLock::new(),
            warm: (Mutex::default(), Condvar::new()),
            spec,
            limits,
            settings,
        });
        let mut threads = Vec::new();
        if let Some(encoder) = encoder {
            for number in 0..shared.settings.threads.decoders {
                threads.push(decode::spawn(number, Arc::clone(&shared))?);
            }
            for number in 0..shared.settings.threads.workers {
                let device = Device::new(Arc::clone(&shared), Some(Arc::clone(&encoder)));
                threads.push(device.spawn_encoding(number)?);
            }
        } else {
            // Without an encoder the device still trains and chooses.
            let device = Device::new(Arc::clone(&shared), None);
            threads.push(device.spawn_encoding(0)?);
        }
        threads.push(Device::new(Arc::clone(&shared), None).spawn_heads()?);
        Ok(Engine {
            shared,
            threads: Arc::new(Mutex::new(threads)),
        })
    }

    /// Blocks until every device worker has run every batch size that it is
    /// warmed with, so that no caller pays for a first call.
    ///
    /// # Errors
    /// The encoder's fault, if it failed at every size, or broke the device: it
    /// would fail on every picture.
    pub fn wait_until_warm(&self) -> Result<(), EncodeFault> {
        let (warm, changed) = &self.shared.warm;
        let workers = match self.shared.spec {
            Some(_) => self.shared.settings.threads.workers,
            None => 1,
        };
        let mut warm = warm.lock();
        while warm.ready < workers {
            changed.wait(&mut warm);
        }
        warm.failure().cloned().map_or(Ok(()), Err)
    }

    /// Admission: how much is in the engine, and permits for more.
    pub fn admission(&self) -> &Admission {
        &self.shared.shares.admission
    }

    /// What has been done so far.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// The settings that the engine was started with.
    pub fn settings(&self) -> &EngineSettings {
        &self.shared.settings
    }

    /// Whether pictures can be taken.
    pub fn takes_pictures(&self) -> bool {
        self.shared.spec.is_some()
    }

    /// Whether the device can still run batches.
    pub fn is_healthy(&self) -> bool {
        !self.shared.broken.load(Ordering::Relaxed)
    }

    /// Predicted seconds until a picture of this flow and priority, arriving
    /// now, would be answered; none before the first batch has been timed. 0
    /// for an idle engine, which begins at once whatever its estimate says:
    /// that is how it learns that the machine has become faster.
    pub fn predicted_wait(&self, flow: FlowId, priority: Priority) -> Option<f64> {
        let shared = &self.shared;
        let workers = shared.settings.threads.workers;
        let running = shared.in_device.load(Ordering::Relaxed);
        let waiting =
            shared.decode.ahead_of(flow, priority) + shared.ready.ahead_of(flow, priority);
        let cost = shared.cost.lock();
        let size = cost.worthwhile(shared.settings.max_batch)?;
        let throughput = cost.throughput(size)? * workers as f64;
        if waiting + running == 0 {
            return Some(0.0);
        }
        // What is running is half done on average. The item's own batch
        // includes those that wait next to it.
        let ahead = waiting as f64 + running as f64 / 2.0;
        let own = (waiting / workers.max(1) + 1).min(size);
        // Each batch waits for its turn while other engines have theirs.
        let turn = shared.shares.workers.wait_seconds();
        let slowed = 1.0 + turn / cost.predict(size)?;
        Some(cost.margin() * (ahead / throughput * slowed + turn + cost.predict(own)?))
    }

    /// Tells the engine that an item was refused because its deadline could not
    /// be met.
    pub fn note_refusal(&self) {
        *self.shared.refused.lock() = Some(Instant::now());
    }

    /// Whether the embedding cache holds this content's feature, so that it
    /// need not wait for the encoder.
    pub fn holds_feature_of(&self, content: &Content) -> bool {
        self.shared
            .shares
            .embeddings
            .as_ref()
            .and_then(|embeddings| embeddings.look_up(content))
            .is_some_and(|(_, cached)| cached.is_some())
    }

    /// Features that the machine's embedding cache holds, and their bytes.
    pub fn embeddings_held(&self) -> (usize, u64) {
        self.shared
            .shares
            .embeddings
            .as_ref()
            .map_or((0, 0), |embeddings| embeddings.held())
    }

    /// Takes a job. It is answered through its ticket, exactly once, whatever
    /// happens; a job that is late or cancelled already is answered at once.
    pub fn submit(&self, job: Job) {
        let shared = &self.shared;
        let Some(job) = job
            .observed_by(&shared.settings.observer)
            .alive(&shared.counters)
        else {
            return;
        };
        if !self.is_healthy() {
            job.ticket.answer(Err(EngineError::DeviceBroken));
            return;
        }
        let Job {
            content,
            work,
            flow,
            priority,
            deadline,
            ticket,
            cancelled,
        } = job;
        let looked_up = shared
            .shares
            .embeddings
            .as_ref()
            .and_then(|embeddings| embeddings.look_up(&content));
        let item = Item {
            work,
            flow,
            priority,
            deadline,
            ticket,
            cancelled,
            arrived: Instant::now(),
            origin: tracing::Span::current(),
        };
        match content {
            Content::Embedding(values) => {
                shared
                    .heads
                    .push(flow, priority, ReadyJob::embedding(values, item));
            }
            Content::Picture { .. } if shared.spec.is_none() => {
                item.ticket.answer(Err(EngineError::NoImageEncoder));
            }
            Content::Picture { source, crop } => match looked_up {
                Some((_, Some(cached))) => {
                    shared
                        .counters
                        .embedding_hits
                        .fetch_add(1, Ordering::Relaxed);
                    shared.answer_cached(item, cached);
                }
                looked_up => {
                    let key = looked_up.map(|(key, _)| key);
                    let job = DecodeJob {
                        source,
                        crop,
                        key,
                        item,
                    };
                    shared.decode.push(flow, priority, job);
                }
            },
        }
    }

    /// Runs a short step (at most some tens of milliseconds) on a device
    /// worker, when no interactive work waits, or after yielding to it for
    /// [`EngineSettings::step_patience`]. Blocks until it has run; never call
    /// it on an async thread. Returns none if the engine is shutting down.
    pub fn step<T: Send + 'static>(&self, step: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (done, result) = crossbeam_channel::bounded(1);
        self.shared.ready.push_step(Step::new(move || {
            // The caller may be gone; then nobody wants the result.
            let _ = done.send(step());
        }));
        result.recv().ok()
    }

    /// Holds every device worker until `items` jobs wait for it (or the
    /// returned guard is dropped), so that tests can assert a batch's
    /// composition.
    pub fn hold_until(&self, items: usize) -> Hold {
        self.shared.ready.hold_until(items);
        self.shared.heads.hold_until(items);
        Hold {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Jobs waiting for a decoder, for the encoder, and for the head worker.
    pub fn queued(&self) -> [usize; 3] {
        [
            self.shared.decode.len(),
            self.shared.ready.len(),
            self.shared.heads.len(),
        ]
    }

    /// Answers what has been admitted, then stops the threads. Blocks.
    pub fn shut_down(&self) {
        let mut threads = self.threads.lock();
        let mut join = |stage: &str| {
            for thread in threads.extract_if(.., |t| {
                t.thread().name().is_some_and(|n| n.starts_with(stage))
            }) {
                let _ = thread.join();
            }
        };
        // A queue closes only once nothing can be pushed to it.
        self.shared.decode.close();
        join("decode");
        self.shared.ready.close();
        join("device");
        self.shared.heads.close();
        join("heads");
        if let Some(embeddings) = &self.shared.shares.embeddings {
            embeddings.clear();
        }
    }
}

/// Holds the device workers; see [`Engine::hold_until`].
pub struct Hold {
    shared: Arc<Shared>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.ready.hold_until(0);
        self.shared.heads.hold_until(0);
    }
}
