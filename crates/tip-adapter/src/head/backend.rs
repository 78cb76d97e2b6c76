//! What a head computes with: our kernels, or torch operators.

use tch::Device;

use super::{HeadError, packed::Isa};

/// What a head computes with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// The fastest that the device has for this head.
    #[default]
    Automatic,
    /// torch operators, which run on any device.
    Operators,
    /// Our kernels in AVX2 (with FMA and F16C).
    Avx2,
    /// Our kernels in AVX-512, in bfloat16 also AVX512-BF16 or AMX.
    Avx512,
}

/// The kernels for a head, or none for operators.
pub(super) fn isa(backend: Backend, device: Device, dense: bool) -> Result<Option<Isa>, HeadError> {
    let detected = Isa::detect().filter(|_| device == Device::Cpu && !dense);
    let found = match backend {
        Backend::Automatic => return Ok(detected),
        Backend::Operators => return Ok(None),
        #[cfg(target_arch = "x86_64")]
        Backend::Avx2 => detected.map(|_| Isa::Avx2),
        #[cfg(target_arch = "x86_64")]
        Backend::Avx512 => detected.filter(|isa| *isa == Isa::Avx512),
        #[cfg(not(target_arch = "x86_64"))]
        Backend::Avx2 | Backend::Avx512 => None,
    };
    found.map(Some).ok_or(HeadError::Backend(backend))
}
