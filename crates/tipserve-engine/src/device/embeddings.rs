//! Batches of embeddings: no encoder, one head per cache version.

use std::time::Instant;

use tch::Tensor;

use super::Device;
use crate::{
    encoder::guarded,
    error::EngineError,
    heads,
    work_item::{Encoded, Features, Payload, ReadyJob},
};

impl Device {
    /// Runs a batch of the head queue.
    pub(super) fn run_embeddings(&self, jobs: Vec<ReadyJob>) {
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
                Payload::Cached(cached) => {
                    values.extend_from_slice(&cached.unit);
                    norms.push(cached.norm);
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
