//! What is loaded before a server can serve, and the settings that fit the
//! machine.

use std::{sync::Arc, time::Duration};

use super::{
    StartError,
    devices::first,
    folders::{BundleFolders, same_twice},
    loader::{BundleLoader, LoaderOptions},
};
use crate::{
    catalog::{Bundles, LoadedBundle, MAX_BUNDLES},
    config::Config,
    telemetry,
};
use tip_adapter::best;
use tipserve_clip::{cuda, tensor_memory};
use tipserve_engine::{EngineSettings, Machine, ThreadPlan, TopKBackend};

/// What is loaded before a server can serve.
pub(super) struct Loaded {
    pub(super) bundles: Arc<Bundles>,
    /// Where heads and training are.
    pub(super) device: tch::Device,
    /// Most bytes of caches there.
    pub(super) resident_bytes: usize,
}

/// Loads every bundle of the start, one after the other: each needs the machine
/// to itself for its measurements.
pub(super) async fn load(config: Config) -> Result<Loaded, StartError> {
    let resident = config.clone();
    let (loader, default, others) = tokio::task::spawn_blocking(move || load_all(&config))
        .await
        .map_err(|error| StartError::Internal(error.to_string()))??;
    let device = first(loader.devices());
    // After warming: what batches need is taken by then.
    let resident_bytes = resident_bytes(&resident, device);
    loader.serves();
    Ok(Loaded {
        bundles: Bundles::new(default, others, Box::new(loader)).await?,
        device,
        resident_bytes,
    })
}

type All = (BundleLoader, Arc<LoadedBundle>, Vec<Arc<LoadedBundle>>);

fn load_all(config: &Config) -> Result<All, StartError> {
    let paths = BundleFolders::expand(&config.bundles);
    // Before anything is loaded, which takes each of them seconds.
    if paths.len() > MAX_BUNDLES {
        return Err(StartError::TooManyBundles { count: paths.len() });
    }
    let folders = BundleFolders::new(&config.bundles, &config.bundle_folders);
    if let Some(namesakes) = folders.namesakes() {
        tracing::warn!("{namesakes}");
    }
    tensor_memory::install();
    let devices = config.device.open()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let settings = EngineSettings {
        top_k_backend: top_k_backend(first(&devices)),
        observer: Arc::new(telemetry::EngineMetrics),
        ..settings(config, &devices, cores)
    };
    let loader = BundleLoader::new(LoaderOptions {
        folders,
        machine: Machine::new(&settings),
        settings,
        devices,
        dtype: config.dtype,
        graphs: config.cuda_graphs,
        picture: config.limits.picture,
    });
    let mut loaded: Vec<Arc<LoadedBundle>> = Vec::new();
    for path in paths {
        let bundle = loader.open(&path)?;
        let fingerprint = &bundle.model.fingerprint;
        let mut before = loaded.iter();
        if let Some(same) = before.find(|other| other.model.fingerprint == *fingerprint) {
            let dir = path.display().to_string();
            return Err(same_twice(&bundle.model.name, &same.folder, &dir).into());
        }
        loaded.push(bundle);
    }
    let mut loaded = loaded.into_iter();
    match loaded.next() {
        Some(default) => Ok((loader, default, loaded.collect())),
        None => Err(StartError::Internal("no bundle is named".to_owned())),
    }
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
            config.max_batch.unwrap_or(EngineSettings::MAX_BATCH_ON_CPU),
        ),
    };
    let (warm, warm_patience) = match first(devices) {
        // Kernels are chosen by shape there, however long that takes.
        tch::Device::Cuda(_) => (EngineSettings::warm_on_cuda(max_batch), Duration::MAX),
        _ => (
            EngineSettings::warm_on_cpu(max_batch),
            EngineSettings::WARM_PATIENCE_ON_CPU,
        ),
    };
    EngineSettings {
        max_batch,
        warm,
        warm_patience,
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
