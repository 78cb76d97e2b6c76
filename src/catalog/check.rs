//! Whether a version's tensors fit its manifest and each other: for what comes
//! from outside, before it is published.

use tch::{Device, Kind, Tensor};

use super::{CatalogError, Classifier, add::labels, tensors, versions::ImportBounds};
use tip_adapter::material::Material;
use tipserve_clip::bundle::MAX_WIDTH;
use tipserve_store::{
    Details, Dtype, Imported, StoreError, TensorFile, TextColumn, tensors::names,
};

/// What errors call the file.
const WHAT: &str = "the imported version";

fn invalid(detail: impl ToString) -> CatalogError {
    StoreError::invalid(WHAT, detail).into()
}

/// Whether every tensor that the manifest speaks of is there, in its dtype and
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

/// Whether an imported version makes sense as a whole and can be served: all
/// that is known of versions made here is checked, last that it loads. Blocks;
/// takes the memory of the version for a while. `width` is that of this
/// server's bundle, where it made the features.
///
/// # Errors
/// What is wrong with it, or the bound that it passes.
pub(super) fn check_version(
    imported: &Imported,
    width: Option<usize>,
    bounds: &ImportBounds,
) -> Result<(), CatalogError> {
    let (details, file) = (&imported.manifest.details, &imported.tensors);
    if let Some(width) = width.filter(|width| *width != details.width) {
        return Err(invalid(format!(
            "it is {} wide, the bundle that it names {width}",
            details.width
        )));
    }
    bound("max_classes", details.classes.len(), bounds.classes)?;
    check_shapes(details, file).map_err(invalid)?;
    let (train, held) = (
        labels(file, names::LABELS),
        labels(file, names::VALIDATION_LABELS),
    );
    bound("max_examples", train.len() + held.len(), bounds.examples)?;
    check_texts(details)?;
    check_numbers(details)?;

    let read = |name: &str| tensors::read(file, name);
    let none = || Tensor::zeros([0, details.width as i64], (Kind::Float, Device::Cpu));
    let material = Material {
        keys: read(names::KEYS)?.unwrap_or_else(none),
        labels: read(names::LABELS)?
            .unwrap_or_else(|| Tensor::zeros([0], (Kind::Int64, Device::Cpu))),
        classes: details.classes.len(),
        views: read(names::VIEWS)?,
        text: read(names::TEXT)?,
        validation: read(names::VALIDATION_FEATURES)?.zip(read(names::VALIDATION_LABELS)?),
        logit_scale: details.head.logit_scale,
        statistics: None,
    };
    material.check().map_err(invalid)?;
    check_counts(details, &train, &held)?;
    for name in [
        names::HEAD_LINEAR,
        names::HEAD_BIAS,
        names::HEAD_KEYS,
        names::HEAD_VALUES,
        names::HEAD_WEIGHT,
        names::HEAD_SHIFT,
        names::HEAD_SCALE,
        names::HEAD_STANDARDISED_LINEAR,
    ] {
        if let Some(tensor) = read(name)? {
            let finite = tensor
                .f_sum(Kind::Double)
                .and_then(|sum| sum.f_double_value(&[]))
                .map_err(CatalogError::internal)?
                .is_finite();
            if !finite {
                return Err(invalid(format!("tensor {name} is not finite")));
            }
        }
    }
    // The loader's own checks, on the CPU: the device's memory is for what is
    // served.
    Classifier::load(imported.manifest.clone(), file, Device::Cpu)
        .map_err(|error| invalid(format!("it does not load: {error}")))?;
    Ok(())
}

fn bound(limit: &'static str, value: usize, maximum: usize) -> Result<(), CatalogError> {
    if value <= maximum {
        return Ok(());
    }
    Err(CatalogError::OverLimit {
        what: WHAT.to_owned(),
        limit,
        maximum: maximum as u64,
        value: value as u64,
    })
}

/// Numbers that cannot be: JSON has no NaN, but it has 1e999 and −1.
fn check_numbers(details: &Details) -> Result<(), CatalogError> {
    let head = &details.head;
    for (name, value, positive) in [
        ("alpha", head.alpha, false),
        ("beta", head.beta, false),
        ("lambda", head.lambda, false),
        ("logit_scale", head.logit_scale, true),
        ("temperature", head.temperature, true),
    ] {
        if !value.is_finite() || value < 0.0 || (positive && value == 0.0) {
            return Err(invalid(format!("head.{name} is {value}")));
        }
    }
    Ok(())
}

fn check_texts(details: &Details) -> Result<(), CatalogError> {
    let names = details.classes.iter().map(|class| &class.display_name);
    let longest = names.map(String::len).max().unwrap_or(0);
    bound("max_name_bytes", longest, super::MAX_NAME_BYTES)?;
    bound(
        "max_description_bytes",
        details.description.len(),
        super::MAX_DESCRIPTION_BYTES,
    )?;
    bound(
        "max_created_by_bytes",
        details.created_by.len(),
        super::MAX_CREATED_BY_BYTES,
    )?;
    bound("max_labels", details.labels.len(), super::MAX_LABELS)
}

fn check_counts(details: &Details, train: &[usize], held: &[usize]) -> Result<(), CatalogError> {
    let mut counts = vec![(0_u64, 0_u64); details.classes.len()];
    for class in train {
        if let Some(count) = counts.get_mut(*class) {
            count.0 += 1;
        }
    }
    for class in held {
        if let Some(count) = counts.get_mut(*class) {
            count.1 += 1;
        }
    }
    for (index, (class, found)) in details.classes.iter().zip(counts).enumerate() {
        let said = (class.example_count, class.validation_count);
        if said != found {
            return Err(invalid(format!(
                "class {index} has {} training and {} validation examples, its manifest says \
                 {} and {}",
                found.0, found.1, said.0, said.1
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// Found by fuzzing: no tensor holds the width, which is none of torch's.
    const WIDE: &[u8] = br#"{
        "format": 1, "cache": "x", "version": 1, "create_time": "2026-01-02T03:04:05Z",
        "classes": [{"display_name": "one", "example_count": 0}],
        "width": 9223372036854775808, "key_count": 0, "views": 1, "bundle_fingerprint": "",
        "head": {
            "method": "tip_adapter", "alpha": 1.0, "beta": 1.0, "lambda": 0.0,
            "logit_scale": 100.0, "class_balance": "sum", "temperature": 1.0, "key_dtype": "f32",
            "selection": {
                "source": "given", "example_count": 0, "score": "none", "grid": "none",
                "candidates": [], "reason": "given"
            }
        },
        "tensors": {"name": "tensors.safetensors", "size": 16, "sha256": ""}
    }"#;

    #[test]
    fn a_width_without_tensors_has_a_limit() {
        let imported = Imported {
            manifest: serde_json::from_slice(WIDE).expect("a manifest"),
            tensors: TensorFile::parse(Bytes::from_static(b"\x08\0\0\0\0\0\0\0{}      "))
                .expect("a file of no tensors"),
        };
        let bounds = ImportBounds {
            classes: 10,
            examples: 10,
            other_bundle: true,
            created_by: String::new(),
        };
        let error = check_version(&imported, None, &bounds).expect_err("refused");
        assert!(error.to_string().contains("9223372036854775808"), "{error}");
    }
}
