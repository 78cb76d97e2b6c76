//! Doors for the fuzz targets in `fuzz/`. Compiled under `--cfg fuzzing` alone.

use bytes::Bytes;

use super::{
    Imported, Manifest, StoreError, TensorFile, sealed::unseal, state::State, transfer::read_export,
};

/// Reads a store's records, sealed, and a state whose seal is taken for whole.
pub fn records(text: &[u8]) {
    let _ = unseal::<Manifest>("fuzzed", "manifest.json", text);
    let _ = unseal::<State>("fuzzed", "state.json", text);
    let _ = serde_json::from_slice::<State>(text);
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
