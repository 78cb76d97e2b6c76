//! The classes of examples with any number of them, as two tensors: each
//! example's offset, and the class indices.

use tch::Tensor;

use super::{CatalogError, tensors};
use tipserve_store::{Dtype, NamedTensor, TensorFile, tensors::names};

/// Names of the two tensors for training or validation examples.
#[derive(Clone, Copy, Debug)]
pub(super) struct LabelSetNames {
    offsets: &'static str,
    indices: &'static str,
}

/// Names for the training examples.
pub(super) const TRAINING: LabelSetNames = LabelSetNames {
    offsets: names::LABEL_OFFSETS,
    indices: names::LABEL_INDICES,
};

/// Names for the validation examples.
pub(super) const VALIDATION: LabelSetNames = LabelSetNames {
    offsets: names::VALIDATION_LABEL_OFFSETS,
    indices: names::VALIDATION_LABEL_INDICES,
};

/// The tensors of examples' classes.
///
/// # Errors
/// Torch's.
pub(super) fn write<'a>(
    of: LabelSetNames,
    examples: impl Iterator<Item = &'a [usize]>,
) -> Result<[NamedTensor; 2], CatalogError> {
    let (mut offsets, mut indices) = (vec![0_i64], Vec::new());
    for classes in examples {
        indices.extend(classes.iter().map(|class| *class as i64));
        offsets.push(indices.len() as i64);
    }
    let tensor = |numbers: &[i64]| Tensor::f_from_slice(numbers).map_err(CatalogError::internal);
    Ok([
        tensors::write(of.offsets, &tensor(&offsets)?)?,
        tensors::write(of.indices, &tensor(&indices)?)?,
    ])
}

/// The classes of `rows` examples, each under `classes` and in ascending order;
/// none at all if there are no rows.
///
/// # Errors
/// The reason, in words, if the tensors are not valid.
pub(super) fn read(
    file: &TensorFile,
    of: LabelSetNames,
    rows: usize,
    classes: usize,
) -> Result<Vec<Vec<usize>>, String> {
    if rows == 0 && file.get(of.offsets).is_none() {
        return Ok(Vec::new());
    }
    let (offsets, indices) = (numbers(file, of.offsets)?, numbers(file, of.indices)?);
    if offsets.len() != rows + 1 || offsets.first() != Some(&0) {
        return Err(format!("{} does not fit {rows} examples", of.offsets));
    }
    let mut sets = Vec::with_capacity(rows);
    for ends in offsets.windows(2) {
        let &[from, to] = ends else { continue };
        let set = indices
            .get(from..to)
            .ok_or_else(|| format!("{} goes beyond {} classes", of.offsets, indices.len()))?;
        if set.iter().any(|class| *class >= classes) {
            return Err(format!(
                "{} names a class that is not in 0..{classes}",
                of.indices
            ));
        }
        if !set.is_sorted_by(|a, b| a < b) {
            return Err(format!("{} is not in ascending order", of.indices));
        }
        sets.push(set.to_vec());
    }
    match offsets.last() == Some(&indices.len()) {
        true => Ok(sets),
        false => Err(format!("{} has classes of no example", of.indices)),
    }
}

fn numbers(file: &TensorFile, name: &str) -> Result<Vec<usize>, String> {
    let tensor = file
        .get(name)
        .ok_or_else(|| format!("tensor {name} is missing"))?;
    if tensor.dtype != Dtype::I64 || tensor.shape.len() != 1 {
        return Err(format!(
            "tensor {name} is {:?} {:?} instead of I64 [·]",
            tensor.dtype, tensor.shape
        ));
    }
    let numbers = tensor.bytes.as_chunks::<8>().0.iter();
    numbers
        .map(|raw| {
            usize::try_from(i64::from_le_bytes(*raw))
                .map_err(|_| format!("tensor {name} has a negative number"))
        })
        .collect()
}
