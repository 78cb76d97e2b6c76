//! Checks of imported versions, before they are published: whether the tensors
//! fit the manifest and each other.

use std::collections::HashSet;

use tch::{Device, Kind, Tensor};

use super::{
    CatalogError, Classifier, MAX_ID_BYTES, MAX_MAGNITUDE, MAX_VIEWS, Purpose,
    columns::{check_shapes, classes_of, rows},
    finite::check_reach,
    notes, precision, printable, tensors,
};
use tip_adapter::{
    contrast::check_unit,
    drift::EDGES,
    material::Material,
    multi_label::{MultiLabelMaterial, label_rows},
};
use tipserve_store::{
    Details, Imported, PartWeight, StoreError, TensorFile, TextColumn, tensors::names,
};

/// What errors call the file.
const WHAT: &str = "the imported version";

/// What a server accepts of an imported version.
#[derive(Clone, Debug)]
pub struct ImportBounds {
    /// Most classes of one version.
    pub classes: usize,
    /// Most examples, those for validation included.
    pub examples: usize,
    /// Whether features of another bundle are accepted.
    pub other_bundle: bool,
    /// Who imports it, if that is known for sure; empty: the file's word is
    /// taken.
    pub created_by: String,
}

fn invalid(detail: impl ToString) -> CatalogError {
    StoreError::invalid(WHAT, detail).into()
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
    let classes = |purpose| classes_of(details, file, purpose).map_err(invalid);
    let (train, held) = (classes(Purpose::Training)?, classes(Purpose::Validation)?);
    let unknown = rows(file, names::UNKNOWN_FEATURES);
    let unlabelled = rows(file, names::UNLABELLED);
    let examples = train.len() + held.len() + unknown + unlabelled;
    bound("max_examples", examples, bounds.examples)?;
    if let Some(found) = &details.head.unlabelled
        && found.count != unlabelled
    {
        return Err(invalid(format!(
            "it holds {unlabelled} unlabelled pictures, its manifest says {}",
            found.count
        )));
    }
    if usize::try_from(details.views).is_ok_and(|views| views > MAX_VIEWS) {
        return Err(invalid(format!(
            "it has {} views of each example, not of 0 to {MAX_VIEWS}",
            details.views
        )));
    }
    check_texts(details)?;
    check_ids(file)?;
    check_notes(details, file, [train.len(), held.len(), unknown])?;
    check_numbers(details)?;

    precision::read(file, details.classes.len()).map_err(invalid)?;
    match &details.multi_label {
        Some(_) => check_multi_label(details, file, &train, &held)?,
        None => check_one_label(details, file)?,
    }
    check_counts(details, &train, &held)?;
    check_deciles(&details.nearest_deciles, details.nearest_sample)?;
    check_part_weights(details)?;
    check_contrast(
        details,
        tensors::read(file, names::UNKNOWN_FEATURES)?.as_ref(),
    )?;
    check_finite(file)?;
    // The loader's own checks, on the CPU: the device's memory is for what is
    // served.
    let head = Classifier::head_tensors(&imported.manifest, file)
        .map_err(|error| invalid(format!("it does not load: {error}")))?;
    check_reach(&details.head, &head).map_err(invalid)?;
    Classifier::load(imported.manifest.clone(), file, Device::Cpu)
        .map_err(|error| invalid(format!("it does not load: {error}")))?;
    Ok(())
}

/// The limits of drift's histogram: none, or nine that ascend.
fn check_deciles(edges: &[f64], sample: f64) -> Result<(), CatalogError> {
    if !(0.0..f64::INFINITY).contains(&sample) {
        return Err(invalid("its nearest_sample is not a number of examples"));
    }
    let are_deciles =
        edges.len() == EDGES && edges.is_sorted() && edges.iter().all(|edge| edge.is_finite());
    if edges.is_empty() || are_deciles {
        return Ok(());
    }
    Err(invalid(
        "its nearest_deciles are not nine ascending numbers",
    ))
}

/// Refuses a head with a NaN or an infinity.
fn check_finite(file: &TensorFile) -> Result<(), CatalogError> {
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
        if let Some(tensor) = tensors::read(file, name)? {
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
    Ok(())
}

/// Whether the weights of a joined bundle's encoders are those of its features.
fn check_part_weights(details: &Details) -> Result<(), CatalogError> {
    let parts = &details.part_weights;
    if parts.is_empty() {
        return Ok(());
    }
    let width = parts
        .iter()
        .try_fold(0_usize, |sum, part| sum.checked_add(part.width));
    let are_shares = |share: fn(&PartWeight) -> f64| {
        let sum: f64 = parts.iter().map(share).sum();
        parts.iter().all(|part| share(part) > 0.0) && (sum - 1.0).abs() < 1e-6
    };
    if width != Some(details.width)
        || !are_shares(|part| part.bundle)
        || !are_shares(|part| part.used)
    {
        return Err(invalid(
            "its part_weights are not over 0, do not sum to 1, or are not of its width",
        ));
    }
    Ok(())
}

/// Whether a head can be made from examples of one class each.
fn check_one_label(details: &Details, file: &TensorFile) -> Result<(), CatalogError> {
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
        unlabelled: read(names::UNLABELLED)?,
    };
    material.check().map_err(invalid)?;
    Ok(())
}

/// The same for examples with any number of classes.
fn check_multi_label(
    details: &Details,
    file: &TensorFile,
    train: &[Vec<usize>],
    held: &[Vec<usize>],
) -> Result<(), CatalogError> {
    bound(
        "max_multi_label_classes",
        details.classes.len(),
        super::MAX_MULTI_LABEL_CLASSES,
    )?;
    let beside = [names::TEXT, names::UNLABELLED];
    if details.contrast.is_some() || beside.iter().any(|name| file.get(name).is_some()) {
        return Err(invalid(
            "it has multi_label, and text weights, examples of no class or without labels beside it",
        ));
    }
    let rows = |of: &[Vec<usize>]| label_rows(details.classes.len(), of).map_err(invalid);
    let keys = tensors::read(file, names::KEYS)?.ok_or_else(|| invalid("it has no keys"))?;
    let material = MultiLabelMaterial {
        keys,
        labels: rows(train)?,
        validation: match tensors::read(file, names::VALIDATION_FEATURES)? {
            Some(features) => Some((features, rows(held)?)),
            None => None,
        },
        logit_scale: details.head.logit_scale,
        statistics: None,
    };
    material.check().map_err(invalid)
}

/// Whether the examples of no class are valid, and as many as the manifest
/// says.
fn check_contrast(details: &Details, unknown: Option<&Tensor>) -> Result<(), CatalogError> {
    let count = unknown.map_or(0, |rows| rows.size().first().copied().unwrap_or(0));
    if let Some(rows) = unknown {
        check_unit(rows).map_err(invalid)?;
    }
    let Some(contrast) = &details.contrast else {
        return Ok(());
    };
    if contrast.count as i64 != count || count == 0 {
        return Err(invalid(format!(
            "it holds {count} examples of no class, its manifest says {}",
            contrast.count
        )));
    }
    for (name, value, least) in [
        ("beta", contrast.beta, 0.0),
        ("weight", contrast.weight, 0.0),
        ("centre", contrast.centre, -MAX_MAGNITUDE),
    ] {
        if !(least..=MAX_MAGNITUDE).contains(&value) {
            return Err(invalid(format!(
                "contrast.{name} is {value}, not of {least:e} to {MAX_MAGNITUDE:e}"
            )));
        }
    }
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

/// Impossible numbers: JSON has no NaN, but it has 1e999 and −1.
fn check_numbers(details: &Details) -> Result<(), CatalogError> {
    let head = &details.head;
    for (name, value, least, most) in [
        // α itself is bounded by the logits that it leads to.
        ("alpha", head.alpha, 0.0, f64::MAX),
        ("beta", head.beta, 0.0, MAX_MAGNITUDE),
        ("lambda", head.lambda, 0.0, MAX_MAGNITUDE),
        ("logit_scale", head.logit_scale, f64::MIN_POSITIVE, f64::MAX),
        ("temperature", head.temperature, f64::MIN_POSITIVE, f64::MAX),
    ] {
        if !(least..=most).contains(&value) {
            return Err(invalid(format!(
                "head.{name} is {value}, not of {least:e} to {most:e}"
            )));
        }
    }
    Ok(())
}

/// Ids, by the rules of versions that are made here.
fn check_ids(file: &TensorFile) -> Result<(), CatalogError> {
    let mut seen = HashSet::new();
    for name in [
        names::EXAMPLE_IDS,
        names::VALIDATION_IDS,
        names::UNKNOWN_IDS,
    ] {
        let Some(column) = TextColumn::read(file, name).map_err(invalid)? else {
            continue;
        };
        for id in (0..column.len()).filter_map(|row| column.get(row)) {
            bound("max_id_bytes", id.len(), MAX_ID_BYTES)?;
            printable::check(id)
                .map_err(|reason| invalid(format!("example id {id:?} {reason}")))?;
            if !seen.insert(id.to_owned()) {
                return Err(invalid(format!("two examples have the id {id:?}")));
            }
        }
    }
    Ok(())
}

/// Examples' addresses and metadata, by the rules of versions that are made
/// here.
fn check_notes(
    details: &Details,
    file: &TensorFile,
    [train, held, unknown]: [usize; 3],
) -> Result<(), CatalogError> {
    let of_training = notes::check(file, notes::TRAINING, train).map_err(invalid)?;
    let of_validation = notes::check(file, notes::VALIDATION, held).map_err(invalid)?;
    let of_unknown = notes::check(file, notes::UNKNOWN, unknown).map_err(invalid)?;
    match of_training + of_validation + of_unknown {
        found if found == details.pictures => Ok(()),
        found => Err(invalid(format!(
            "it holds {found} pictures, its manifest says {}",
            details.pictures
        ))),
    }
}

fn check_texts(details: &Details) -> Result<(), CatalogError> {
    for (index, class) in details.classes.iter().enumerate() {
        printable::check(&class.display_name)
            .map_err(|reason| invalid(format!("the name of class {index} {reason}")))?;
    }
    let labels = details.labels.iter();
    let texts = labels.flat_map(|(key, value)| [("a label's key", key), ("a label", value)]);
    let others = [
        ("created_by", &details.created_by),
        ("bundle_name", &details.bundle_name),
    ];
    for (what, text) in texts.chain(others) {
        printable::check(text).map_err(|reason| invalid(format!("{what} {reason}")))?;
    }
    printable::check_lines(&details.description)
        .map_err(|reason| invalid(format!("the description {reason}")))?;
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

fn check_counts(
    details: &Details,
    train: &[Vec<usize>],
    held: &[Vec<usize>],
) -> Result<(), CatalogError> {
    let mut counts = vec![(0_u64, 0_u64); details.classes.len()];
    for class in train.iter().flatten() {
        if let Some(count) = counts.get_mut(*class) {
            count.0 += 1;
        }
    }
    for class in held.iter().flatten() {
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

    /// Found by fuzzing: a width that no tensor holds and torch cannot
    /// represent.
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
