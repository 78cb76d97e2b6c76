//! A bundle's image encoder, as the engine takes it.

use tch::{Device, Tensor};

use super::devices::first;
use tipserve_clip::{
    Bundle, EncodeError, Fusing, GraphsChoice, ImageEncoder, Precision, Size, StreamPool,
    encoder::device_name, graphs::Verdict,
};
use tipserve_engine::{EncodeFault, Encoder};

/// An image encoder on one or more devices.
pub struct PictureEncoder(Place);

enum Place {
    Cpu(Alone),
    Cuda(StreamPool),
}

/// An encoder on the CPU: many threads may use it as it is.
struct Alone(ImageEncoder);

impl Encoder for Alone {
    fn encode(&self, pixels: &Tensor) -> Result<Tensor, EncodeFault> {
        self.0.encode(pixels).map_err(|error| fault(&error))
    }
}

/// A bundle's image encoder on some devices: alone on the CPU, in `streams` a
/// device on CUDA, for batches of up to `max_batch`.
///
/// # Errors
/// What stands against loading it.
pub fn image_encoder(
    bundle: &Bundle,
    devices: &[Device],
    precision: Precision,
    streams: usize,
    max_batch: usize,
) -> Result<PictureEncoder, EncodeError> {
    let mut loaded = Vec::with_capacity(devices.len());
    for &device in devices {
        let encoder = ImageEncoder::load(bundle, device, precision)?;
        tracing::info!("{}", encoder.loaded());
        loaded.push(encoder);
    }
    if !first(devices).is_cuda()
        && let Some(encoder) = loaded.pop()
    {
        return Ok(PictureEncoder(Place::Cpu(Alone(encoder))));
    }
    let pool = StreamPool::new(loaded, streams, max_batch)?;
    Ok(PictureEncoder(Place::Cuda(pool)))
}

impl PictureEncoder {
    /// Fuses the encoder's operators, on a CPU, if that proves right and
    /// quicker with this many torch threads, and logs the outcome. To be called
    /// before the first batch. Each run of the trial is within what `turn`
    /// gives: where others are served, they come between any two.
    pub fn fuse<G>(&mut self, threads: usize, turn: &(dyn Fn() -> G + Sync)) -> Option<Fusing> {
        let Place::Cpu(alone) = &mut self.0 else {
            return None;
        };
        if alone.0.loaded().precision == Precision::Int8 {
            return None;
        }
        let verdict = alone.0.fuse_in_turns(threads, turn);
        tracing::info!("fused image encoder {verdict}");
        Some(verdict)
    }

    /// Records small batches as CUDA graphs if `choice` asks for it, and logs
    /// the outcome. To be called before the first batch.
    ///
    /// Gives device, size and verdict.
    pub fn record(&self, choice: GraphsChoice) -> Vec<(Device, usize, Verdict)> {
        if choice == GraphsChoice::Off {
            return Vec::new();
        }
        let found = match &self.0 {
            Place::Cpu(_) => Err("this server is on the CPU".to_owned()),
            Place::Cuda(pool) => pool.record(),
        };
        match found {
            Ok(found) => {
                for (device, size, verdict) in &found {
                    tracing::info!(device = device_name(*device), size, "CUDA graph {verdict}");
                }
                found
            }
            Err(reason) => {
                tracing::warn!(reason, "no CUDA graphs: every batch is computed without");
                Vec::new()
            }
        }
    }
}

impl Encoder for PictureEncoder {
    fn encode(&self, pixels: &Tensor) -> Result<Tensor, EncodeFault> {
        match &self.0 {
            Place::Cpu(alone) => alone.encode(pixels),
            Place::Cuda(pool) => {
                let rows = pixels.size().first().copied().unwrap_or(0);
                let rows = usize::try_from(rows).unwrap_or(0);
                let flat = Vec::<u8>::try_from(pixels.flatten(0, -1))
                    .map_err(|error| EncodeFault::new(&error.to_string()))?;
                let pictures: Vec<&[u8]> = flat.chunks((flat.len() / rows.max(1)).max(1)).collect();
                pool.encode(&pictures).map_err(|error| fault(&error))
            }
        }
    }

    fn encode_apart(&self, pictures: &[&[u8]], size: Size) -> Result<Tensor, EncodeFault> {
        match &self.0 {
            Place::Cpu(alone) => alone.encode_apart(pictures, size),
            Place::Cuda(pool) => pool.encode(pictures).map_err(|error| fault(&error)),
        }
    }
}

fn fault(error: &EncodeError) -> EncodeFault {
    EncodeFault::new(&error.to_string())
}
