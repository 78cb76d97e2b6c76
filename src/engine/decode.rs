//! The decode pool: picture files to pixels, before the batch is formed.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    Crop, EngineError, FlowId, Priority, Shared, StageTimes, Ticket, Work,
    device::ReadyJob,
    job::{Source, lapse},
};
use crate::{
    clip::{self, ImageSpec, Picture, PictureError, PictureLimits},
    telemetry,
};

/// A picture waiting for a decoder.
pub(super) struct DecodeJob {
    pub source: Source,
    pub crop: Crop,
    pub work: Work,
    pub flow: FlowId,
    pub priority: Priority,
    pub deadline: Option<Instant>,
    pub ticket: Ticket,
    pub cancelled: Arc<AtomicBool>,
    pub arrived: Instant,
}

/// Starts one decoder.
pub(super) fn spawn(number: usize, shared: Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(format!("decode-{number}"))
        .spawn(move || {
            while let Some(job) = shared.decode.pop() {
                shared.in_device.fetch_add(1, Ordering::Relaxed);
                let ready = decode(job, &shared);
                shared.in_device.fetch_sub(1, Ordering::Relaxed);
                if let Some((flow, priority, job)) = ready {
                    shared.ready.push(flow, priority, job);
                }
            }
        })
}

/// The job made ready, or none where it has been answered.
fn decode(job: DecodeJob, shared: &Shared) -> Option<(FlowId, Priority, ReadyJob)> {
    let started = Instant::now();
    if let Some(error) = lapse(
        job.deadline,
        &job.cancelled,
        "for a decoder",
        Duration::ZERO,
    ) {
        shared.counters.dropped.fetch_add(1, Ordering::Relaxed);
        job.ticket.answer(Err(error));
        return None;
    }
    let Some(spec) = shared.spec.as_ref() else {
        job.ticket.answer(Err(EngineError::NoImageEncoder));
        return None;
    };
    // A decoder that panics on a hostile file costs that file, nothing else.
    let prepared = catch_unwind(AssertUnwindSafe(|| {
        prepare(&job.source, job.crop, spec, &shared.limits)
    }));
    match prepared {
        Ok(Ok(pixels)) => {
            shared.counters.decoded.fetch_add(1, Ordering::Relaxed);
            let times = StageTimes {
                decode_queue: started - job.arrived,
                decode: started.elapsed(),
                ..StageTimes::default()
            };
            telemetry::decoded(&times);
            let ready = ReadyJob::picture(
                pixels,
                job.work,
                job.deadline,
                job.ticket,
                job.cancelled,
                job.arrived,
                times,
            );
            Some((job.flow, job.priority, ready))
        }
        Ok(Err(error)) => {
            job.ticket.answer(Err(EngineError::Picture(error)));
            None
        }
        Err(_) => {
            job.ticket.answer(Err(EngineError::DecoderPanicked));
            None
        }
    }
}

/// The pixels [S, S, 3] that the encoder sees of a picture.
fn prepare(
    source: &Source,
    crop: Crop,
    spec: &ImageSpec,
    limits: &PictureLimits,
) -> Result<Vec<u8>, PictureError> {
    let picture = match source {
        Source::File(bytes) => clip::decode(bytes, limits)?,
        Source::Rgb {
            width,
            height,
            data,
        } => Picture::from_raw(*width, *height, data, limits)?,
    };
    match crop {
        Crop::Centre => Ok(clip::prepare(&picture, spec)),
        Crop::Random { seed } => Ok(clip::view(&picture, spec, &mut clip::view_rng(seed, 0, 0))),
    }
}
