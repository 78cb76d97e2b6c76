//! `tipserve-measure`: what `scripts/gpu-check` asks of this machine, without a
//! server around it.
//!
//! Each part prints one JSON document. Nothing here is judged; the script
//! knows the goals.

mod agreement;
mod best;
mod engine;
mod finetune;
mod head;
mod memory;
mod pictures;
mod profile;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use clap::{Args, Parser, Subcommand};
use serde_json::Value;
use tch::Device;

use tipserve::{
    config::{Config, Given},
    server::{self, PictureEncoder},
};
use tipserve_clip::{
    Bundle, DeviceChoice, DtypeChoice, GraphsChoice, Precision, cuda, encoder::device_name,
    graphs::Verdict,
};
use tipserve_engine::EngineSettings;

/// Measures parts of tipserve on this machine; each prints one JSON document.
#[derive(Debug, Parser)]
#[command(name = "tipserve-measure", version)]
struct MeasureArgs {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Name, number and memory of the devices.
    Device(Place),
    /// Writes a folder of random, smooth JPEG files.
    Pictures(pictures::Args),
    /// Features on the device against the CPU in float32.
    Agreement(agreement::Args),
    /// A head: time, and error against float64.
    Head(head::Args),
    /// Pictures a second through the engine, raw pixels in.
    Engine(engine::Args),
    /// Pictures a second through the decoders of all cores.
    Decode(engine::DecodeArgs),
    /// Fine-tuning on the device against the CPU.
    Finetune(finetune::Args),
    /// Fine-tuning at ImageNet-16's size, in seconds.
    FinetuneTime(finetune::TimeArgs),
    /// Out of memory, and growth.
    Memory(memory::Args),
}

/// The device to measure on.
#[derive(Clone, Debug, Args)]
struct Place {
    /// As `tipserve serve` takes it.
    #[arg(long, default_value = "auto")]
    device: String,
}

impl Place {
    fn open(&self) -> anyhow::Result<Vec<Device>> {
        Ok(self.device.parse::<DeviceChoice>()?.open()?)
    }
}

/// A bundle on some devices, as a server would load it.
#[derive(Clone, Debug, Args)]
struct Encoding {
    #[command(flatten)]
    place: Place,
    /// Folder of the bundle to load.
    #[arg(long)]
    bundle: PathBuf,
    /// As `tipserve serve` takes it.
    #[arg(long, default_value = "auto")]
    dtype: String,
    /// As `tipserve serve` takes it.
    #[arg(long)]
    max_batch: Option<usize>,
    /// As `tipserve serve` takes it.
    #[arg(long)]
    workers: Option<usize>,
    /// As `tipserve serve` takes it.
    #[arg(long, default_value = "off")]
    cuda_graphs: String,
}

struct Opened {
    bundle: Bundle,
    devices: Vec<Device>,
    precision: Precision,
    settings: EngineSettings,
    graphs: GraphsChoice,
}

impl Encoding {
    fn open(&self) -> anyhow::Result<Opened> {
        let bundle = Bundle::open(&self.bundle)?;
        let devices = self.place.open()?;
        let choice = self.dtype.parse::<DtypeChoice>()?;
        let precision = choice.of(&bundle, first(&devices))?;
        let config = Config::resolve(Given {
            bundle: Some(vec![self.bundle.clone()]),
            max_batch: self.max_batch,
            workers: self.workers,
            ..Given::default()
        })?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let settings = EngineSettings {
            top_k_backend: server::top_k_backend(first(&devices)),
            ..server::settings(&config, &devices, cores)
        };
        Ok(Opened {
            bundle,
            devices,
            precision,
            settings,
            graphs: self.cuda_graphs.parse()?,
        })
    }
}

impl Opened {
    fn lanes(&self) -> usize {
        self.settings.threads.workers.div_ceil(self.devices.len())
    }

    /// The bundle's image encoder, and which batch sizes CUDA graphs replay.
    fn image_encoder(&self, precision: Precision) -> anyhow::Result<(PictureEncoder, Value)> {
        let (streams, most) = (self.lanes(), self.settings.max_batch);
        let encoder = server::image_encoder(&self.bundle, &self.devices, precision, streams, most)?;
        let graphs = encoder.record(self.graphs).into_iter();
        let graphs = graphs.map(|(device, size, verdict)| {
            let (plain, replayed) = match verdict {
                Verdict::Replayed { plain, replayed } | Verdict::NoQuicker { plain, replayed } => {
                    (Some(plain), Some(replayed))
                }
                _ => (None, None),
            };
            serde_json::json!({
                "device": device_name(device),
                "size": size,
                "used": matches!(verdict, Verdict::Replayed { .. }),
                "plain_seconds": plain,
                "replayed_seconds": replayed,
                "verdict": verdict.to_string(),
            })
        });
        let graphs = graphs.collect();
        Ok((encoder, graphs))
    }
}

fn first(devices: &[Device]) -> Device {
    devices.first().copied().unwrap_or(Device::Cpu)
}

fn main() -> ExitCode {
    let args = MeasureArgs::parse();
    let result = match args.part {
        Part::Device(place) => device(&place),
        Part::Pictures(args) => pictures::run(&args),
        Part::Agreement(args) => agreement::run(&args),
        Part::Head(args) => head::run(&args),
        Part::Engine(args) => engine::run(&args),
        Part::Decode(args) => engine::decode(&args),
        Part::Finetune(args) => finetune::run(&args),
        Part::FinetuneTime(args) => finetune::time(&args),
        Part::Memory(args) => memory::run(&args),
    };
    match result {
        Ok(document) => {
            println!("{document}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn device(place: &Place) -> anyhow::Result<Value> {
    let devices = place.open()?;
    let memory = cuda::memory(first(&devices)).ok();
    Ok(serde_json::json!({
        "devices": devices.iter().map(|&device| device_name(device)).collect::<Vec<_>>(),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "memory_total": memory.map(|memory| memory.total),
        "memory_free": memory.map(|memory| memory.free),
    }))
}

/// Seconds that one call of `run` takes: the median over rounds of as many
/// calls as take `round` seconds together, the device waited for at the ends.
fn seconds(
    device: Device,
    rounds: usize,
    round: f64,
    mut run: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let mut timed = |calls: usize| -> anyhow::Result<f64> {
        cuda::synchronise(device);
        let started = Instant::now();
        for _ in 0..calls {
            run()?;
        }
        cuda::synchronise(device);
        Ok(started.elapsed().as_secs_f64() / calls as f64)
    };
    // The first calls choose kernels and take memory.
    timed(2)?;
    let once = timed(1)?.max(1e-7);
    let calls = ((round / once) as usize).clamp(1, 100_000);
    let mut all = Vec::with_capacity(rounds);
    for _ in 0..rounds.max(1) {
        all.push(timed(calls)?);
    }
    all.sort_by(f64::total_cmp);
    Ok(all.get(all.len() / 2).copied().unwrap_or(once))
}
