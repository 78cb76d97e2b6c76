//! A version's tensors, read from its file without torch.
//!
//! The readers take tensors of the dtypes that [`check_shapes`] found; an
//! absent tensor is empty.

use half::f16;

use super::{Purpose, label_sets};

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
    let many = details.multi_label.is_some();
    let q = rows(file, names::VALIDATION_LABELS).max(rows(file, names::VALIDATION_FEATURES));
    let u = rows(file, names::UNKNOWN_FEATURES);
    let unlabelled = rows(file, names::UNLABELLED);
    if n == 0 || !(1..=MAX_WIDTH).contains(&d) {
        return Err(format!(
            "it has {n} classes and a width of {d}, not of 1 to {MAX_WIDTH}"
        ));
    }
    let needed = [
        (names::KEYS, m > 0),
        (names::LABELS, m > 0 && !many),
        (names::VIEWS, m > 0 && r > 1),
        (names::VALIDATION_FEATURES, q > 0),
        (names::VALIDATION_LABELS, q > 0 && !many),
    ];
    for (name, needed) in needed {
        if needed && file.get(name).is_none() {
            return Err(format!("tensor {name} is missing"));
        }
    }
    let expected: [(&str, Dtype, &[usize]); 16] = [
        (names::KEYS, Dtype::F32, &[m, d]),
        (names::LABELS, Dtype::I64, &[m]),
        (names::VIEWS, Dtype::F16, &[m, r, d]),
        (names::TEXT, Dtype::F32, &[n, d]),
        (names::VALIDATION_FEATURES, Dtype::F32, &[q, d]),
        (names::VALIDATION_LABELS, Dtype::I64, &[q]),
        (names::UNKNOWN_FEATURES, Dtype::F32, &[u, d]),
        (names::UNLABELLED, Dtype::F32, &[unlabelled, d]),
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
    if let Some(spec) = &details.multi_label {
        if spec.thresholds.len() != n || !spec.thresholds.iter().all(|t| t.is_finite()) {
            return Err(format!(
                "it has {} thresholds for {n} classes, or ones that are not finite",
                spec.thresholds.len()
            ));
        }
        label_sets::read(file, label_sets::TRAINING, m, n)?;
        label_sets::read(file, label_sets::VALIDATION, q, n)?;
    }
    for (name, rows) in [
        (names::EXAMPLE_IDS, m),
        (names::VALIDATION_IDS, q),
        (names::UNKNOWN_IDS, u),
    ] {
        if let Some(column) = TextColumn::read(file, name)?
            && column.len() != rows
        {
            let ids = column.len();
            return Err(format!("{name} has {ids} ids for {rows} examples"));
        }
    }
    Ok(())
}

/// The classes of training or validation examples: one each, or any number if
/// the version has several labels per example.
///
/// # Errors
/// The reason, in words, if the tensors are not valid.
pub(super) fn classes_of(
    details: &Details,
    file: &TensorFile,
    purpose: Purpose,
) -> Result<Vec<Vec<usize>>, String> {
    let (features, one, many) = match purpose {
        Purpose::Training => (names::KEYS, names::LABELS, label_sets::TRAINING),
        Purpose::Validation => (
            names::VALIDATION_FEATURES,
            names::VALIDATION_LABELS,
            label_sets::VALIDATION,
        ),
        Purpose::Unknown => return Ok(vec![Vec::new(); rows(file, names::UNKNOWN_FEATURES)]),
        Purpose::Unlabelled => return Ok(vec![Vec::new(); rows(file, names::UNLABELLED)]),
    };
    if details.multi_label.is_some() {
        return label_sets::read(file, many, rows(file, features), details.classes.len());
    }
    Ok(labels(file, one)
        .into_iter()
        .map(|class| vec![class])
        .collect())
}

/// Rows of a tensor; 0 of an absent one.
pub(super) fn rows(file: &TensorFile, name: &str) -> usize {
    let shape = file.get(name).map(|tensor| tensor.shape);
    shape.and_then(|shape| shape.first().copied()).unwrap_or(0)
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
