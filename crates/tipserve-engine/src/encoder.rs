//! What the engine asks of an encoder, and what its failures mean.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::{Kind, Tensor};
use tipserve_clip::Size;

/// Why a batch could not be encoded.
#[derive(Clone, Debug)]
pub struct EncodeFault {
    /// What torch said, in one line.
    pub detail: String,
    /// The device is broken: nothing can run on it any more.
    pub fatal: bool,
}

impl EncodeFault {
    /// Reads torch's message: the line that says what happened, and whether it
    /// names an error after which the CUDA context is lost (those that CUDA's
    /// own documentation calls so: the process must end to use the device
    /// again).
    pub fn new(message: &str) -> EncodeFault {
        const FATAL: [&str; 9] = [
            "illegal memory access",
            // In full: a hint at "device-side assertions" ends every CUDA error.
            "device-side assert triggered",
            "unspecified launch failure",
            "misaligned address",
            "uncorrectable ECC error",
            "illegal instruction was encountered",
            "hardware stack error",
            "invalid program counter",
            "launch timed out and was terminated",
        ];
        let mut lines = message.lines().filter(|line| !line.trim().is_empty());
        let detail = if message.contains("in the TorchScript interpreter") {
            // A traceback of the archive comes first.
            lines.next_back()
        } else {
            lines.next()
        };
        EncodeFault {
            detail: detail.unwrap_or_default().trim().to_owned(),
            fatal: FATAL.iter().any(|sign| message.contains(sign)),
        }
    }
}

/// Turns prepared pictures into features.
pub trait Encoder: Send + Sync {
    /// Raw features f32 [B, D] of prepared pictures u8 [B, H, W, 3]. Called by
    /// several workers at once, each on a thread of its own.
    ///
    /// # Errors
    /// Torch's, and whether the device survives it.
    fn encode(&self, pixels: &Tensor) -> Result<Tensor, EncodeFault>;

    /// The same for pictures in separate buffers, each of `size`. An encoder
    /// that must copy them anyway, to another device, does it here in one go.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    fn encode_apart(&self, pictures: &[&[u8]], size: Size) -> Result<Tensor, EncodeFault> {
        let pixels = pictures.concat();
        let shape = size.batch_shape(pictures.len());
        guarded(|| Tensor::f_from_data_size(&pixels, &shape, Kind::Uint8))
            .and_then(|pixels| self.encode(&pixels))
    }
}

/// Runs torch code; its errors, and the panics of the binding, are faults.
pub(crate) fn guarded<T>(run: impl FnOnce() -> Result<T, tch::TchError>) -> Result<T, EncodeFault> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(EncodeFault::new(&error.to_string())),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("a panic without a message");
            Err(EncodeFault::new(text))
        }
    }
}
