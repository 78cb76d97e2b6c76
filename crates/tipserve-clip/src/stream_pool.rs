//! Several batches under way at once, on one or more CUDA devices.
//!
//! A stream slot is a stream of a device and a page-locked buffer of the host.
//! While the batch of one slot is computed, the next is written into another
//! slot's buffer and copied up, and a third's features are read: the card has
//! no gaps, and the copies cost no time of their own. All devices' slots are
//! one pool; a batch takes a slot of the device that has the most free.

// Page-locked memory of the host, which tch gives out as a bare pointer.
#![allow(unsafe_code)]

use tch::{Device, Kind, TchError, Tensor};

use parking_lot::{Condvar, Mutex};

use super::{
    cuda::{self, Graph, Stream},
    encode_error::EncodeError,
    encoder::ImageEncoder,
    graphs::{Graphs, Recorder, Recording, SIZES, Verdict},
};

/// What a batch goes through.
#[derive(Debug)]
struct StreamSlot {
    /// Index of the encoder, and so of the device, that the slot belongs to.
    encoder: usize,
    /// None on the CPU, which has no streams.
    stream: Option<Stream>,
    /// u8 [most, S, S, 3], page-locked where the device is CUDA's.
    staging: Option<Tensor>,
    /// Batches of some sizes, recorded; none if they are not wanted.
    graphs: Graphs,
}

/// Image encoders on one or more devices, used by several threads at once.
#[derive(Debug)]
pub struct StreamPool {
    encoders: Vec<ImageEncoder>,
    free: Mutex<Vec<StreamSlot>>,
    freed: Condvar,
    most: usize,
    home: Device,
}

impl StreamPool {
    /// `each` slots on every encoder's device, for batches of up to `most`
    /// pictures. Features come on the first encoder's device.
    ///
    /// The encoders are copies of one bundle's, each on a device of its own.
    ///
    /// # Errors
    /// [`EncodeError::Torch`], where a device cannot give a stream.
    pub fn new(encoders: Vec<ImageEncoder>, each: usize, most: usize) -> Result<Self, EncodeError> {
        let mut free = Vec::new();
        for (encoder, one) in encoders.iter().enumerate() {
            let device = one.loaded().device;
            // The weights were copied in the default stream.
            cuda::synchronise(device);
            for _ in 0..each.max(1) {
                let stream = match device {
                    Device::Cuda(_) => Some(Stream::new(device).map_err(torch)?),
                    _ => None,
                };
                free.push(StreamSlot {
                    encoder,
                    stream,
                    staging: None,
                    graphs: Graphs::default(),
                });
            }
        }
        let home = encoders
            .first()
            .map_or(Device::Cpu, |encoder| encoder.loaded().device);
        Ok(Self {
            encoders,
            free: Mutex::new(free),
            freed: Condvar::new(),
            most: most.max(1),
            home,
        })
    }

    /// Raw features f32 [B, D], on the first encoder's device, of prepared
    /// pictures, each size × size × 3 bytes. Blocks while all slots are taken.
    ///
    /// Where the device has no memory left, what torch's allocator holds
    /// unused is given back and the batch tried once more.
    ///
    /// # Errors
    /// As [`ImageEncoder::encode`].
    pub fn encode(&self, pictures: &[&[u8]]) -> Result<Tensor, EncodeError> {
        let mut taken = self.take()?;
        let first = self.encode_in(&mut taken.slot, pictures);
        match first {
            Err(error) if error.is_out_of_memory() => {
                tracing::warn!(
                    batch = pictures.len(),
                    "a device is out of memory; giving back what is cached"
                );
                cuda::release_memory().map_err(torch)?;
                self.encode_in(&mut taken.slot, pictures)
            }
            result => result,
        }
    }

    fn encode_in(&self, slot: &mut StreamSlot, pictures: &[&[u8]]) -> Result<Tensor, EncodeError> {
        let encoder = self
            .encoders
            .get(slot.encoder)
            .ok_or_else(|| torch("no such encoder".to_owned()))?;
        let staged = stage(slot, encoder, pictures, self.most)?;
        match &slot.stream {
            None => encoder.encode(&staged),
            Some(stream) => {
                let target = Target {
                    encoder,
                    stream,
                    home: self.home,
                };
                slot.graphs.encode(&staged, &target)
            }
        }
    }

    /// Records small batches as CUDA graphs, in every slot, and keeps those
    /// that are right and quicker (see [`graphs`](super::graphs)). Gives what
    /// came of each size in the first slot of each encoder, by its device;
    /// other slots record those that are replayed there.
    ///
    /// To be called before the first batch, and while nothing else runs on
    /// the devices, since it measures.
    ///
    /// # Errors
    /// Why there are no graphs here at all: no CUDA device, or a torch that
    /// has none.
    pub fn record(&self) -> Result<Vec<(Device, usize, Verdict)>, String> {
        if !self.home.is_cuda() {
            return Err("there is no CUDA device, and nowhere else are there graphs".to_owned());
        }
        Graph::available()?;
        let mut found: Vec<(Device, usize, Verdict)> = Vec::new();
        let mut slots = std::mem::take(&mut *self.free.lock());
        for slot in &mut slots {
            let Some((encoder, stream)) = self.encoders.get(slot.encoder).zip(slot.stream.clone())
            else {
                continue;
            };
            let device = encoder.loaded().device;
            let target = Target {
                encoder,
                stream: &stream,
                home: self.home,
            };
            let before: Vec<_> = found.iter().filter(|(it, ..)| *it == device).collect();
            let first = before.is_empty();
            let sizes: Vec<usize> = if first {
                SIZES.into_iter().filter(|&n| n <= self.most).collect()
            } else {
                let replayed = before
                    .iter()
                    .filter(|(.., verdict)| matches!(verdict, Verdict::Replayed { .. }));
                replayed.map(|(_, size, _)| *size).collect()
            };
            let size = encoder.spec().size;
            let (graphs, verdicts) = Graphs::record(&target, &sizes, size);
            slot.graphs = graphs;
            for (size, verdict) in verdicts {
                if first {
                    found.push((device, size, verdict));
                } else {
                    tracing::debug!(?device, size, %verdict, "CUDA graph of another slot");
                }
            }
        }
        *self.free.lock() = slots;
        self.freed.notify_all();
        Ok(found)
    }

    fn take(&self) -> Result<Taken<'_>, EncodeError> {
        if self.encoders.is_empty() {
            return Err(torch("there is no device to encode on".to_owned()));
        }
        let mut free = self.free.lock();
        while free.is_empty() {
            self.freed.wait(&mut free);
        }
        let idle = |encoder: usize| free.iter().filter(|slot| slot.encoder == encoder).count();
        let at = (0..free.len())
            .max_by_key(|&at| free.get(at).map_or(0, |slot| idle(slot.encoder)))
            .unwrap_or(0);
        let slot = free.swap_remove(at);
        Ok(Taken { pool: self, slot })
    }
}

/// Where a slot's batches are computed, and where their features go.
struct Target<'a> {
    encoder: &'a ImageEncoder,
    stream: &'a Stream,
    home: Device,
}

impl Recorder for Target<'_> {
    fn plain(&self, staged: &Tensor) -> Result<Tensor, EncodeError> {
        let device = self.encoder.loaded().device;
        // The copy up does not block; `encode` then finds the pixels on its
        // device. What was launched, the way to the first device included, is
        // waited for before the buffer is used again and before another stream
        // reads the features.
        self.stream
            .run(|| {
                let pixels = staged
                    .f_to_device_(device, Kind::Uint8, true, false)
                    .map_err(failed)?;
                let features = self.encoder.encode(&pixels)?;
                if features.device() == self.home {
                    return Ok(features);
                }
                features.f_to_device(self.home).map_err(failed)
            })
            .map_err(torch)?
    }

    fn record(&self, size: usize) -> Result<Box<dyn Recording>, EncodeError> {
        let device = self.encoder.loaded().device;
        let shape = self.encoder.spec().size.batch_shape(size);
        let pixels = self
            .stream
            .run(|| {
                let pixels = Tensor::f_zeros(shape, (Kind::Uint8, device)).map_err(failed)?;
                for _ in 0..RUNS_BEFORE {
                    let _features = self.encoder.encode(&pixels)?;
                }
                Ok::<_, EncodeError>(pixels)
            })
            .map_err(torch)??;
        let encode = || {
            self.encoder
                .encode(&pixels)
                .map_err(|error| error.to_string())
        };
        let (features, graph) = self.stream.record(encode).map_err(torch)?;
        Ok(Box::new(RecordedBatch {
            stream: self.stream.clone(),
            home: self.home,
            pixels,
            features,
            graph,
        }))
    }
}

/// Runs of a shape after which everything that it needs is loaded and chosen.
const RUNS_BEFORE: usize = 3;

/// A batch recorded in a slot's stream: the graph reads `pixels` and writes
/// `features`.
#[derive(Debug)]
struct RecordedBatch {
    stream: Stream,
    home: Device,
    /// u8 [n, S, S, 3].
    pixels: Tensor,
    /// f32 [n, D], in the graph's own memory.
    features: Tensor,
    graph: Graph,
}

impl Recording for RecordedBatch {
    fn replay(&self, staged: &Tensor) -> Result<Tensor, EncodeError> {
        let device = self.pixels.device();
        let rows = staged.size().first().copied().unwrap_or(0);
        self.stream
            .run(|| {
                // By way of a tensor of its own: a copy from the host into one
                // that is there would block. On the card it does not.
                let up = staged.f_to_device_(device, Kind::Uint8, true, false)?;
                self.pixels.f_narrow(0, 0, rows)?.f_copy_(&up)?;
                self.graph.replay().map_err(TchError::Torch)?;
                // A copy, since the next replay writes there again.
                self.features
                    .f_narrow(0, 0, rows)?
                    .f_to_device_(self.home, Kind::Float, true, true)
            })
            .map_err(torch)?
            .map_err(failed)
    }
}

fn failed(error: TchError) -> EncodeError {
    torch(error.to_string())
}

/// A slot in use; free again when dropped.
struct Taken<'a> {
    pool: &'a StreamPool,
    slot: StreamSlot,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let slot = StreamSlot {
            encoder: self.slot.encoder,
            stream: self.slot.stream.take(),
            staging: self.slot.staging.take(),
            graphs: std::mem::take(&mut self.slot.graphs),
        };
        self.pool.free.lock().push(slot);
        self.pool.freed.notify_one();
    }
}

/// The pictures as one u8 tensor [B, S, S, 3] in the slot's buffer.
fn stage(
    slot: &mut StreamSlot,
    encoder: &ImageEncoder,
    pictures: &[&[u8]],
    most: usize,
) -> Result<Tensor, EncodeError> {
    let size = encoder.spec().size;
    let bytes = size.rgb_bytes();
    if let Some(wrong) = pictures.iter().find(|picture| picture.len() != bytes) {
        return Err(EncodeError::Input {
            encoder: "image",
            expected: format!("pictures of {bytes} bytes"),
            found: format!("one of {}", wrong.len()),
        });
    }
    let device = encoder.loaded().device;
    let count = pictures.len();
    let make = |rows: usize| -> Result<Tensor, TchError> {
        let plain = Tensor::f_empty(size.batch_shape(rows), (Kind::Uint8, Device::Cpu))?;
        match device {
            // The operator behind pin_memory, which warns of its argument.
            Device::Cuda(_) => plain.f_internal_pin_memory(device),
            _ => Ok(plain),
        }
    };
    let mut staged = || -> Result<Tensor, TchError> {
        // On the CPU the encoder may go on reading its input; a batch over the
        // slot's size is rare. Both take a tensor of their own.
        if slot.stream.is_none() || pictures.len() > most {
            return make(count);
        }
        let staging = match &slot.staging {
            Some(staging) => staging,
            None => slot.staging.insert(make(most)?),
        };
        staging.f_narrow(0, 0, count as i64)
    };
    let staged = staged().map_err(|error| torch(error.to_string()))?;
    let start = staged.data_ptr().cast::<u8>();
    for (at, picture) in pictures.iter().enumerate() {
        // SAFETY: `staged` is contiguous u8 in host memory with `bytes` bytes
        // a picture, `picture` has as many, and nobody else has the tensor:
        // the slot is this thread's, and its last batch was waited for.
        unsafe {
            std::ptr::copy_nonoverlapping(picture.as_ptr(), start.add(at * bytes), bytes);
        }
    }
    Ok(staged)
}

fn torch(reason: String) -> EncodeError {
    EncodeError::Torch {
        encoder: "image",
        reason,
    }
}
