//! Loading one bundle: its files checked, its encoders loaded and tuned to the
//! machine, its engine warm.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::{
    StartError,
    devices::{devices_name, first},
    folders::{BundleFolders, NotFound, folder_name},
    image_encoder,
};
use crate::catalog::{BundleFolder, BundleSource, CatalogError, LoadedBundle, Model, TextEmbedder};
use tipserve_clip::{
    Bundle, BundleError, DtypeChoice, EncodeError, GraphsChoice, ImageSpec, PictureLimits,
    Precision, TextEncoder, Tokenizer,
};
use tipserve_engine::{Encoder, Engine, EngineSettings, Machine};

/// The sources of bundles, and the settings that run them.
pub(super) struct LoaderOptions {
    /// Where bundles are loaded from.
    pub folders: BundleFolders,
    /// The resources that all engines share.
    pub machine: Machine,
    /// The settings of each engine.
    pub settings: EngineSettings,
    /// The devices that encoders run on; heads run on the first.
    pub devices: Vec<tch::Device>,
    /// Number format of the encoders.
    pub dtype: DtypeChoice,
    /// Whether CUDA graphs are recorded.
    pub graphs: GraphsChoice,
    /// Limits on the pictures that engines decode.
    pub picture: PictureLimits,
}

/// Loads bundles from the folders, on the devices.
pub(super) struct BundleLoader {
    options: LoaderOptions,
    /// Whether others are served while one is loaded.
    serving: AtomicBool,
}

/// A bundle's encoders, those it has.
struct Encoders {
    image: Option<(Arc<dyn Encoder>, ImageSpec)>,
    text: Option<(Tokenizer, TextEncoder)>,
}

impl BundleLoader {
    pub(super) fn new(options: LoaderOptions) -> BundleLoader {
        BundleLoader {
            options,
            serving: AtomicBool::new(false),
        }
    }

    /// From now on loading must not disturb serving.
    pub(super) fn serves(&self) {
        self.serving.store(true, Ordering::Relaxed);
    }

    pub(super) fn devices(&self) -> &[tch::Device] {
        &self.options.devices
    }

    /// Loads and warms the bundle in a folder. Blocks.
    pub(super) fn open(&self, folder: &Path) -> Result<Arc<LoadedBundle>, StartError> {
        let started = Instant::now();
        let LoaderOptions {
            machine,
            settings,
            devices,
            ..
        } = &self.options;
        let mut bundle = Bundle::read(folder)?;
        let precision = self.options.dtype.of(&bundle, first(devices))?;
        let Encoders { image, text } = self.encoders(&bundle, precision)?;
        bundle.read_statistics()?;
        tracing::info!(
            bundle = bundle.name,
            width = bundle.width,
            fingerprint = bundle.fingerprint,
            device = devices_name(devices),
            dtype = precision.name(),
            decoders = settings.threads.decoders,
            workers = settings.threads.workers,
            torch_threads = settings.threads.intra_op,
            max_batch = settings.max_batch,
            "loaded the bundle"
        );
        let text_precision = text.as_ref().map(|(_, encoder)| encoder.loaded().precision);
        let engine = Engine::start_on(machine, settings.clone(), image, self.options.picture)?;
        if let Err(fault) = engine.wait_until_warm() {
            engine.shut_down();
            return Err(StartError::Warming {
                bundle: bundle.name,
                dir: folder.to_owned(),
                detail: fault.detail,
            });
        }
        let room = text.map(|(tokenizer, encoder)| {
            TextEmbedder::new(tokenizer, encoder, engine.clone())
                .inspect_err(|_| engine.shut_down())
        });
        Ok(LoadedBundle::new(
            Model {
                name: bundle.name,
                fingerprint: bundle.fingerprint,
                width: bundle.width,
                image: bundle.image,
                has_text: text_precision.is_some(),
                logit_scale: bundle.logit_scale,
                logit_bias: bundle.logit_bias,
                statistics: bundle.statistics,
                templates: bundle.templates,
                device: devices_name(devices),
                precision,
                text_precision,
                int8: bundle.int8.map(|int8| int8.agreement),
            },
            engine.clone(),
            room.transpose()?,
            folder_name(folder),
            started.elapsed(),
        ))
    }

    /// The bundle's encoders, loaded in parallel to the check of its files:
    /// reading, hashing and optimising take most of a start, and both share
    /// what they read from the disk. Fusing operators and recording graphs, if
    /// enabled, comes after loading, since nothing else may run then.
    ///
    /// The image encoder is on every device; the text encoder on the first.
    fn encoders(&self, bundle: &Bundle, precision: Precision) -> Result<Encoders, StartError> {
        let LoaderOptions {
            settings,
            devices,
            dtype,
            ..
        } = &self.options;
        let streams = settings.threads.workers.div_ceil(devices.len().max(1));
        let quiet = || {
            if self.serving.load(Ordering::Relaxed) {
                tch::set_num_threads(i32::try_from(settings.threads.intra_op).unwrap_or(1));
            }
        };
        let load_text = || -> Result<_, StartError> {
            quiet();
            let precision = dtype.of_text(bundle, first(devices), precision);
            let encoder = TextEncoder::load(bundle, first(devices), precision)?;
            tracing::info!("{}", encoder.loaded());
            Ok((Tokenizer::load(bundle)?, encoder))
        };
        let load_image = || -> Result<_, StartError> {
            quiet();
            Ok(match &bundle.image {
                None => None,
                Some(spec) => {
                    let most = settings.max_batch;
                    let encoder = image_encoder(bundle, devices, precision, streams, most)?;
                    Some((encoder, spec.clone()))
                }
            })
        };
        let (image, text) = std::thread::scope(|scope| {
            let checked = scope.spawn(|| bundle.verify());
            let text = bundle.text.as_ref().map(|_| scope.spawn(load_text));
            let image = scope.spawn(load_image);
            // A changed file is the real reason, whatever error it caused
            // elsewhere.
            joined(checked)?;
            let text = text.map(joined).transpose()?;
            Ok::<_, StartError>((joined(image)?, text))
        })?;
        let image = image.map(|(mut encoder, spec)| {
            let threads = settings.threads.intra_op;
            if self.serving.load(Ordering::Relaxed) {
                // Each run as if it were a batch of an engine.
                let turns = self.options.machine.turns();
                encoder.fuse(threads, &|| turns.take());
            } else {
                encoder.fuse(threads, &|| ());
                encoder.record(self.options.graphs);
            }
            (Arc::new(encoder) as Arc<dyn Encoder>, spec)
        });
        Ok(Encoders { image, text })
    }
}

/// A thread's result; its panic is propagated.
fn joined<T, E: Into<StartError>>(
    thread: std::thread::ScopedJoinHandle<'_, Result<T, E>>,
) -> Result<T, StartError> {
    match thread.join() {
        Ok(given) => given.map_err(Into::into),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

impl BundleSource for BundleLoader {
    fn list(&self) -> Vec<BundleFolder> {
        let folders = self.options.folders.list();
        let read = folders.iter().filter_map(|path| {
            let found = described(path);
            // A bundle that is still being copied, or has another format.
            found
                .inspect_err(|error| tracing::debug!(%error, "not listed"))
                .ok()
        });
        read.collect()
    }

    fn find(&self, folder: &str) -> Result<BundleFolder, CatalogError> {
        let path = self.path(folder)?;
        described(&path).map_err(|error| unusable(folder, &error.into()))
    }

    fn load(&self, folder: &str) -> Result<Arc<LoadedBundle>, CatalogError> {
        let path = self.path(folder)?;
        self.open(&path).map_err(|error| unusable(folder, &error))
    }
}

impl BundleLoader {
    fn path(&self, folder: &str) -> Result<std::path::PathBuf, CatalogError> {
        let found = self.options.folders.find(folder);
        found.map_err(|NotFound { problem, known }| CatalogError::UnknownBundle {
            given: folder.to_owned(),
            problem,
            known,
        })
    }
}

fn described(path: &Path) -> Result<BundleFolder, BundleError> {
    let bundle = Bundle::read(path)?;
    Ok(BundleFolder {
        folder: folder_name(path),
        name: bundle.name,
        fingerprint: bundle.fingerprint,
    })
}

fn unusable(folder: &str, error: &StartError) -> CatalogError {
    CatalogError::UnusableBundle {
        folder: folder.to_owned(),
        reason: error.to_string(),
        out_of_memory: match error {
            StartError::Encoder(EncodeError::Unloadable { reason, .. }) => is_out_of_memory(reason),
            StartError::Encoder(error) => error.is_out_of_memory(),
            StartError::Warming { detail, .. } => is_out_of_memory(detail),
            _ => false,
        },
    }
}

/// As torch's allocators say it, on CUDA and on the host.
fn is_out_of_memory(reason: &str) -> bool {
    reason.contains("out of memory") || reason.contains("can't allocate memory")
}
