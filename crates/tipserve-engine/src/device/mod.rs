//! The device workers: encode a batch once, then one head per cache version.

mod embeddings;
mod pictures;

use std::{
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tch::Tensor;
use tipserve_clip::ImageSpec;

use crate::{
    encoder::{EncodeFault, Encoder, guarded},
    error::EngineError,
    job::lapse,
    lone::set_torch_threads,
    queue::Turn,
    shared::Shared,
    stage::Stage,
    work_item::ReadyJob,
};

/// A worker: takes batches off the queue, encodes them and computes their
/// heads.
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
                set_torch_threads(self.shared.settings.threads.intra_op);
                self.warm();
                let settings = &self.shared.settings;
                let most = || {
                    let worthwhile = self.shared.cost.lock().worthwhile(settings.max_batch);
                    // Small batches only if that costs no throughput: what
                    // waits longer than one batch should all go at once.
                    worthwhile.unwrap_or(settings.max_batch)
                };
                let (delay, patience) = (settings.max_queue_delay, settings.step_patience);
                while self.shared.ready.wait_for_turn(most, delay, patience) {
                    let _slot = self.shared.shares.workers.enter();
                    match self.shared.ready.take(most, patience) {
                        Some(Turn::Batch(jobs)) => self.run_pictures(jobs),
                        Some(Turn::Step(step)) => step.run(),
                        // Another worker was faster.
                        None => {}
                    }
                }
            })
    }

    /// Starts the worker that serves embeddings.
    pub fn spawn_heads(self) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name("heads".to_owned())
            .spawn(move || {
                set_torch_threads(self.shared.settings.threads.intra_op);
                let most = || self.shared.settings.max_head_batch;
                let heads = &self.shared.heads;
                while heads.wait_for_turn(most, Duration::ZERO, Duration::ZERO) {
                    let _slot = self.shared.shares.heads.enter();
                    if let Some(Turn::Batch(jobs)) = heads.take(most, Duration::ZERO) {
                        self.run_embeddings(jobs);
                    }
                }
            })
    }

    /// Runs the batch sizes to be warmed, twice each: the first calls at a size
    /// are slow, and the cost model learns from the second.
    fn warm(&self) {
        if let (Some(encoder), Some(spec)) = (&self.encoder, &self.shared.spec) {
            let settings = &self.shared.settings;
            let mut longest = Duration::ZERO;
            for (known, &size) in settings.warm.iter().enumerate() {
                // Two sizes show the line.
                if known >= 2 && longest > settings.warm_patience {
                    break;
                }
                for run in 0..2 {
                    match self.warm_once(encoder.as_ref(), spec, size) {
                        Ok(took) => {
                            self.shared.warm.0.lock().ran = true;
                            if run > 0 {
                                self.shared.cost.lock().warm(size, took.as_secs_f64());
                                longest = longest.max(took);
                            }
                        }
                        Err(fault) => {
                            if fault.fatal {
                                self.shared.break_device(&fault);
                            } else {
                                tracing::error!(size, fault.detail, "warming failed");
                            }
                            self.shared.warm.0.lock().fail(fault);
                        }
                    }
                }
            }
        }
        let (warm, changed) = &self.shared.warm;
        let quiet = {
            let mut warm = warm.lock();
            warm.workers += 1;
            // The others have nothing to do until the engine is ready.
            warm.workers == self.shared.settings.threads.workers && warm.failure().is_none()
        };
        if quiet {
            self.try_team();
        }
        warm.lock().ready += 1;
        changed.notify_all();
    }

    /// Finds out whether a picture that runs alone is encoded sooner by a team.
    fn try_team(&self) {
        let shared = &self.shared;
        let (Some(team), Some(spec), Some(encoder)) =
            (&shared.shares.team, &shared.spec, &self.encoder)
        else {
            return;
        };
        let (engine, encoder, size) = (Arc::clone(shared), Arc::clone(encoder), spec.size);
        let grey = gradient(size.rgb_bytes());
        let lone = team.trial(move || {
            // Other engines may be serving.
            let _slot = engine.shares.workers.enter();
            guarded(|| Ok(encoder.encode_apart(&[&grey], size)))?.map(|_| ())
        });
        if let Some(lone) = lone {
            tracing::info!(
                torch_threads = lone.threads,
                times_as_fast = lone.times,
                "a batch that runs alone has more threads"
            );
            let _ = shared.lone.set(lone);
        }
    }

    /// Runs a batch of black pictures; the time that it took.
    ///
    /// Features of which none is finite are a fault, unless those of grey
    /// gradients are: a black picture is zero throughout in some models, which
    /// then divide by its norm.
    fn warm_once(
        &self,
        encoder: &dyn Encoder,
        spec: &ImageSpec,
        size: usize,
    ) -> Result<Duration, EncodeFault> {
        let bytes = spec.size.rgb_bytes();
        let (black, took) = self.encode_alike(encoder, spec, &vec![0; bytes], size)?;
        if !any_finite(&black)? {
            let (features, _) = self.encode_alike(encoder, spec, &gradient(bytes), size)?;
            if !any_finite(&features)? {
                return Err(EncodeFault::new("its features are not finite numbers"));
            }
        }
        Ok(took)
    }

    /// Encodes the same prepared picture as a batch of a size.
    fn encode_alike(
        &self,
        encoder: &dyn Encoder,
        spec: &ImageSpec,
        picture: &[u8],
        size: usize,
    ) -> Result<(Tensor, Duration), EncodeFault> {
        let pictures = vec![picture; size];
        // Other engines may be serving.
        let _slot = self.shared.shares.workers.enter();
        let started = Instant::now();
        let features = guarded(|| Ok(encoder.encode_apart(&pictures, spec.size)))??;
        Ok((features, started.elapsed()))
    }

    /// Answers jobs that are late or cancelled; returns the others.
    fn drop_lapsed(&self, jobs: Vec<ReadyJob>) -> Vec<ReadyJob> {
        let counters = &self.shared.counters;
        jobs.into_iter()
            .filter_map(|mut job| {
                loop {
                    let item = &job.item;
                    match lapse(item.deadline, &item.cancelled, Stage::Batch) {
                        None => return Some(job),
                        Some(error) => {
                            counters.dropped.fetch_add(1, Ordering::Relaxed);
                            job = job.hand_over(error, counters)?;
                        }
                    }
                }
            })
            .collect()
    }

    /// Answers all jobs if the device is broken; otherwise returns them. On a
    /// lost context each would fail by itself, and slowly.
    fn unless_broken(&self, jobs: Vec<ReadyJob>) -> Vec<ReadyJob> {
        if !self.shared.broken.load(Ordering::Relaxed) {
            return jobs;
        }
        for job in jobs {
            job.fail(EngineError::DeviceBroken);
        }
        Vec::new()
    }
}

/// A grey gradient of so many bytes.
pub(super) fn gradient(bytes: usize) -> Vec<u8> {
    let grey = |place: usize| u8::try_from(place * 255 / bytes).unwrap_or(u8::MAX);
    (0..bytes).map(grey).collect()
}

/// Whether a row of features [B, D] is of finite numbers.
fn any_finite(features: &Tensor) -> Result<bool, EncodeFault> {
    guarded(|| {
        let features = features.f_to_device(tch::Device::Cpu)?;
        let rows = features.f_isfinite()?.f_all_dim(1, false)?;
        i64::try_from(rows.f_any()?)
    })
    .map(|any| any != 0)
}
