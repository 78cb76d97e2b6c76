//! `cargo bench -p tipserve-clip --bench engine -- --bundle DIR --pictures DIR`: what the
//! machine itself can do, without a server: pictures a second through the
//! encoder, in every layout of threads and at several batch sizes, and the
//! processor time of decoding one. Uses the server's own loader, dtype choice
//! and decoder. The last line of its output is JSON; `run.py` reads it.

// A measurement stops where something is not as it should be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use serde::Serialize;
use tch::{Kind, Tensor};
use tipserve_clip::{
    Bundle, DeviceChoice, DtypeChoice, ImageEncoder, PictureLimits, tensor_memory,
};

#[derive(Parser)]
struct Args {
    /// Folder of the bundle.
    #[arg(long)]
    bundle: PathBuf,
    /// Folder of pictures to decode.
    #[arg(long)]
    pictures: PathBuf,
    /// "auto", "float32", "bfloat16".
    #[arg(long, default_value = "auto")]
    dtype: String,
    /// Seconds that each figure is measured for.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Batch sizes.
    #[arg(long, value_delimiter = ',', default_value = "1,4,8,16,32")]
    batches: Vec<usize>,
    /// Passed by `cargo bench`, and ignored.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One way to share out the cores, at one batch size.
#[derive(Serialize)]
struct Layout {
    workers: usize,
    threads: usize,
    batch: usize,
    pictures_per_second: f64,
    batch_seconds: f64,
}

#[derive(Serialize)]
struct Ceiling {
    cores: usize,
    dtype: String,
    decode_core_seconds: f64,
    /// libjpeg-turbo alone, of the same files: no check, no resizing.
    turbojpeg_core_seconds: f64,
    /// A picture through the encoder on one thread, nothing beside it.
    bare_forward_seconds: f64,
    layouts: Vec<Layout>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    // As in the server: it decides what a large batch costs.
    tensor_memory::install();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let bundle = Bundle::open(&args.bundle)?;
    let device = "cpu".parse::<DeviceChoice>()?.open()?[0];
    let precision = args.dtype.parse::<DtypeChoice>()?.of(&bundle, device)?;
    let mut encoder = ImageEncoder::load(&bundle, device, precision)?;
    // As the server does.
    let fused = encoder.fuse(1);
    eprintln!("fused image encoder {fused}");
    let encoder = Arc::new(encoder);
    let time = Duration::try_from_secs_f64(args.seconds)?;

    let decode_core_seconds = decoding(&args.pictures, &encoder, cores, time)?;
    let turbojpeg_core_seconds = turbojpeg_alone(&args.pictures, cores, time)?;
    let bare_forward_seconds = encoding(&encoder, 1, 1, 1, time)?.batch_seconds;
    let mut layouts = Vec::new();
    // Interleaved, so that a machine that drifts does not favour one.
    for &batch in &args.batches {
        for threads in (1..=cores).filter(|threads| cores.is_multiple_of(*threads)) {
            layouts.push(encoding(&encoder, cores / threads, threads, batch, time)?);
        }
    }
    let ceiling = Ceiling {
        cores,
        dtype: precision.name().to_owned(),
        decode_core_seconds,
        turbojpeg_core_seconds,
        bare_forward_seconds,
        layouts,
    };
    println!("{}", serde_json::to_string(&ceiling)?);
    Ok(())
}

/// Seconds of one core for a picture: check, decode, resize, crop.
fn decoding(folder: &Path, encoder: &ImageEncoder, cores: usize, time: Duration) -> Result<f64> {
    let (spec, limits) = (encoder.spec(), PictureLimits::default());
    let files = files(folder)?;
    for file in &files {
        tipserve_clip::decode(file, &limits)?;
    }
    Ok(core_seconds(&files, cores, time, &|file| {
        if let Ok(picture) = tipserve_clip::decode(file, &limits) {
            std::hint::black_box(tipserve_clip::prepare(&picture, spec));
        }
    }))
}

/// Seconds of one core for a JPEG by libjpeg-turbo alone.
fn turbojpeg_alone(folder: &Path, cores: usize, time: Duration) -> Result<f64> {
    let files = files(folder)?;
    for file in &files {
        turbojpeg::decompress(file, turbojpeg::PixelFormat::RGB)?;
    }
    Ok(core_seconds(&files, cores, time, &|file| {
        drop(std::hint::black_box(turbojpeg::decompress(
            file,
            turbojpeg::PixelFormat::RGB,
        )));
    }))
}

/// The bytes of every file in a folder.
fn files(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        files.push(std::fs::read(entry?.path())?);
    }
    if files.is_empty() {
        bail!("{} has no files", folder.display());
    }
    Ok(files)
}

/// Seconds of one core that `work` takes for a file, on all cores at once, as a
/// busy server does it.
fn core_seconds(
    files: &[Vec<u8>],
    cores: usize,
    time: Duration,
    work: &(dyn Fn(&[u8]) + Sync),
) -> f64 {
    let busy: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores)
            .map(|first| {
                scope.spawn(move || {
                    let started = Instant::now();
                    let mut count = 0_usize;
                    for file in files.iter().cycle().skip(first) {
                        work(file);
                        count += 1;
                        if started.elapsed() >= time {
                            break;
                        }
                    }
                    started.elapsed().as_secs_f64() / count as f64
                })
            })
            .collect();
        threads
            .into_iter()
            .filter_map(|it| it.join().ok())
            .collect()
    });
    busy.iter().sum::<f64>() / busy.len() as f64
}

/// Workers that share the weights, each with its own torch threads, as
/// `engine::device` runs them.
fn encoding(
    encoder: &Arc<ImageEncoder>,
    workers: usize,
    threads: usize,
    batch: usize,
    time: Duration,
) -> Result<Layout> {
    let start = Barrier::new(workers);
    let rates: Vec<Result<f64>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| {
                    tch::set_num_threads(i32::try_from(threads)?);
                    let shape = encoder.spec().size.batch_shape(batch);
                    let pixels = Tensor::f_randint(256, shape, (Kind::Uint8, tch::Device::Cpu))?;
                    for _ in 0..2 {
                        drop(encoder.encode(&pixels)?);
                    }
                    start.wait();
                    let started = Instant::now();
                    let mut own = 0_u64;
                    while started.elapsed() < time {
                        drop(encoder.encode(&pixels)?);
                        own += 1;
                    }
                    Ok((own as usize * batch) as f64 / started.elapsed().as_secs_f64())
                })
            })
            .collect();
        handles
            .into_iter()
            .map(|it| it.join().unwrap_or_else(|_| bail!("a worker panicked")))
            .collect()
    });
    let rate = rates.into_iter().sum::<Result<f64>>()?;
    Ok(Layout {
        workers,
        threads,
        batch,
        pictures_per_second: rate,
        batch_seconds: (batch * workers) as f64 / rate,
    })
}
