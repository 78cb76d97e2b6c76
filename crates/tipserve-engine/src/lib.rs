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
//! The engine knows nothing of RPCs or files.

mod admission;
mod cost;
mod cut;
mod decode;
mod device;
mod embeddings;
mod error;
mod heads;
mod job;
mod observer;
mod queue;
mod settings;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

pub use admission::{Admission, Permit, Refusal};
pub use cost::CostModel;
pub use device::{EncodeFault, Encoder};
pub use error::EngineError;
pub use job::{
    Content, Crop, Feature, FlowId, Job, Outcome, Priority, Source, StageTimes, Ticket, Work,
};
pub use observer::{Dropped, Observer, Stage, Unobserved};
pub use settings::{EngineSettings, ThreadPlan};

use decode::DecodeJob;
use device::{Device, ReadyJob, Step};
use embeddings::{Embeddings, Known};
use job::Item;
use queue::Lane;
pub use tip_adapter::answer::{Choosing, Row, Scores, Wanted};
use tipserve_clip::{ImageSpec, PictureLimits};

/// What the engine has done since it started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Pictures decoded and prepared.
    pub decoded: AtomicU64,
    /// Pictures that went through the encoder, retries of a failed batch
    /// included.
    pub encoded: AtomicU64,
    /// Batches that the encoder ran.
    pub batches: AtomicU64,
    /// Jobs dropped because they were cancelled or late.
    pub dropped: AtomicU64,
    /// Pictures whose feature was held by the embedding cache.
    pub embedding_hits: AtomicU64,
    /// Pictures that it could have held but had to send to the encoder.
    pub embedding_misses: AtomicU64,
    /// Pictures that took the feature of an equal one in flight.
    pub embedding_coalesced: AtomicU64,
}

/// What the stages share.
struct Shared {
    settings: EngineSettings,
    spec: Option<ImageSpec>,
    limits: PictureLimits,
    admission: Admission,
    decode: Lane<DecodeJob>,
    ready: Lane<ReadyJob>,
    heads: Lane<ReadyJob>,
    cost: Mutex<CostModel>,
    counters: Counters,
    /// Absent where it is off.
    embeddings: Option<Arc<Embeddings>>,
    /// Jobs between the decode queue and their answer, for predicting waits.
    in_device: AtomicUsize,
    /// When a caller was last told that there is no time for its item.
    refused: Mutex<Option<Instant>>,
    /// A device that no later batch can use (a poisoned CUDA context).
    broken: AtomicBool,
    /// Workers that have run every batch size.
    warm: (Mutex<usize>, Condvar),
}

impl Shared {
    /// From here on nothing runs on the device, and the server is unready.
    fn break_device(&self, fault: &EncodeFault) {
        tracing::error!(detail = fault.detail, "the device is broken");
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Whether there is more work than can be done in time.
    fn crowded(&self) -> bool {
        self.refused
            .lock()
            .is_some_and(|at| at.elapsed() < CROWDED_FOR)
    }

    /// Sends an item whose feature is known to its head.
    fn answer_known(&self, item: Item, known: Known) {
        let (flow, priority) = (item.flow, item.priority);
        self.heads
            .push(flow, priority, ReadyJob::known(known, item));
    }
}

/// The handle to the engine; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// How long after a refusal for want of time the engine counts as crowded: long
/// against the time between two refusals under overload, short against a
/// caller's patience.
const CROWDED_FOR: Duration = Duration::from_secs(1);

/// How much longer than predicted something may take and still be in time.
const MARGIN: f64 = 1.15;

impl Engine {
    /// Starts the decoders and device workers. `encoder` is absent for a
    /// bundle that takes embeddings alone.
    ///
    /// # Errors
    /// The operating system's, where a thread cannot be started.
    pub fn start(
        settings: EngineSettings,
        encoder: Option<(Arc<dyn Encoder>, ImageSpec)>,
        limits: PictureLimits,
    ) -> std::io::Result<Engine> {
        let (encoder, spec) = match encoder {
            Some((encoder, spec)) => (Some(encoder), Some(spec)),
            None => (None, None),
        };
        let shared = Arc::new(Shared {
            admission: Admission::new(settings.queue_items, settings.queue_bytes),
            decode: Lane::new(usize::MAX),
            // Decoding far ahead of the encoder would spend cores and memory
            // on pictures that may yet be cancelled or late.
            ready: Lane::new(settings.max_batch * settings.threads.workers * 2),
            heads: Lane::new(usize::MAX),
            cost: Mutex::new(CostModel::default()),
            counters: Counters::default(),
            embeddings: (settings.embedding_cache_bytes > 0)
                .then(|| Embeddings::new(settings.embedding_cache_bytes)),
            in_device: AtomicUsize::new(0),
            refused: Mutex::new(None),
            broken: AtomicBool::new(false),
            warm: (Mutex::new(0), Condvar::new()),
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
    pub fn wait_until_warm(&self) {
        let (warm, changed) = &self.shared.warm;
        let workers = match self.shared.spec {
            Some(_) => self.shared.settings.threads.workers,
            None => 1,
        };
        let mut warm = warm.lock();
        while *warm < workers {
            changed.wait(&mut warm);
        }
    }

    /// The door: how much is in, and how long a newcomer would wait.
    pub fn admission(&self) -> &Admission {
        &self.shared.admission
    }

    /// What has been done so far.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// The settings in force.
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
    /// for an idle engine: it begins at once, whatever it expects, for that is
    /// how it learns that the machine has become faster.
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
        // What is running is half done, in the mean. The item's own batch has
        // those that wait beside it.
        let ahead = waiting as f64 + running as f64 / 2.0;
        let own = (waiting / workers.max(1) + 1).min(size);
        Some(MARGIN * (ahead / throughput + cost.predict(own)?))
    }

    /// Tells the engine that an item was refused as there is no time for it.
    pub fn note_refusal(&self) {
        *self.shared.refused.lock() = Some(Instant::now());
    }

    /// Whether the embedding cache holds this content's feature, so that it
    /// need not wait for the encoder.
    pub fn holds_feature_of(&self, content: &Content) -> bool {
        self.shared
            .embeddings
            .as_ref()
            .and_then(|embeddings| embeddings.look_up(content))
            .is_some_and(|(_, known)| known.is_some())
    }

    /// Features that the embedding cache holds, and their bytes.
    pub fn embeddings_held(&self) -> (usize, u64) {
        self.shared
            .embeddings
            .as_ref()
            .map_or((0, 0), |embeddings| (embeddings.len(), embeddings.bytes()))
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
                Some((_, Some(known))) => {
                    shared
                        .counters
                        .embedding_hits
                        .fetch_add(1, Ordering::Relaxed);
                    shared.answer_known(item, known);
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
    /// worker, when no interactive work waits, or after having given way
    /// [`EngineSettings::step_patience`]. Blocks until it has run; never call
    /// it on an async thread. Returns none where the engine is shutting down.
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
        // A lane closes only once nothing can be pushed to it.
        self.shared.decode.close();
        join("decode");
        self.shared.ready.close();
        join("device");
        self.shared.heads.close();
        join("heads");
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
