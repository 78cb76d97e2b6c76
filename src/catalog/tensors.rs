//! Between torch's tensors and the store's named arrays.

use bytes::Bytes;
use tch::{Device, Kind, Tensor};

use super::CatalogError;
use tipserve_store::{Dtype, NamedTensor, TensorFile};

fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::I64 => Kind::Int64,
        _ => return None,
    })
}

/// A tensor of a version, on the CPU; none if the file has none of that
/// name.
///
/// # Errors
/// A dtype that versions do not have, or torch's.
pub fn read(file: &TensorFile, name: &str) -> Result<Option<Tensor>, CatalogError> {
    let Some(view) = file.get(name) else {
        return Ok(None);
    };
    let kind = kind_of(view.dtype).ok_or_else(|| {
        CatalogError::internal(format!("tensor {name} has dtype {:?}", view.dtype))
    })?;
    let shape: Vec<i64> = view.shape.iter().map(|side| *side as i64).collect();
    Tensor::f_from_data_size(view.bytes, &shape, kind)
        .map(Some)
        .map_err(CatalogError::internal)
}

/// A matrix of rows of `width` on the CPU.
pub(super) fn matrix(values: &[f32], width: usize) -> Result<Tensor, CatalogError> {
    let rows = values.len().checked_div(width).unwrap_or(0);
    Tensor::f_from_slice(values)
        .and_then(|tensor| tensor.f_reshape([rows as i64, width as i64]))
        .map_err(CatalogError::internal)
}

/// A tensor as the store takes it, in its own dtype.
///
/// # Errors
/// Torch's, if it cannot be brought to the CPU.
pub fn write(name: &str, tensor: &Tensor) -> Result<NamedTensor, CatalogError> {
    let (dtype, kind) = match tensor.kind() {
        Kind::Half => (Dtype::F16, Kind::Half),
        Kind::Int64 => (Dtype::I64, Kind::Int64),
        _ => (Dtype::F32, Kind::Float),
    };
    let tensor = tensor
        .f_to_device(Device::Cpu)
        .and_then(|tensor| tensor.f_to_kind(kind))
        .and_then(|tensor| tensor.f_contiguous())
        .map_err(CatalogError::internal)?;
    let count = tensor.numel();
    let mut bytes = vec![0; count * dtype_bytes(dtype)];
    tensor
        .f_copy_data_u8(&mut bytes, count)
        .map_err(CatalogError::internal)?;
    Ok(NamedTensor {
        name: name.to_owned(),
        dtype,
        shape: tensor.size().iter().map(|side| *side as usize).collect(),
        bytes: Bytes::from(bytes),
    })
}

fn dtype_bytes(dtype: Dtype) -> usize {
    match dtype {
        Dtype::F16 => 2,
        Dtype::I64 => 8,
        _ => 4,
    }
}
