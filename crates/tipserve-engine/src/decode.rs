//! The decode pool: picture files to pixels, before the batch is formed.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Instant,
};

use crate::{
    embeddings::{Leader, Role},
    error::EngineError,
    job::{Crop, FlowId, Item, Priority, Source, lapse},
    shared::Shared,
    stage::{Stage, StageTimes},
    work_item::{DecodeJob, Prepared, ReadyJob},
};
use tipserve_clip as clip;
use tipserve_clip::{DecodeOptions, ImageSpec, Picture, PictureError, PictureLimits};

/// Starts a thread that decodes pictures until the engine shuts down.
pub(super) fn spawn(number: usize, shared: Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(format!("decode-{number}"))
        .spawn(move || {
            while shared.decode.wait() {
                let slot = shared.shares.decoders.enter();
                let Some(job) = shared.decode.pop() else {
                    continue;
                };
                shared.in_device.fetch_add(1, Ordering::Relaxed);
                let ready = decode(job, &shared);
                shared.in_device.fetch_sub(1, Ordering::Relaxed);
                // Released while the ready queue is full: other engines' queues
                // may not be.
                drop(slot);
                if let Some((flow, priority, job)) = ready {
                    shared.ready.push(flow, priority, job);
                }
            }
        })
}

/// The job made ready, or none if it has been answered or will be by
/// others.
fn decode(job: DecodeJob, shared: &Shared) -> Option<(FlowId, Priority, ReadyJob)> {
    let started = Instant::now();
    let DecodeJob {
        source,
        crop,
        key,
        item,
    } = job;
    if let Some(error) = lapse(item.deadline, &item.cancelled, Stage::Decode) {
        shared.counters.dropped.fetch_add(1, Ordering::Relaxed);
        item.ticket.answer(Err(error));
        return None;
    }
    let Some(spec) = shared.spec.as_ref() else {
        item.ticket.answer(Err(EngineError::NoImageEncoder));
        return None;
    };
    let (item, leader) = match (&shared.shares.embeddings, key) {
        (Some(embeddings), Some(key)) => match embeddings.join(key, item, &shared.counters) {
            Role::Cached(item, cached) => {
                shared.answer_cached(item, cached);
                return None;
            }
            Role::Follower => return None,
            Role::Leader(item, leader) => (item, Some(leader)),
        },
        _ => (item, None),
    };
    // A decoder that panics on a hostile file costs that file, nothing else.
    let prepared = catch_unwind(AssertUnwindSafe(|| {
        prepare(
            &source,
            crop,
            spec,
            &shared.limits,
            shared.settings.jpeg_shrink,
        )
    }));
    match prepared {
        Ok(Ok(prepared)) => {
            shared.counters.decoded.fetch_add(1, Ordering::Relaxed);
            let times = StageTimes {
                decode_queue: started - item.arrived,
                decode: started.elapsed(),
                ..StageTimes::default()
            };
            shared.settings.observer.decoded(&times);
            let (flow, priority) = (item.flow, item.priority);
            Some((
                flow,
                priority,
                ReadyJob::picture(prepared, item, leader, times),
            ))
        }
        Ok(Err(error)) => {
            fail(item, leader, EngineError::Picture(error));
            None
        }
        Err(_) => {
            fail(item, leader, EngineError::DecoderPanicked);
            None
        }
    }
}

fn fail(item: Item, leader: Option<Leader>, error: EngineError) {
    if let Some(leader) = leader {
        leader.fail(&error);
    }
    item.ticket.answer(Err(error));
}

/// The pixels [H, W, 3] that the encoder sees of a picture.
fn prepare(
    source: &Source,
    crop: Crop,
    spec: &ImageSpec,
    limits: &PictureLimits,
    shrink: f64,
) -> Result<Prepared, PictureError> {
    // Random crops need the full resolution, and only caches are made from
    // them.
    let side = match crop {
        Crop::Centre if shrink > 0.0 => {
            Some((shrink * f64::from(spec.longest_resize())).ceil() as u32)
        }
        _ => None,
    };
    let picture = match source {
        Source::File {
            bytes,
            exif_orientation,
        } => {
            let options = DecodeOptions {
                exif_orientation: *exif_orientation,
                shortest_side: side,
            };
            clip::decode_with(bytes, limits, &options)?
        }
        Source::Rgb {
            width,
            height,
            data,
        } => Picture::from_raw(*width, *height, data, limits)?,
    };
    let pixels = match crop {
        Crop::Centre => clip::prepare(&picture, spec),
        Crop::Random { seed } => clip::view(&picture, spec, &mut clip::view_rng(seed, 0, 0)),
    };
    Ok(Prepared {
        pixels,
        lacks_end_mark: picture.lacks_end_mark(),
    })
}
