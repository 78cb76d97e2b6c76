//! Tensors as slices of numbers, for our own kernels.

// tch gives out a tensor's memory as a bare pointer only.
#![allow(unsafe_code)]

use tch::{Device, Kind, Tensor};

use super::HeadError;

/// A tensor as plain numbers: f32, contiguous, on the CPU.
pub(crate) struct Plain(Tensor);

impl Plain {
    pub(crate) fn new(t: &Tensor) -> Result<Self, HeadError> {
        Ok(Self(
            t.f_to_device(Device::Cpu)?
                .f_to_kind(Kind::Float)?
                .f_contiguous()?,
        ))
    }

    pub(crate) fn values(&self) -> &[f32] {
        let count = self.0.numel();
        if count == 0 {
            return &[];
        }
        // SAFETY: contiguous f32 on the CPU, kept alive by self.
        unsafe { std::slice::from_raw_parts(self.0.data_ptr().cast::<f32>(), count) }
    }
}

/// A tensor of f32 on the CPU, its numbers written by `fill`, to which they
/// come as zeros.
pub(crate) fn filled(
    shape: [usize; 2],
    fill: impl FnOnce(&mut [f32]),
) -> Result<Tensor, HeadError> {
    let t = Tensor::f_zeros(shape.map(|n| n as i64), (Kind::Float, Device::Cpu))?;
    let count = t.numel();
    if count > 0 {
        // SAFETY: contiguous f32 on the CPU, made here and shared with no one.
        fill(unsafe { std::slice::from_raw_parts_mut(t.data_ptr().cast::<f32>(), count) });
    }
    Ok(t)
}
