//! A version's tensors, read from its file without torch.
//!
//! The readers take tensors of the dtypes that [`check_shapes`] found; an
//! absent tensor is empty.

use half::f16;

use tipserve_clip::bundle::MAX_WIDTH;
use tipserve_store::{Details, Dtype, TensorFile, TextColumn, tensors::names};

/// Whether every tensor that the manifest implies is present, in its dtype and
/// shape (`docs/storage.md`).
///
/// # Errors
/// The first that is not, in words.
pub(super) fn check_shapes(details: &Details, file: &TensorFile) -> Result<(), String> {
    let (n, d) = (details.classes.len(), details.width);
    let m = usize::try_from(details.key_count).map_err(|_| "key_count is too large".to_owned())?;
    let r = details.views.max(1) as usize;
    let q = file
        .get(names::VALIDATION_LABELS)
        .map_or(0, |labels| labels.shape.first().copied().unwrap_or(0));
    if n == 0 || !(1..=MAX_WIDTH).contains(&d) {
        return Err(format!(
            "it has {n} classes and a width of {d}, not of 1 to {MAX_WIDTH}"
        ));
    }
    let needed = [
        (names::KEYS, m > 0),
        (names::LABELS, m > 0),
        (names::VIEWS, m > 0 && r > 1),
        (names::VALIDATION_FEATURES, q > 0),
    ];
    for (name, needed) in needed {
        if needed && file.get(name).is_none() {
            return Err(format!("tensor {name} is missing"));
        }
    }
    let expected: [(&str, Dtype, &[usize]); 14] = [
        (names::KEYS, Dtype::F32, &[m, d]),
        (names::LABELS, Dtype::I64, &[m]),
        (names::VIEWS, Dtype::F16, &[m, r, d]),
        (names::TEXT, Dtype::F32, &[n, d]),
        (names::VALIDATION_FEATURES, Dtype::F32, &[q, d]),
        (names::VALIDATION_LABELS, Dtype::I64, &[q]),
        (names::HEAD_LINEAR, Dtype::F32, &[n, d]),
        (names::HEAD_BIAS, Dtype::F32, &[n]),
        (names::HEAD_KEYS, Dtype::F32, &[m, d]),
        (names::HEAD_VALUES, Dtype::F32, &[m, n]),
        (names::HEAD_WEIGHT, Dtype::F32, &[n]),
        (names::HEAD_SHIFT, Dtype::F32, &[d]),
        (names::HEAD_SCALE, Dtype::F32, &[d]),
        (names::HEAD_STANDARDISED_LINEAR, Dtype::F32, &[n, d]),
    ];
    for (name, dtype, shape) in expected {
        if let Some(tensor) = file.get(name)
            && (tensor.dtype, tensor.shape) != (dtype, shape)
        {
            return Err(format!(
                "tensor {name} is {:?} {:?} instead of {dtype:?} {shape:?}",
                tensor.dtype, tensor.shape
            ));
        }
    }
    for (name, rows) in [(names::EXAMPLE_IDS, m), (names::VALIDATION_IDS, q)] {
        if let Some(column) = TextColumn::read(file, name)?
            && column.len() != rows
        {
            let ids = column.len();
            return Err(format!("{name} has {ids} ids for {rows} examples"));
        }
    }
    Ok(())
}

/// The values of an f32 tensor.
pub(super) fn floats(file: &TensorFile, name: &str) -> Vec<f32> {
    let bytes = file.get(name).map_or(&[][..], |tensor| tensor.bytes);
    let rows = bytes.as_chunks::<4>().0.iter();
    rows.map(|raw| f32::from_le_bytes(*raw)).collect()
}

/// The values of an f16 tensor.
pub(super) fn halves(file: &TensorFile, name: &str) -> Vec<f16> {
    let bytes = file.get(name).map_or(&[][..], |tensor| tensor.bytes);
    let rows = bytes.as_chunks::<2>().0.iter();
    rows.map(|raw| f16::from_le_bytes(*raw)).collect()
}

/// Class indices; an invalid one becomes one over every limit.
pub(super) fn labels(file: &TensorFile, name: &str) -> Vec<usize> {
    let bytes = file.get(name).map_or(&[][..], |tensor| tensor.bytes);
    let rows = bytes.as_chunks::<8>().0.iter();
    rows.map(|raw| usize::try_from(i64::from_le_bytes(*raw)).unwrap_or(usize::MAX))
        .collect()
}
