//! The device workers: encode a batch once, then one head per cache version.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tch::{Kind, Tensor};

use super::{
    Counters, EngineError, Row, Shared, StageTimes,
    embeddings::{Known, Lead},
    heads,
    job::{Item, lapse},
    queue::Turn,
};
use crate::telemetry;

/// Why a batch could not be encoded.
#[derive(Clone, Debug)]
pub struct EncodeFault {
    /// What torch said, in one line.
    pub detail: String,
    /// Nothing can run on this device any more.
    pub fatal: bool,
}

impl EncodeFault {
    /// Reads torch's message: the line that says what happened, and whether it
    /// names an error after which the CUDA context is lost (those that CUDA's
    /// own documentation calls so: the process must end to use the device
    /// again).
    pub fn new(message: &str) -> EncodeFault {
        const FATAL: [&str; 9] = [
            "illegal memory access",
            // In full: a hint at "device-side assertions" ends every CUDA error.
            "device-side assert triggered",
            "unspecified launch failure",
            "misaligned address",
            "uncorrectable ECC error",
            "illegal instruction was encountered",
            "hardware stack error",
            "invalid program counter",
            "launch timed out and was terminated",
        ];
        let mut lines = message.lines().filter(|line| !line.trim().is_empty());
        let detail = if message.contains("in the TorchScript interpreter") {
            // A traceback of the archive comes first.
            lines.next_back()
        } else {
            lines.next()
        };
        EncodeFault {
            detail: detail.unwrap_or_default().trim().to_owned(),
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

    /// The same of pictures that lie apart, each S·S·3 bytes. An encoder that
    /// must copy them anyway, to another device, does it here in one go.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    fn encode_apart(&self, pictures: &[&[u8]], side: usize) -> Result<Tensor, EncodeFault> {
        let pixels = pictures.concat();
        let shape = [pictures.len() as i64, side as i64, side as i64, 3];
        guarded(|| Tensor::f_from_data_size(&pixels, &shape, Kind::Uint8))
            .and_then(|pixels| self.encode(&pixels))
    }
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
    /// A feature that was encoded for another.
    Known(Known),
}

/// A job that waits for its batch.
pub(super) struct ReadyJob {
    payload: Payload,
    pub item: Item,
    /// Where others may wait for this one's feature.
    lead: Option<Lead>,
    queued: Instant,
    pub times: StageTimes,
}

impl ReadyJob {
    pub fn picture(pixels: Vec<u8>, item: Item, lead: Option<Lead>, times: StageTimes) -> ReadyJob {
        ReadyJob {
            payload: Payload::Pixels(pixels),
            item,
            lead,
            queued: Instant::now(),
            times,
        }
    }

    pub fn embedding(unit: Vec<f32>, item: Item) -> ReadyJob {
        ReadyJob::without_picture(Payload::Unit(unit), item)
    }

    pub fn known(known: Known, item: Item) -> ReadyJob {
        ReadyJob::without_picture(Payload::Known(known), item)
    }

    fn without_picture(payload: Payload, item: Item) -> ReadyJob {
        ReadyJob {
            payload,
            item,
            lead: None,
            queued: Instant::now(),
            times: StageTimes::default(),
        }
    }

    /// Answers the item, and all that wait for its feature, with this error.
    fn fail(self, error: EngineError) {
        if let Some(lead) = self.lead {
            lead.fail(&error);
        }
        self.item.ticket.answer(Err(error));
    }

    /// Answers the item with this error, which is its own; the job goes on for
    /// the first that waits for its feature, if one does.
    fn give_way(mut self, error: EngineError, counters: &Counters) -> Option<ReadyJob> {
        let successor = self.lead.as_mut().and_then(|lead| lead.successor(counters));
        self.item.ticket.answer(Err(error));
        successor.map(|item| ReadyJob { item, ..self })
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

fn batch_span(jobs: &[ReadyJob]) -> tracing::Span {
    let heads: HashSet<_> = jobs.iter().filter_map(|job| job.item.head()).collect();
    let origins = jobs.iter().map(|job| &job.item.origin);
    telemetry::batch_span(jobs.len(), heads.len(), origins)
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
                let side = spec.size as usize;
                let picture = vec![0; side * side * 3];
                let pictures = vec![picture.as_slice(); size];
                for run in 0..2 {
                    let started = Instant::now();
                    let result = guarded(|| Ok(encoder.encode_apart(&pictures, side)));
                    match result.and_then(|result| result) {
                        Ok(_) if run > 0 => {
                            let seconds = started.elapsed().as_secs_f64();
                            self.shared.cost.lock().warm(size, seconds);
                        }
                        Ok(_) => {}
                        Err(fault) if fault.fatal => self.shared.break_device(&fault),
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
    fn drop_lapsed(&self, jobs: Vec<ReadyJob>) -> Vec<ReadyJob> {
        let counters = &self.shared.counters;
        jobs.into_iter()
            .filter_map(|mut job| {
                loop {
                    let item = &job.item;
                    match lapse(item.deadline, &item.cancelled, "for a batch") {
                        None => return Some(job),
                        Some(error) => {
                            counters.dropped.fetch_add(1, Ordering::Relaxed);
                            job = job.give_way(error, counters)?;
                        }
                    }
                }
            })
            .collect()
    }

    /// Where the device is broken, says so to all; else returns them. What is
    /// run on a lost context fails, item by item and slowly.
    fn unless_broken(&self, jobs: Vec<ReadyJob>) -> Vec<ReadyJob> {
        if !self.shared.broken.load(Ordering::Relaxed) {
            return jobs;
        }
        for job in jobs {
            job.fail(EngineError::DeviceBroken);
        }
        Vec::new()
    }

    fn run_pictures(&self, jobs: Vec<ReadyJob>) {
        let jobs = self.answer_known(self.unless_broken(jobs));
        let mut jobs = self.drop_lapsed(jobs);
        let Some(mut batch) = self.in_time(&mut jobs) else {
            return;
        };
        let running = batch.len();
        self.shared.in_device.fetch_add(running, Ordering::Relaxed);
        // What this batch has no time for is whoever's is free first, and
        // goes with those that come in the meantime: kept here, it would run
        // in ever smaller batches.
        self.shared.ready.give_back(
            jobs.into_iter()
                .map(|job| (job.item.flow, job.item.priority, job)),
        );
        let started = Instant::now();
        for job in &mut batch {
            job.times.queue = started - job.queued;
        }
        self.encode_or_split(batch);
        self.shared.in_device.fetch_sub(running, Ordering::Relaxed);
    }

    /// Takes the next batch from jobs that are alive: all of them, or, where
    /// that would take longer than the most urgent has left, as many as it
    /// leaves time for, the urgent ones first. One that cannot be in time even
    /// alone is answered so, unless it is the only one: whoever runs nothing
    /// never learns that the machine has become faster.
    fn in_time(&self, jobs: &mut Vec<ReadyJob>) -> Option<Vec<ReadyJob>> {
        let cost = self.shared.cost.lock().clone();
        let fits = |n: usize, left: Duration| {
            let seconds = cost.predict(n).unwrap_or(0.0);
            seconds * super::MARGIN <= left.as_secs_f64()
        };
        jobs.sort_by_key(|job| (job.item.deadline.is_none(), job.item.deadline));
        loop {
            let count = jobs.len();
            let deadline = jobs.first()?.item.deadline;
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let size = match left {
                None => count,
                Some(left) => (1..=count).rev().find(|n| fits(*n, left)).unwrap_or(0),
            };
            if size > 0 || count == 1 {
                return Some(jobs.drain(..size.max(1)).collect());
            }
            let error = EngineError::DeadlineExceeded {
                stage: "for a batch",
            };
            self.shared.counters.dropped.fetch_add(1, Ordering::Relaxed);
            if let Some(successor) = jobs.remove(0).give_way(error, &self.shared.counters) {
                jobs.push(successor);
                jobs.sort_by_key(|job| (job.item.deadline.is_none(), job.item.deadline));
            }
        }
    }

    /// Hands jobs whose feature has come to be held (a bulk job's, where an
    /// interactive one of the same picture was faster) to the heads; returns
    /// the others.
    fn answer_known(&self, jobs: Vec<ReadyJob>) -> Vec<ReadyJob> {
        let Some(embeddings) = &self.shared.embeddings else {
            return jobs;
        };
        jobs.into_iter()
            .filter_map(|mut job| {
                let known = job
                    .lead
                    .as_ref()
                    .map(Lead::key)
                    .and_then(|key| embeddings.known(key));
                let Some(known) = known else {
                    return Some(job);
                };
                self.publish(job.lead.take(), known.clone());
                self.shared.answer_known(job.item, known);
                None
            })
            .collect()
    }

    /// Keeps a feature; those who wait for it go on to their heads.
    fn publish(&self, lead: Option<Lead>, known: Known) {
        for item in lead
            .into_iter()
            .flat_map(|lead| lead.publish(known.clone()))
        {
            self.shared.answer_known(item, known.clone());
        }
    }

    /// Encodes a batch; where that fails, halves it until the guilty item is
    /// alone. The others get their answers.
    fn encode_or_split(&self, mut jobs: Vec<ReadyJob>) {
        let _span = batch_span(&jobs).entered();
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
                self.shared.break_device(&fault);
                for job in jobs {
                    job.fail(EngineError::DeviceBroken);
                }
            }
            Err(fault) if jobs.len() == 1 => {
                for job in jobs {
                    job.fail(EngineError::Encoder {
                        detail: fault.detail.clone(),
                    });
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
                    let half = self.drop_lapsed(self.unless_broken(half));
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
        let pictures: Vec<&[u8]> = jobs
            .iter()
            .filter_map(|job| match &job.payload {
                Payload::Pixels(pixels) => Some(pixels.as_slice()),
                _ => None,
            })
            .collect();
        self.shared.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.shared
            .counters
            .encoded
            .fetch_add(jobs.len() as u64, Ordering::Relaxed);
        guarded(|| Ok(encoder.encode_apart(&pictures, spec.size as usize)))
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
                _ => job.fail(EngineError::NotFinite),
            }
        }
        self.publish_batch(&mut good, &features);
        heads::answer(good, &features, &self.shared);
    }

    /// Keeps the features of a batch that may be kept.
    fn publish_batch(&self, batch: &mut [Encoded], features: &Features) {
        let leads: Vec<(usize, Lead)> = batch
            .iter_mut()
            .filter_map(|encoded| Some((encoded.row, encoded.job.lead.take()?)))
            .collect();
        if leads.is_empty() {
            return;
        }
        match guarded(|| heads::to_shared(&features.unit)) {
            Ok(units) => {
                let width = features.unit.size().get(1).map_or(0, |d| *d as usize);
                for (row, lead) in leads {
                    // A copy: a row would keep its whole batch in memory.
                    let known = Known {
                        unit: Arc::from(&*Row::new(Arc::clone(&units), row, width)),
                        norm: features.norms.get(row).copied().unwrap_or(1.0),
                    };
                    self.publish(Some(lead), known);
                }
            }
            Err(fault) => {
                for (_, lead) in leads {
                    lead.fail(&EngineError::Encoder {
                        detail: fault.detail.clone(),
                    });
                }
            }
        }
    }

    fn run_embeddings(&self, jobs: Vec<ReadyJob>) {
        let jobs = self.unless_broken(jobs);
        let mut jobs = self.drop_lapsed(jobs);
        let started = Instant::now();
        let mut values = Vec::new();
        let mut norms = Vec::with_capacity(jobs.len());
        for job in &mut jobs {
            job.times.queue = started - job.queued;
            job.times.batch_size = 0;
            match &job.payload {
                Payload::Unit(unit) => {
                    values.extend_from_slice(unit);
                    norms.push(1.0);
                }
                Payload::Known(known) => {
                    values.extend_from_slice(&known.unit);
                    norms.push(known.norm);
                }
                Payload::Pixels(_) => {}
            }
        }
        if jobs.is_empty() {
            return;
        }
        let shape = [jobs.len() as i64, (values.len() / jobs.len()) as i64];
        match guarded(|| Tensor::f_from_slice(&values)?.f_reshape(shape)) {
            Ok(unit) => {
                let encoded = jobs
                    .into_iter()
                    .enumerate()
                    .map(|(row, job)| Encoded { job, row })
                    .collect();
                heads::answer(encoded, &Features { unit, norms }, &self.shared);
            }
            Err(fault) => {
                for job in jobs {
                    job.fail(EngineError::Head {
                        detail: fault.detail.clone(),
                    });
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
