//! The image and text encoders: TorchScript, run through tch.

// Tensors, which tch does not call Sync.
#![allow(unsafe_code)]

use std::{
    fmt,
    path::PathBuf,
    sync::Once,
    time::{Duration, Instant},
};

use tch::{Device, Kind, TchError, Tensor};

pub use super::encode_error::EncodeError;
use super::{
    bundle::Bundle,
    device::fastest_kind,
    fused::{self, Fusing, least_cosine_of},
    image_spec::ImageSpec,
    module::Module,
    precision::Precision,
};

/// What was loaded, for the log.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// `image` or `text`.
    pub encoder: &'static str,
    /// The TorchScript archive that was read.
    pub path: PathBuf,
    /// Size of the archive, bytes.
    pub file_bytes: u64,
    /// Number of float parameters in the archive; 0 where all weights are packed
    /// in 8 bits.
    pub parameters: u64,
    /// The device that it runs on.
    pub device: Device,
    /// The number format that it computes in.
    pub precision: Precision,
    /// The fingerprint of its bundle.
    pub fingerprint: String,
    /// Time from opening the archive to having it on the device.
    pub took: Duration,
    /// Whether the archive was mapped; else it was read into memory.
    pub mapped: bool,
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (encoder, path) = (self.encoder, self.path.display());
        let megabytes = self.file_bytes as f64 / 1e6;
        write!(f, "{encoder} encoder {path} ({megabytes:.1} MB, ")?;
        if self.parameters > 0 {
            let millions = self.parameters as f64 / 1e6;
            write!(f, "{millions:.1} million parameters, ")?;
        }
        write!(
            f,
            "{}) as {} on {} in {:.2} s, bundle {}",
            if self.mapped { "mapped" } else { "copied" },
            self.precision,
            device_name(self.device),
            self.took.as_secs_f64(),
            self.fingerprint.get(..12).unwrap_or(&self.fingerprint),
        )
    }
}

/// A device's name: `cpu`, `cuda:0`.
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".into(),
        Device::Cuda(index) => format!("cuda:{index}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// A TorchScript module with one tensor in and one out.
struct Archive {
    module: Module,
    loaded: Loaded,
    width: i64,
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.loaded)
    }
}

/// How TorchScript runs here; process-wide, set once.
///
/// Without the profiling executor: it interprets the first calls at each
/// shape while it observes, then compiles, which made the first two calls
/// 1.5 times as slow and no later call faster (ViT-B/32, CPU, torch 2.11).
fn set_executor() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tch::jit::set_profiling_mode(false));
}

impl Archive {
    fn load(
        bundle: &Bundle,
        encoder: &'static str,
        file: &str,
        device: Device,
        precision: Precision,
    ) -> Result<Self, EncodeError> {
        set_executor();
        let start = Instant::now();
        let path = bundle.dir.join(file);
        let unloadable = |reason: String| EncodeError::Unloadable {
            path: path.clone(),
            reason,
        };
        let file_bytes = std::fs::metadata(&path)
            .map_err(|error| unloadable(error.to_string()))?
            .len();
        let (module, mapped) =
            Module::load(&path, device, precision).map_err(|e| unloadable(brief(&e)))?;
        let parameters = module.parameters().map_err(|e| unloadable(brief(&e)))?;
        Ok(Self {
            module,
            width: bundle.width as i64,
            loaded: Loaded {
                encoder,
                file_bytes,
                parameters,
                device,
                precision,
                fingerprint: bundle.fingerprint.clone(),
                took: start.elapsed(),
                mapped,
                path,
            },
        })
    }

    /// Runs the module on `input` [n, …] and checks that f32 [n, D] comes.
    fn forward(&self, input: &Tensor) -> Result<Tensor, EncodeError> {
        let encoder = self.loaded.encoder;
        let features = self
            .module
            .forward(input)
            .and_then(|features| {
                let features = features.f_to_kind(Kind::Float);
                features.map_err(|error| error.to_string())
            })
            .map_err(|error| EncodeError::Torch {
                encoder,
                reason: brief(&error),
            })?;
        let expected = [input.size().first().copied().unwrap_or(0), self.width];
        if features.size() != expected {
            return Err(EncodeError::Output {
                encoder,
                expected,
                found: features.size(),
            });
        }
        Ok(features)
    }
}

/// The part of torch's message that says something: before its stack.
fn brief(message: &str) -> String {
    let end = message
        .find("\nException raised from")
        .unwrap_or(message.len());
    message.get(..end).unwrap_or(message).trim().to_string()
}

/// Encodes prepared pictures as features.
#[derive(Debug)]
pub struct ImageEncoder {
    archive: Archive,
    spec: ImageSpec,
    /// 1/(255·std) and mean/std, [1, 3, 1, 1], in the encoder's format.
    scale: Tensor,
    shift: Tensor,
}

// SAFETY: the archive is Sync, and the two tensors are only read.
unsafe impl Sync for ImageEncoder {}

impl ImageEncoder {
    /// Loads the bundle's image encoder onto a device, to compute in a format.
    ///
    /// # Errors
    /// [`EncodeError::Absent`], [`EncodeError::Unloadable`].
    pub fn load(
        bundle: &Bundle,
        device: Device,
        precision: impl Into<Precision>,
    ) -> Result<Self, EncodeError> {
        let spec = bundle.image.clone().ok_or_else(|| EncodeError::Absent {
            bundle: bundle.name.clone(),
            encoder: "image",
        })?;
        let precision = precision.into();
        let file = match precision {
            Precision::Int8 => bundle.int8.as_ref().and_then(|int8| int8.image.as_ref()),
            _ => Some(&spec.file),
        };
        let file = file.ok_or_else(|| EncodeError::Absent {
            bundle: bundle.name.clone(),
            encoder: "int8 image",
        })?;
        let archive = Archive::load(bundle, "image", file, device, precision)?;
        let channels = |values: [f64; 3]| {
            Tensor::from_slice(&values.map(|value| value as f32))
                .view([1, 3, 1, 1])
                .to_device(device)
        };
        let ([red, green, blue], [mean_red, mean_green, mean_blue]) = (spec.std, spec.mean);
        let scale = channels(spec.std.map(|std| 1.0 / (255.0 * std)));
        let shift = channels([mean_red / red, mean_green / green, mean_blue / blue]);
        Ok(Self {
            archive,
            spec,
            scale,
            shift,
        })
    }

    /// What was loaded, and how long that took.
    pub fn loaded(&self) -> &Loaded {
        &self.archive.loaded
    }

    /// How its pictures are prepared.
    pub fn spec(&self) -> &ImageSpec {
        &self.spec
    }

    /// Raw features, f32 [B, D] on the encoder's device, of B prepared
    /// pictures: u8 [B, height, width, 3] on any device, as
    /// [`prepare`](super::views::prepare) gives them. Not normalised.
    ///
    /// # Errors
    /// [`EncodeError::Input`], [`EncodeError::Output`], [`EncodeError::Torch`].
    pub fn encode(&self, pixels: &Tensor) -> Result<Tensor, EncodeError> {
        let shape = pixels.size();
        let count = shape.first().copied().unwrap_or(0);
        let expected = self
            .spec
            .size
            .batch_shape(usize::try_from(count).unwrap_or(0));
        if pixels.kind() != Kind::Uint8 || count == 0 || shape != expected {
            let [_, height, width, _] = expected;
            return Err(EncodeError::Input {
                encoder: "image",
                expected: format!("u8 [B, {height}, {width}, 3] with B of 1 or more"),
                found: format!("{:?} {shape:?}", pixels.kind()),
            });
        }
        tch::no_grad(|| {
            let input = self.normalise(pixels).map_err(|error| EncodeError::Torch {
                encoder: "image",
                reason: brief(&error.to_string()),
            })?;
            self.archive.forward(&input)
        })
    }

    /// (x/255 − mean)/std, in f32, then in the encoder's format: [B, 3, S, S]
    /// with channels last in memory, as the pictures come.
    fn normalise(&self, pixels: &Tensor) -> Result<Tensor, TchError> {
        pixels
            .f_to_device(self.archive.loaded.device)?
            .f_permute([0, 3, 1, 2])?
            .f_to_kind(Kind::Float)?
            .f_mul_(&self.scale)?
            .f_sub_(&self.shift)?
            .f_to_kind(self.archive.loaded.precision.input_kind())
    }

    /// Replaces the loaded module by a fused one if that gives the same
    /// features, and gives them sooner, with this many torch threads.
    ///
    /// On CPUs and in float formats; nothing else is tried.
    pub fn fuse(&mut self, threads: usize) -> Fusing {
        self.fuse_in_turns(threads, &|| ())
    }

    /// The same where others compute too: each run of a module is within what
    /// `turn` gives, which may wait for its turn, and no more than one run is.
    pub fn fuse_in_turns<G>(&mut self, threads: usize, turn: &(dyn Fn() -> G + Sync)) -> Fusing {
        let loaded = &self.archive.loaded;
        if loaded.device != Device::Cpu || loaded.precision == Precision::Int8 {
            let reason = "it is for float formats on CPUs".to_owned();
            return Fusing::Refused { reason };
        }
        let least = least_cosine_of(loaded.precision);
        let size = self.spec.size;
        let plain = &*self;
        // Threads are set for the thread that calls, and stay.
        let judged = std::thread::scope(|scope| {
            let judging = scope.spawn(move || {
                tch::set_num_threads(i32::try_from(threads).unwrap_or(1));
                let fused = plain.fused().map_err(|reason| brief(&reason))?;
                let verdict = fused::judge(
                    &|pixels| plain.encode(pixels),
                    &|pixels| fused.encode(pixels),
                    &|count| fused::noise(size.batch_shape(count)),
                    least,
                    &fused::by_the_clock,
                    turn,
                );
                Ok((verdict, fused))
            });
            judging.join()
        });
        match judged {
            Ok(Ok((verdict, fused))) => {
                if let Fusing::Used { .. } = verdict {
                    self.archive.module = fused.archive.module;
                }
                verdict
            }
            Ok(Err(reason)) => Fusing::Refused { reason },
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// The same encoder with its operators fused.
    fn fused(&self) -> Result<Self, String> {
        Ok(Self {
            archive: Archive {
                module: tch::no_grad(|| self.archive.module.fused())?,
                loaded: self.archive.loaded.clone(),
                width: self.archive.width,
            },
            spec: self.spec.clone(),
            scale: self.scale.shallow_clone(),
            shift: self.shift.shallow_clone(),
        })
    }

    /// Bytes of the weights that a fused encoder holds besides the archive's;
    /// none of one that is not fused.
    ///
    /// # Errors
    /// [`EncodeError::Torch`].
    pub fn fused_bytes(&self) -> Result<u64, EncodeError> {
        let bytes = self.archive.module.constants();
        bytes.map_err(|error| EncodeError::Torch {
            encoder: "image",
            reason: brief(&error),
        })
    }

    /// Runs every batch size several times, so that no caller pays for a
    /// first call at its size.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn warm(&self, batch_sizes: &[usize]) -> Result<(), EncodeError> {
        for &batch in batch_sizes.iter().filter(|&&batch| batch > 0) {
            let shape = self.spec.size.batch_shape(batch);
            let pixels = Tensor::zeros(shape, (Kind::Uint8, Device::Cpu));
            for _ in 0..WARM_RUNS {
                let _features = self.encode(&pixels)?;
            }
        }
        Ok(())
    }
}

/// Runs that a new batch size takes to reach its speed.
const WARM_RUNS: usize = 2;

/// Encodes rows of token ids as features.
#[derive(Debug)]
pub struct TextEncoder {
    archive: Archive,
    context_length: usize,
}

impl TextEncoder {
    /// Loads the bundle's text encoder onto a device, to compute in a format:
    /// for int8, if the bundle has no such text encoder, in the device's
    /// fastest float format.
    ///
    /// # Errors
    /// [`EncodeError::Absent`], [`EncodeError::Unloadable`].
    pub fn load(
        bundle: &Bundle,
        device: Device,
        precision: impl Into<Precision>,
    ) -> Result<Self, EncodeError> {
        let spec = bundle.text.as_ref().ok_or_else(|| EncodeError::Absent {
            bundle: bundle.name.clone(),
            encoder: "text",
        })?;
        let int8 = bundle.int8.as_ref().and_then(|int8| int8.text.as_ref());
        let (file, precision) = match (precision.into(), int8) {
            (Precision::Int8, Some(file)) => (file, Precision::Int8),
            (Precision::Int8, None) => (&spec.file, fastest_kind(device).into()),
            (float, _) => (&spec.file, float),
        };
        Ok(Self {
            archive: Archive::load(bundle, "text", file, device, precision)?,
            context_length: spec.context_length,
        })
    }

    /// What was loaded, and how long that took.
    pub fn loaded(&self) -> &Loaded {
        &self.archive.loaded
    }

    /// Raw features, f32 [n, D] on the encoder's device, of n rows of
    /// `context_length` ids, as [`Tokenizer`](super::tokenize::Tokenizer)
    /// gives them. Not normalised. No rows give [0, D].
    ///
    /// # Errors
    /// [`EncodeError::Input`], [`EncodeError::Output`], [`EncodeError::Torch`].
    pub fn encode(&self, ids: &[Vec<i64>]) -> Result<Tensor, EncodeError> {
        let device = self.archive.loaded.device;
        if let Some(row) = ids.iter().find(|row| row.len() != self.context_length) {
            return Err(EncodeError::Input {
                encoder: "text",
                expected: format!("rows of {} ids", self.context_length),
                found: format!("a row of {}", row.len()),
            });
        }
        if ids.is_empty() {
            return Ok(Tensor::zeros(
                [0, self.archive.width],
                (Kind::Float, device),
            ));
        }
        let rows = Tensor::from_slice(&ids.concat())
            .view([ids.len() as i64, self.context_length as i64])
            .to_device(device);
        tch::no_grad(|| self.archive.forward(&rows))
    }
}
