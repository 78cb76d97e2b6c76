//! Several batches under way at once, on one or more CUDA devices.
//!
//! A lane is a stream of a device and a page-locked buffer of the host. While
//! the batch of one lane is computed, the next is written into another lane's
//! buffer and copied up, and a third's features are read: the card has no
//! gaps, and the copies cost no time of their own. All devices' lanes are one
//! pool; a batch takes a lane of the device that has the most free.

use tch::{Device, Kind, TchError, Tensor};

use parking_lot::{Condvar, Mutex};

use super::{
    cuda::{self, Stream},
    encoder::{EncodeError, ImageEncoder},
};

/// What a batch goes through.
#[derive(Debug)]
struct Lane {
    /// Which encoder.
    encoder: usize,
    /// None on the CPU, which has no streams.
    stream: Option<Stream>,
    /// u8 [most, S, S, 3], page-locked where the device is CUDA's.
    staging: Option<Tensor>,
}

/// Image encoders on one or more devices, used by several threads at once.
#[derive(Debug)]
pub struct Lanes {
    encoders: Vec<ImageEncoder>,
    free: Mutex<Vec<Lane>>,
    freed: Condvar,
    most: usize,
    home: Device,
}

impl Lanes {
    /// `each` lanes on every encoder's device, for batches of up to `most`
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
                free.push(Lane {
                    encoder,
                    stream,
                    staging: None,
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
    /// pictures, each size × size × 3 bytes. Blocks while all lanes are taken.
    ///
    /// Where the device has no memory left, what torch's allocator holds
    /// unused is given back and the batch tried once more.
    ///
    /// # Errors
    /// As [`ImageEncoder::encode`].
    pub fn encode(&self, pictures: &[&[u8]]) -> Result<Tensor, EncodeError> {
        let mut taken = self.take()?;
        let first = self.encode_in(&mut taken.lane, pictures);
        match first {
            Err(error) if out_of_memory(&error) => {
                tracing::warn!(
                    batch = pictures.len(),
                    "a device is out of memory; giving back what is cached"
                );
                cuda::release_memory().map_err(torch)?;
                self.encode_in(&mut taken.lane, pictures)
            }
            result => result,
        }
    }

    fn encode_in(&self, lane: &mut Lane, pictures: &[&[u8]]) -> Result<Tensor, EncodeError> {
        let encoder = self
            .encoders
            .get(lane.encoder)
            .ok_or_else(|| torch("no such encoder".to_owned()))?;
        let device = encoder.loaded().device;
        let staged = stage(lane, encoder, pictures, self.most)?;
        let failed = |error: TchError| torch(error.to_string());
        match &lane.stream {
            None => encoder.encode(&staged),
            // The copy up does not block; `encode` then finds the pixels on
            // its device. What was launched, the way to the first device
            // included, is waited for before the buffer is used again and
            // before another stream reads the features.
            Some(stream) => stream
                .run(|| {
                    let pixels = staged
                        .f_to_device_(device, Kind::Uint8, true, false)
                        .map_err(failed)?;
                    let features = encoder.encode(&pixels)?;
                    if features.device() == self.home {
                        return Ok(features);
                    }
                    features.f_to_device(self.home).map_err(failed)
                })
                .map_err(torch)?,
        }
    }

    fn take(&self) -> Result<Taken<'_>, EncodeError> {
        if self.encoders.is_empty() {
            return Err(torch("there is no device to encode on".to_owned()));
        }
        let mut free = self.free.lock();
        while free.is_empty() {
            self.freed.wait(&mut free);
        }
        let idle = |encoder: usize| free.iter().filter(|lane| lane.encoder == encoder).count();
        let at = (0..free.len())
            .max_by_key(|&at| free.get(at).map_or(0, |lane| idle(lane.encoder)))
            .unwrap_or(0);
        let lane = free.swap_remove(at);
        Ok(Taken { lanes: self, lane })
    }
}

/// A lane in use; free again when dropped.
struct Taken<'a> {
    lanes: &'a Lanes,
    lane: Lane,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let lane = Lane {
            encoder: self.lane.encoder,
            stream: self.lane.stream.take(),
            staging: self.lane.staging.take(),
        };
        self.lanes.free.lock().push(lane);
        self.lanes.freed.notify_one();
    }
}

/// The pictures as one u8 tensor [B, S, S, 3] in the lane's buffer.
fn stage(
    lane: &mut Lane,
    encoder: &ImageEncoder,
    pictures: &[&[u8]],
    most: usize,
) -> Result<Tensor, EncodeError> {
    let side = i64::from(encoder.spec().size);
    let bytes = (side * side * 3) as usize;
    if let Some(wrong) = pictures.iter().find(|picture| picture.len() != bytes) {
        return Err(EncodeError::Input {
            encoder: "image",
            expected: format!("pictures of {bytes} bytes"),
            found: format!("one of {}", wrong.len()),
        });
    }
    let device = encoder.loaded().device;
    let count = pictures.len() as i64;
    let make = |rows: i64| -> Result<Tensor, TchError> {
        let plain = Tensor::f_empty([rows, side, side, 3], (Kind::Uint8, Device::Cpu))?;
        match device {
            Device::Cuda(_) => plain.f_pin_memory(device),
            _ => Ok(plain),
        }
    };
    let mut staged = || -> Result<Tensor, TchError> {
        // On the CPU the encoder may go on reading its input; a batch over the
        // lane's size is rare. Both take a tensor of their own.
        if lane.stream.is_none() || pictures.len() > most {
            return make(count);
        }
        let staging = match &lane.staging {
            Some(staging) => staging,
            None => lane.staging.insert(make(most as i64)?),
        };
        staging.f_narrow(0, 0, count)
    };
    let staged = staged().map_err(|error| torch(error.to_string()))?;
    let start = staged.data_ptr().cast::<u8>();
    for (at, picture) in pictures.iter().enumerate() {
        // SAFETY: `staged` is contiguous u8 in host memory with `bytes` bytes
        // a picture, `picture` has as many, and nobody else has the tensor:
        // the lane is this thread's, and its last batch was waited for.
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

/// Whether a device's memory ran out, which a smaller batch may mend.
fn out_of_memory(error: &EncodeError) -> bool {
    const SIGNS: [&str; 3] = [
        "CUDA out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_ALLOC_FAILED",
    ];
    matches!(error, EncodeError::Torch { reason, .. }
        if SIGNS.iter().any(|sign| reason.contains(sign)))
}
