//! Entry points for the fuzz targets in `fuzz/`. Compiled under `--cfg
//! fuzzing`, and in tests, so that it keeps compiling.

// What must not happen ends the run.
#![allow(clippy::expect_used)]

use bytes::Bytes;

use super::{
    Imported, Manifest, StoreError, TensorFile, sealed::unseal, state::State, transfer::read_export,
};

/// Reads a store's records, sealed, and a state whose seal is taken for whole;
/// from one that makes sense, everything can be deleted.
///
/// # Panics
/// If it cannot.
pub fn records(text: &[u8]) {
    let _ = unseal::<Manifest>("fuzzed", "manifest.json", text);
    let _ = unseal::<State>("fuzzed", "state.json", text);
    if let Ok(mut state) = serde_json::from_slice::<State>(text) {
        let sensible = |state: &State| state.check(&state.cache, state.sequence).is_ok();
        if sensible(&state) {
            let next = state.highest().saturating_add(1);
            state.delete(1, next);
            assert!(sensible(&state) && state.highest() == next);
        }
    }
}

/// Reads an exported version.
///
/// # Errors
/// As [`super::Store::read_export`].
pub fn exported(file: &[u8]) -> Result<Imported, StoreError> {
    read_export(Bytes::copy_from_slice(file))
}

/// Reads a manifest and a tensors file whose seals are taken for whole.
pub fn version(manifest: &[u8], tensors: &[u8]) -> Option<Imported> {
    Some(Imported {
        manifest: serde_json::from_slice(manifest).ok()?,
        tensors: TensorFile::parse(Bytes::copy_from_slice(tensors)).ok()?,
    })
}
