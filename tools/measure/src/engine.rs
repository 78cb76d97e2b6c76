//! The engine without a server, and the decoders without an engine.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Encoding, Opened, first, pictures, profile};
use tipserve_clip::{DecodeOptions, ImageSpec, PictureLimits};
use tipserve_engine::{
    Content, Crop, Engine, EngineError, FlowId, Job, JobOutput, Priority, Source, Ticket, Work,
};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    encoding: Encoding,
    /// Seconds to measure for, after one of warming up.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Writes a profile of a further moment to this file.
    #[arg(long)]
    profile: Option<PathBuf>,
}

#[derive(Clone, Debug, clap::Args)]
pub struct DecodeArgs {
    /// Folder of the bundle, for the size of its pictures.
    #[arg(long)]
    bundle: PathBuf,
    /// Folder of JPEG files to decode, over and over.
    #[arg(long)]
    pictures: PathBuf,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// As `tipserve serve` takes it.
    #[arg(long, default_value_t = 0.0)]
    jpeg_shrink: f64,
}

/// An engine as a server starts it, and which batch sizes CUDA graphs replay.
pub fn start(opened: &Opened) -> anyhow::Result<(Engine, ImageSpec, Value)> {
    let spec = opened
        .bundle
        .image
        .clone()
        .context("the bundle has no image encoder")?;
    let (encoder, graphs) = opened.image_encoder(opened.precision)?;
    let engine = Engine::start(
        opened.settings.clone(),
        Some((Arc::new(encoder), spec.clone())),
        PictureLimits::default(),
    )?;
    if let Err(fault) = engine.wait_until_warm() {
        anyhow::bail!("the encoder fails on every picture: {}", fault.detail);
    }
    Ok((engine, spec, graphs))
}

/// A job that embeds raw pixels.
pub fn raw_job(
    side: u32,
    data: &Bytes,
    flow: FlowId,
    reply: impl FnOnce(Result<JobOutput, EngineError>) + Send + 'static,
) -> Job {
    Job {
        content: Content::Picture {
            source: Source::Rgb {
                width: side,
                height: side,
                data: data.clone(),
            },
            crop: Crop::Centre,
        },
        work: Work::Embed,
        flow,
        priority: Priority::Interactive,
        deadline: None,
        ticket: Ticket::new(reply),
        cancelled: Arc::new(AtomicBool::new(false)),
    }
}

pub fn run(args: &Args) -> anyhow::Result<Value> {
    let opened = args.encoding.open()?;
    let (engine, spec, graphs) = start(&opened)?;
    // What the bundle's preprocessing leaves as it is.
    let side = spec.resize_to.width;
    let inputs: Vec<Bytes> = pictures::prepared(64, side as usize, 1)
        .into_iter()
        .map(Bytes::from)
        .collect();
    let settings = &opened.settings;
    let outstanding = settings.max_batch * settings.threads.workers * 3;
    let feeders = settings.threads.decoders.clamp(1, 4);
    let (answered, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let stop = Arc::new(AtomicBool::new(false));

    let (rate, batches) = std::thread::scope(|scope| {
        for feeder in 0..feeders {
            let (engine, inputs) = (&engine, &inputs);
            let (answered, failed, stop) = (&answered, &failed, &stop);
            scope.spawn(move || {
                let (done, finished) = crossbeam_channel::unbounded();
                let flow = FlowId::next();
                let mut under_way = 0;
                for input in inputs.iter().cycle().skip(feeder) {
                    while under_way >= outstanding.div_ceil(feeders)
                        || (stop.load(Ordering::Relaxed) && under_way > 0)
                    {
                        match finished.recv() {
                            Ok(true) => answered.fetch_add(1, Ordering::Relaxed),
                            _ => failed.fetch_add(1, Ordering::Relaxed),
                        };
                        under_way -= 1;
                    }
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let done = done.clone();
                    engine.submit(raw_job(side, input, flow, move |result| {
                        // The feeder outlives its items.
                        let _ = done.send(result.is_ok());
                    }));
                    under_way += 1;
                }
            });
        }
        std::thread::sleep(Duration::from_secs_f64(args.seconds.min(1.0)));
        let before = (
            answered.load(Ordering::Relaxed),
            engine.counters().batches.load(Ordering::Relaxed),
            engine.counters().encoded.load(Ordering::Relaxed),
        );
        let started = Instant::now();
        std::thread::sleep(Duration::from_secs_f64(args.seconds));
        let count = answered.load(Ordering::Relaxed) - before.0;
        let rate = count as f64 / started.elapsed().as_secs_f64();
        let batches = engine.counters().batches.load(Ordering::Relaxed) - before.1;
        let encoded = engine.counters().encoded.load(Ordering::Relaxed) - before.2;
        let profiled = args.profile.as_ref().map_or(Ok(()), |file| {
            profile::recorded(first(&opened.devices), file, || {
                std::thread::sleep(Duration::from_secs_f64(args.seconds.min(0.2)));
                Ok(())
            })
        });
        stop.store(true, Ordering::Relaxed);
        profiled.map(|()| (rate, encoded as f64 / batches.max(1) as f64))
    })?;
    engine.shut_down();
    Ok(json!({
        "pictures_per_second": rate,
        "failed": failed.load(Ordering::Relaxed),
        "mean_batch": batches,
        "max_batch": settings.max_batch,
        "workers": settings.threads.workers,
        "decoders": settings.threads.decoders,
        "dtype": opened.precision.name(),
        "cuda_graphs": graphs,
    }))
}

pub fn decode(args: &DecodeArgs) -> anyhow::Result<Value> {
    let bundle = tipserve_clip::Bundle::open(&args.bundle)?;
    let spec = bundle.image.context("the bundle has no image encoder")?;
    let limits = PictureLimits::default();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&args.pictures)? {
        files.push(std::fs::read(entry?.path())?);
    }
    anyhow::ensure!(!files.is_empty(), "there are no pictures");
    for file in &files {
        tipserve_clip::decode(file, &limits)?;
    }
    let options = DecodeOptions {
        shortest_side: (args.jpeg_shrink > 0.0)
            .then(|| (args.jpeg_shrink * f64::from(spec.longest_resize())).ceil() as u32),
        ..DecodeOptions::default()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let time = Duration::from_secs_f64(args.seconds);
    let rate: f64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores)
            .map(|first| {
                let (files, spec) = (&files, &spec);
                scope.spawn(move || {
                    let started = Instant::now();
                    let mut count = 0_u64;
                    for file in files.iter().cycle().skip(first) {
                        if let Ok(picture) = tipserve_clip::decode_with(file, &limits, &options) {
                            std::hint::black_box(tipserve_clip::prepare(&picture, spec));
                            count += 1;
                        }
                        if started.elapsed() >= time {
                            break;
                        }
                    }
                    count as f64 / started.elapsed().as_secs_f64()
                })
            })
            .collect();
        threads.into_iter().filter_map(|it| it.join().ok()).sum()
    });
    Ok(json!({"pictures_per_second": rate, "cores": cores}))
}
