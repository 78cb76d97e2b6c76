//! Batches of pictures: as many as are in time, encoded in one go or, if that
//! fails, in halves.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::Device;
use crate::{
    batch_plan::plan_batch,
    embeddings::{CachedEmbedding, Leader},
    encoder::{EncodeFault, Encoder, guarded},
    error::EngineError,
    heads,
    lone::Lone,
    stage::Stage,
    work_item::{Encoded, Features, Payload, ReadyJob},
};
use tch::Tensor;
use tip_adapter::answer::Row;
use tipserve_clip::Size;

impl Device {
    /// Runs a batch of the ready queue.
    pub(super) fn run_pictures(&self, jobs: Vec<ReadyJob>) {
        let jobs = self.answer_cached(self.unless_broken(jobs));
        let mut jobs = self.drop_lapsed(jobs);
        let Some(mut batch) = self.in_time(&mut jobs) else {
            return;
        };
        let running = batch.len();
        self.shared.in_device.fetch_add(running, Ordering::Relaxed);
        // What this batch has no time for goes to the worker that is free first,
        // with those that come in the meantime: kept here, it would run
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

    /// Takes the next batch ([`plan_batch`]) from jobs that are alive, the urgent ones
    /// first; what is lost is answered so.
    fn in_time(&self, jobs: &mut Vec<ReadyJob>) -> Option<Vec<ReadyJob>> {
        let cost = self.shared.cost.lock().clone();
        let overloaded = self.shared.is_overloaded();
        loop {
            jobs.sort_by_key(|job| (job.item.deadline.is_none(), job.item.deadline));
            let now = Instant::now();
            let deadlines: Vec<_> = jobs.iter().map(|job| job.deadline(now)).collect();
            let most = self.shared.settings.max_batch;
            let next = plan_batch(&deadlines, &cost, most, overloaded)?;
            let lost: Vec<_> = jobs.drain(..next.lost).collect();
            let batch = jobs.drain(..next.size).collect();
            let counters = &self.shared.counters;
            let mut successors = Vec::new();
            for job in lost {
                let error = EngineError::DeadlineExceeded {
                    stage: Stage::Batch,
                };
                counters.dropped.fetch_add(1, Ordering::Relaxed);
                successors.extend(job.hand_over(error, counters));
            }
            if successors.is_empty() {
                return Some(batch);
            }
            // Followers, which waited for the same picture's feature, may have
            // more time than the lost leader, or less.
            jobs.extend(batch);
            jobs.extend(successors);
        }
    }

    /// Hands jobs whose feature has been cached meanwhile (a bulk job's, if an
    /// interactive one of the same picture was faster) to the heads; returns
    /// the others.
    fn answer_cached(&self, jobs: Vec<ReadyJob>) -> Vec<ReadyJob> {
        let Some(embeddings) = &self.shared.shares.embeddings else {
            return jobs;
        };
        jobs.into_iter()
            .filter_map(|mut job| {
                let cached = job
                    .leader
                    .as_ref()
                    .map(Leader::key)
                    .and_then(|key| embeddings.cached(key));
                let Some(cached) = cached else {
                    return Some(job);
                };
                self.publish(job.leader.take(), cached.clone());
                self.shared.answer_cached(job.item, cached);
                None
            })
            .collect()
    }

    /// Keeps a feature; the jobs that wait for it go on to their heads.
    fn publish(&self, leader: Option<Leader>, cached: CachedEmbedding) {
        for item in leader
            .into_iter()
            .flat_map(|leader| leader.publish(cached.clone()))
        {
            self.shared.answer_cached(item, cached.clone());
        }
    }

    /// Encodes a batch; if that fails, halves it until the guilty item is
    /// alone. The others get their answers.
    fn encode_or_split(&self, mut jobs: Vec<ReadyJob>) {
        let _span = batch_span(&jobs).entered();
        let started = Instant::now();
        match self.encode(&jobs) {
            Ok((features, alone)) => {
                let took = started.elapsed();
                let count = jobs.len();
                let seconds = took.as_secs_f64();
                match alone {
                    None => self.shared.cost.lock().observe(count, seconds),
                    // Load is predicted for workers on their own threads.
                    Some(lone) => self.shared.cost.lock().follow(count, seconds * lone.times),
                }
                self.shared.settings.observer.batch_encoded(count, took);
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

    /// The features, and how they were computed if the batch ran alone.
    fn encode(&self, jobs: &[ReadyJob]) -> Result<(Features, Option<Lone>), EncodeFault> {
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
        let (raw, alone) = match self.encode_alone(encoder, &pictures, spec.size) {
            Some((raw, lone)) => (raw?, Some(lone)),
            None => {
                let raw = guarded(|| Ok(encoder.encode_apart(&pictures, spec.size)))??;
                (raw, None)
            }
        };
        let features = guarded(|| {
            let norms = raw.f_norm_scalaropt_dim(2.0, [1], true)?;
            let unit = raw.f_div(&norms)?;
            let norms = Vec::<f32>::try_from(norms.f_flatten(0, -1)?)?;
            Ok(Features { unit, norms })
        })?;
        Ok((features, alone))
    }

    /// Raw features by the team, if this batch runs alone and that is quicker.
    fn encode_alone(
        &self,
        encoder: &Arc<dyn Encoder>,
        pictures: &[&[u8]],
        size: Size,
    ) -> Option<(Result<Tensor, EncodeFault>, Lone)> {
        let (team, lone) = (self.shared.shares.team.as_ref()?, self.shared.lone.get()?);
        if !self.shared.is_alone() {
            return None;
        }
        let encoder = Arc::clone(encoder);
        let owned: Vec<Vec<u8>> = pictures.iter().map(|picture| picture.to_vec()).collect();
        let raw = team.run(lone.threads, move || {
            let pictures: Vec<&[u8]> = owned.iter().map(Vec::as_slice).collect();
            guarded(|| Ok(encoder.encode_apart(&pictures, size))).and_then(|raw| raw)
        })?;
        Some((raw, *lone))
    }

    /// Answers the items whose feature has no direction; heads get the rest.
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
        let leaders: Vec<(usize, bool, Leader)> = batch
            .iter_mut()
            .filter_map(|encoded| {
                let job = &mut encoded.job;
                Some((encoded.row, job.lacks_end_mark, job.leader.take()?))
            })
            .collect();
        if leaders.is_empty() {
            return;
        }
        match guarded(|| heads::to_shared(&features.unit)) {
            Ok(units) => {
                let width = features.unit.size().get(1).map_or(0, |d| *d as usize);
                for (row, lacks_end_mark, leader) in leaders {
                    // A copy: a row would keep its whole batch in memory.
                    let cached = CachedEmbedding {
                        unit: Arc::from(&*Row::new(Arc::clone(&units), row, width)),
                        norm: features.norms.get(row).copied().unwrap_or(1.0),
                        lacks_end_mark,
                    };
                    self.publish(Some(leader), cached);
                }
            }
            Err(fault) => {
                for (_, _, leader) in leaders {
                    leader.fail(&EngineError::Encoder {
                        detail: fault.detail.clone(),
                    });
                }
            }
        }
    }
}

/// The span of a batch. It serves items of many RPCs and is the child of none:
/// a trace of its own, with a link to the span of each RPC that it served, as
/// OpenTelemetry recommends for batches.
fn batch_span(jobs: &[ReadyJob]) -> tracing::Span {
    let caches: HashSet<_> = jobs.iter().filter_map(|job| job.item.head()).collect();
    let span = tracing::info_span!(
        target: "tipserve",
        parent: None,
        "batch",
        pictures = jobs.len() as i64,
        caches = caches.len() as i64
    );
    let mut linked = HashSet::new();
    for origin in jobs.iter().filter_map(|job| job.item.origin.id()) {
        if linked.insert(origin.clone()) {
            span.follows_from(origin);
        }
    }
    span
}
