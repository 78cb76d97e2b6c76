//! An entry for the fuzz targets in `fuzz/`. Compiled under `--cfg fuzzing`,
//! and in tests, so that it keeps compiling.

// What must not happen ends the run.
#![allow(clippy::expect_used)]

use tch::{Device, Kind, Tensor};

use super::{Classifier, ImportBounds, check::check_version};
use tipserve_store::Imported;

/// Checks a version as `ImportVersion` does. A version that passes must load
/// and serve.
///
/// # Panics
/// If it does not.
pub fn check(imported: &Imported) {
    let bounds = ImportBounds {
        classes: 1000,
        examples: 1000,
        other_bundle: true,
        created_by: String::new(),
    };
    if check_version(imported, None, &bounds).is_err() {
        return;
    }
    let classifier = Classifier::load(imported.manifest.clone(), &imported.tensors, Device::Cpu)
        .expect("what was checked loads");
    let width = classifier.width() as i64;
    let feature = Tensor::full(
        [1, width],
        (width as f64).sqrt().recip(),
        (Kind::Float, Device::Cpu),
    );
    let logits = classifier.head.logits(&feature).expect("what loads serves");
    assert_eq!(logits.size(), [1, classifier.classes() as i64]);
}
