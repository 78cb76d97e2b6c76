//! What is loaded before a server can serve, and the settings that fit the
//! machine.

use std::sync::Arc;

use super::{StartError, image_encoder};
use crate::{
    catalog::{Model, TextRoom},
    config::Config,
    telemetry,
};
use tip_adapter::best;
use tipserve_clip::{
    Bundle, GraphsChoice, ImageSpec, Precision, TextEncoder, Tokenizer, cuda, encoder::device_name,
};
use tipserve_engine::{Encoder, Engine, EngineSettings, ThreadPlan, TopKBackend};

/// What is loaded before a server can serve.
pub(super) struct Loaded {
    pub(super) engine: Engine,
    pub(super) model: Model,
    pub(super) text: Option<TextRoom>,
    /// Where heads and training are.
    pub(super) device: tch::Device,
    /// Most bytes of caches there.
    pub(super) resident_bytes: usize,
}

/// A bundle's encoders, those it has.
struct Encoders {
    image: Option<(Arc<dyn Encoder>, ImageSpec)>,
    text: Option<(Tokenizer, TextEncoder)>,
}

pub(super) fn load(config: &Config) -> Result<Loaded, StartError> {
    let bundle = Bundle::open(&config.bundle)?;
    let devices = config.device.open()?;
    let device = first(&devices);
    let precision = config.dtype.of(&bundle, device)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let graphs = config.cuda_graphs;
    let settings = EngineSettings {
        top_k_backend: top_k_backend(device),
        observer: Arc::new(telemetry::EngineMetrics),
        ..settings(config, &devices, cores)
    };
    let streams = settings.threads.workers.div_ceil(devices.len().max(1));
    let max_batch = settings.max_batch;
    let threads = settings.threads.intra_op;
    let Encoders { image, text } = encoders(
        &bundle,
        &devices,
        precision,
        (streams, threads),
        max_batch,
        graphs,
    )?;
    tracing::info!(
        bundle = bundle.name,
        width = bundle.width,
        fingerprint = bundle.fingerprint,
        device = devices_name(&devices),
        dtype = precision.name(),
        decoders = settings.threads.decoders,
        workers = settings.threads.workers,
        torch_threads = settings.threads.intra_op,
        max_batch = settings.max_batch,
        "loaded the bundle"
    );
    let model = Model {
        name: bundle.name.clone(),
        fingerprint: bundle.fingerprint.clone(),
        width: bundle.width,
        image: bundle.image.clone(),
        has_text: text.is_some(),
        logit_scale: bundle.logit_scale,
        logit_bias: bundle.logit_bias,
        statistics: bundle.statistics.clone(),
        templates: bundle.templates.clone(),
        device: devices_name(&devices),
        precision,
        text_precision: text.as_ref().map(|(_, encoder)| encoder.loaded().precision),
        int8: bundle.int8.as_ref().map(|int8| int8.agreement.clone()),
    };
    let engine = Engine::start(settings, image, config.limits.picture)?;
    engine.wait_until_warm();
    // After warming: what batches need is taken by then.
    let resident_bytes = resident_bytes(config, device);
    let text = text
        .map(|(tokenizer, encoder)| TextRoom::new(tokenizer, encoder, engine.clone()))
        .transpose()?;
    Ok(Loaded {
        engine,
        model,
        text,
        device,
        resident_bytes,
    })
}

/// The bundle's encoders, loaded side by side: reading, hashing and optimising
/// the two takes most of a start. Operators are fused and graphs recorded, if
/// at all, when both are there: nothing may run beside that.
///
/// The image encoder is on every device, with `streams` on each that is CUDA's,
/// for batches of `max_batch`; the text encoder on the first. A worker has
/// `threads` torch threads.
fn encoders(
    bundle: &Bundle,
    devices: &[tch::Device],
    precision: Precision,
    (streams, threads): (usize, usize),
    max_batch: usize,
    graphs: GraphsChoice,
) -> Result<Encoders, StartError> {
    let device = first(devices);
    let load_text = || -> Result<_, StartError> {
        let encoder = TextEncoder::load(bundle, device, precision)?;
        tracing::info!("{}", encoder.loaded());
        Ok((Tokenizer::load(bundle)?, encoder))
    };
    std::thread::scope(|scope| {
        let text = bundle.text.as_ref().map(|_| scope.spawn(load_text));
        let image = match &bundle.image {
            None => None,
            Some(spec) => {
                let encoder = image_encoder(bundle, devices, precision, streams, max_batch)?;
                Some((encoder, spec.clone()))
            }
        };
        let text = match text.map(std::thread::ScopedJoinHandle::join) {
            None => None,
            Some(Ok(loaded)) => Some(loaded?),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        };
        let image = image.map(|(mut encoder, spec)| {
            encoder.fuse(threads);
            encoder.record(graphs);
            (Arc::new(encoder) as Arc<dyn Encoder>, spec)
        });
        Ok(Encoders { image, text })
    })
}

pub(super) fn first(devices: &[tch::Device]) -> tch::Device {
    devices.first().copied().unwrap_or(tch::Device::Cpu)
}

/// The devices as GetServerInfo names them: "cpu", "cuda:0", "cuda:0,1".
fn devices_name(devices: &[tch::Device]) -> String {
    let mut name = device_name(first(devices));
    for device in devices.iter().skip(1) {
        if let tch::Device::Cuda(index) = device {
            name.push_str(&format!(",{index}"));
        }
    }
    name
}

/// The configuration's engine settings, completed by what suits the device and
/// the machine's cores.
pub fn settings(config: &Config, devices: &[tch::Device], cores: usize) -> EngineSettings {
    let (plan, max_batch) = match first(devices) {
        tch::Device::Cuda(_) => (
            ThreadPlan::for_cuda(cores, devices.len()),
            config
                .max_batch
                .unwrap_or(EngineSettings::MAX_BATCH_ON_CUDA),
        ),
        _ => (
            ThreadPlan::for_cpu(cores),
            config
                .max_batch
                .unwrap_or(EngineSettings::default().max_batch),
        ),
    };
    EngineSettings {
        max_batch,
        warm: match first(devices) {
            tch::Device::Cuda(_) => EngineSettings::warm_on_cuda(max_batch),
            _ => EngineSettings::warm_on_cpu(max_batch),
        },
        threads: config.threads.over(plan),
        ..config.engine.clone()
    }
}

/// Where the best classes are chosen: where the device decides, if it is found
/// to choose as the host does.
pub fn top_k_backend(device: tch::Device) -> TopKBackend {
    if !device.is_cuda() {
        return TopKBackend::Automatic;
    }
    match best::verify(device) {
        Ok(()) => TopKBackend::Automatic,
        Err(reason) => {
            tracing::warn!(
                reason,
                "the best classes are chosen on the host: the device chose others"
            );
            TopKBackend::Host
        }
    }
}

/// Most bytes of caches on a device: on the CPU as set for the host, on CUDA
/// as set for the device, or half of what the card has left.
fn resident_bytes(config: &Config, device: tch::Device) -> usize {
    if !device.is_cuda() {
        return config.resident_bytes;
    }
    if let Some(bytes) = config.device_resident_bytes {
        return bytes;
    }
    match cuda::memory(device) {
        Ok(memory) => usize::try_from(memory.free / 2).unwrap_or(usize::MAX),
        Err(error) => {
            tracing::warn!(error, "the card's memory is not known");
            config.resident_bytes
        }
    }
}
