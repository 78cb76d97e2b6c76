//! The device workers: encode a batch once, then one head per cache version.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tch::{Kind, Tensor};

use super::{EngineError, Shared, StageTimes, Ticket, Work, heads, job::lapse, queue::Turn};
use crate::telemetry;

/// Why a batch could not be encoded.
#[derive(Clone, Debug)]
pub struct EncodeFault {
    /// What torch said, first line.
    pub detail: String,
    /// Nothing can run on this device any more.
    pub fatal: bool,
}

impl EncodeFault {
    /// Reads torch's message: its first line, and whether it names an error
    /// after which the CUDA context is lost.
    pub fn new(message: &str) -> EncodeFault {
        const FATAL: [&str; 5] = [
            "illegal memory access",
            "device-side assert",
            "unspecified launch failure",
            "misaligned address",
            "uncorrectable ECC error",
        ];
        EncodeFault {
            detail: message.lines().next().unwrap_or_default().to_owned(),
            fatal: FATAL.iter().any(|sign| message.contains(sign)),
        }
    }
}

/// Turns prepared pictures into features.
pub trait Encoder: Send + Sync {
    /// Raw features f32 [B, D] of prepared pictures u8 [B, S, S, 3]. Called by
    /// several workers at once, each on a thread of its own.
    ///
    /// # Errors
    /// Torch's, and whether the device survives it.
    fn encode(&self, pixels: &Tensor) -> Result<Tensor, EncodeFault>;
}

/// A short piece of background work for a device worker.
pub(super) struct Step {
    run: Box<dyn FnOnce() + Send>,
    since: Instant,
}

impl Step {
    pub fn new(run: impl FnOnce() + Send + 'static) -> Step {
        Step {
            run: Box::new(run),
            since: Instant::now(),
        }
    }

    pub fn waited(&self) -> Duration {
        self.since.elapsed()
    }
}

enum Payload {
    /// u8 [S, S, 3].
    Pixels(Vec<u8>),
    /// Unit f32 [D].
    Unit(Vec<f32>),
}

/// A job that waits for its batch.
pub(super) struct ReadyJob {
    payload: Payload,
    pub work: Work,
    deadline: Option<Instant>,
    pub ticket: Ticket,
    cancelled: Arc<AtomicBool>,
    pub arrived: Instant,
    queued: Instant,
    pub times: StageTimes,
}

impl ReadyJob {
    pub fn picture(
        pixels: Vec<u8>,
        work: Work,
        deadline: Option<Instant>,
        ticket: Ticket,
        cancelled: Arc<AtomicBool>,
        arrived: Instant,
        times: StageTimes,
    ) -> ReadyJob {
        ReadyJob {
            payload: Payload::Pixels(pixels),
            work,
            deadline,
            ticket,
            cancelled,
            arrived,
            queued: Instant::now(),
            times,
        }
    }

    pub fn embedding(
        unit: Vec<f32>,
        work: Work,
        deadline: Option<Instant>,
        ticket: Ticket,
        cancelled: Arc<AtomicBool>,
        arrived: Instant,
    ) -> ReadyJob {
        ReadyJob {
            payload: Payload::Unit(unit),
            work,
            deadline,
            ticket,
            cancelled,
            arrived,
            queued: arrived,
            times: StageTimes::default(),
        }
    }
}

/// A job whose feature is known, and the row where it is.
pub(super) struct Encoded {
    pub job: ReadyJob,
    pub row: usize,
}

/// Features of a batch.
pub(super) struct Features {
    /// Unit f32 [B, D], on the heads' device.
    pub unit: Tensor,
    /// Lengths of the raw features, [B].
    pub norms: Vec<f32>,
}

/// One worker.
pub(super) struct Device {
    shared: Arc<Shared>,
    encoder: Option<Arc<dyn Encoder>>,
}

impl Device {
    pub fn new(shared: Arc<Shared>, encoder: Option<Arc<dyn Encoder>>) -> Device {
        Device { shared, encoder }
    }

    /// Starts a worker that encodes pictures and runs background steps. It
    /// keeps its OS thread for life: TorchScript on ever new threads leaks
    /// (pytorch#24237).
    pub fn spawn_encoding(self, number: usize) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name(format!("device-{number}"))
            .spawn(move || {
                tch::set_num_threads(self.intra_op());
                self.warm();
                let settings = &self.shared.settings;
                let most = || {
                    let worthwhile = self.shared.cost.lock().worthwhile(settings.max_batch);
                    // Small batches only where that costs no throughput: what
                    // waits longer than one batch should all go at once.
                    worthwhile.unwrap_or(settings.max_batch)
                };
                while let Some(turn) =
                    self.shared
                        .ready
                        .take(most, settings.max_queue_delay, settings.step_patience)
                {
                    match turn {
                        Turn::Batch(jobs) => self.run_pictures(jobs),
                        Turn::Step(step) => {
                            // A step reports its own failures; a panic in one
                            // must not take the worker with it.
                            let _ = catch_unwind(AssertUnwindSafe(step.run));
                        }
                    }
                }
            })
    }

    /// Starts the worker that serves embeddings.
    pub fn spawn_heads(self) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name("heads".to_owned())
            .spawn(move || {
                tch::set_num_threads(self.intra_op());
                let settings = &self.shared.settings;
                while let Some(Turn::Batch(jobs)) = self.shared.heads.take(
                    || settings.max_head_batch,
                    Duration::ZERO,
                    Duration::ZERO,
                ) {
                    self.run_embeddings(jobs);
                }
            })
    }

    /// Runs the batch sizes to be warmed, twice each: the first calls at a size
    /// are slow, and the cost model learns from the second.
    fn warm(&self) {
        if let (Some(encoder), Some(spec)) = (&self.encoder, &self.shared.spec) {
            for &size in &self.shared.settings.warm {
                let side = i64::from(spec.size);
                let pixels = guarded(|| {
                    Tensor::f_zeros(
                        [size as i64, side, side, 3],
                        (Kind::Uint8, tch::Device::Cpu),
                    )
                });
                for run in 0..2 {
                    let started = Instant::now();
                    let result = pixels.as_ref().map(|pixels| encoder.encode(pixels));
                    match result {
                        Ok(Ok(_)) if run > 0 => {
                            let seconds = started.elapsed().as_secs_f64();
                            self.shared.cost.lock().warm(size, seconds);
                        }
                        Ok(Ok(_)) => {}
                        Ok(Err(fault)) => tracing::error!(size, fault.detail, "warming failed"),
                        Err(fault) => tracing::error!(size, fault.detail, "warming failed"),
                    }
                }
            }
        }
        let (warm, changed) = &self.shared.warm;
        *warm.lock() += 1;
        changed.notify_all();
    }

    fn intra_op(&self) -> i32 {
        i32::try_from(self.shared.settings.threads.intra_op).unwrap_or(1)
    }

    /// Answers jobs that are late or cancelled; returns the others.
    fn drop_lapsed(&self, jobs: Vec<ReadyJob>, needed: Duration) -> Vec<ReadyJob> {
        jobs.into_iter()
            .filter_map(
                |job| match lapse(job.deadline, &job.cancelled, "for a batch", needed) {
                    None => Some(job),
                    Some(error) => {
                        self.shared.counters.dropped.fetch_add(1, Ordering::Relaxed);
                        job.ticket.answer(Err(error));
                        None
                    }
                },
            )
            .collect()
    }

    fn run_pictures(&self, jobs: Vec<ReadyJob>) {
        let predicted = self.shared.cost.lock().predict(jobs.len()).unwrap_or(0.0);
        let needed = Duration::try_from_secs_f64(predicted).unwrap_or_default();
        let mut jobs = self.drop_lapsed(jobs, needed);
        if jobs.is_empty() {
            return;
        }
        let started = Instant::now();
        for job in &mut jobs {
            job.times.queue = started - job.queued;
        }
        let count = jobs.len();
        self.shared.in_device.fetch_add(count, Ordering::Relaxed);
        self.encode_or_split(jobs);
        self.shared.in_device.fetch_sub(count, Ordering::Relaxed);
    }

    /// Encodes a batch; where that fails, halves it until the guilty item is
    /// alone. The others get their answers.
    fn encode_or_split(&self, mut jobs: Vec<ReadyJob>) {
        let started = Instant::now();
        match self.encode(&jobs) {
            Ok(features) => {
                let took = started.elapsed();
                let count = jobs.len();
                self.shared.cost.lock().observe(count, took.as_secs_f64());
                telemetry::batch(count, took);
                for job in &mut jobs {
                    job.times.encode = took;
                    job.times.batch_size = count;
                }
                self.answer_finite(jobs, features);
            }
            Err(fault) if fault.fatal => {
                self.shared.broken.store(true, Ordering::Relaxed);
                tracing::error!(detail = fault.detail, "the device is broken");
                for job in jobs {
                    job.ticket.answer(Err(EngineError::DeviceBroken));
                }
            }
            Err(fault) if jobs.len() == 1 => {
                for job in jobs {
                    job.ticket.answer(Err(EngineError::Encoder {
                        detail: fault.detail.clone(),
                    }));
                }
            }
            Err(fault) => {
                tracing::warn!(
                    batch = jobs.len(),
                    detail = fault.detail,
                    "a batch failed; splitting it"
                );
                let rest = jobs.split_off(jobs.len() / 2);
                for half in [jobs, rest] {
                    let half = self.drop_lapsed(half, Duration::ZERO);
                    if !half.is_empty() {
                        self.encode_or_split(half);
                    }
                }
            }
        }
    }

    fn encode(&self, jobs: &[ReadyJob]) -> Result<Features, EncodeFault> {
        let (Some(encoder), Some(spec)) = (&self.encoder, &self.shared.spec) else {
            return Err(EncodeFault {
                detail: "no image encoder".to_owned(),
                fatal: false,
            });
        };
        let side = spec.size as usize;
        let mut pixels = Vec::with_capacity(jobs.len() * side * side * 3);
        for job in jobs {
            if let Payload::Pixels(one) = &job.payload {
                pixels.extend_from_slice(one);
            }
        }
        self.shared.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.shared
            .counters
            .encoded
            .fetch_add(jobs.len() as u64, Ordering::Relaxed);
        guarded(|| {
            let shape = [jobs.len() as i64, side as i64, side as i64, 3];
            let pixels = Tensor::f_from_data_size(&pixels, &shape, Kind::Uint8)?;
            Ok(encoder.encode(&pixels))
        })
        .and_then(|result| result)
        .and_then(|raw| {
            guarded(|| {
                let norms = raw.f_norm_scalaropt_dim(2.0, [1], true)?;
                let unit = raw.f_div(&norms)?;
                let norms = Vec::<f32>::try_from(norms.f_flatten(0, -1)?)?;
                Ok(Features { unit, norms })
            })
        })
    }

    /// Answers the items whose feature is not a direction; heads get the rest.
    fn answer_finite(&self, jobs: Vec<ReadyJob>, features: Features) {
        let mut good = Vec::with_capacity(jobs.len());
        for (row, job) in jobs.into_iter().enumerate() {
            match features.norms.get(row) {
                Some(norm) if norm.is_finite() && *norm > 0.0 => good.push(Encoded { job, row }),
                _ => job.ticket.answer(Err(EngineError::NotFinite)),
            }
        }
        heads::answer(good, &features);
    }

    fn run_embeddings(&self, jobs: Vec<ReadyJob>) {
        let mut jobs = self.drop_lapsed(jobs, Duration::ZERO);
        let started = Instant::now();
        let mut values = Vec::new();
        for job in &mut jobs {
            job.times.queue = started - job.queued;
            job.times.batch_size = 0;
            if let Payload::Unit(unit) = &job.payload {
                values.extend_from_slice(unit);
            }
        }
        if jobs.is_empty() {
            return;
        }
        let shape = [jobs.len() as i64, (values.len() / jobs.len()) as i64];
        match guarded(|| Tensor::f_from_slice(&values)?.f_reshape(shape)) {
            Ok(unit) => {
                let norms = vec![1.0; jobs.len()];
                let encoded = jobs
                    .into_iter()
                    .enumerate()
                    .map(|(row, job)| Encoded { job, row })
                    .collect();
                heads::answer(encoded, &Features { unit, norms });
            }
            Err(fault) => {
                for job in jobs {
                    job.ticket.answer(Err(EngineError::Head {
                        detail: fault.detail.clone(),
                    }));
                }
            }
        }
    }
}

/// Runs torch code; its errors, and the panics of the binding, are faults.
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T, tch::TchError>) -> Result<T, EncodeFault> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(EncodeFault::new(&error.to_string())),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("a panic without a message");
            Err(EncodeFault::new(text))
        }
    }
}
