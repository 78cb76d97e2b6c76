//! Where things lie: the paths of objects, written and read.

use object_store::path::Path;

use super::name::{CacheId, VersionNumber};

/// Suffix of tensors files, before which stands `tensors-` and a nonce.
const TENSORS_SUFFIX: &str = ".safetensors";
const TENSORS_PREFIX: &str = "tensors-";
const MANIFEST: &str = "manifest.json";

/// What an object is, by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    /// A version's manifest.
    Manifest(VersionNumber),
    /// A tensors file, of that name, in a version's folder.
    Tensors(VersionNumber, String),
    /// A state record.
    State(u64),
    /// Nothing of ours.
    Other,
}

/// A random name part that no other writer has.
pub(crate) fn nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// The folder of all caches.
pub(crate) fn caches() -> Path {
    Path::from("caches")
}

/// The folder of a cache.
pub(crate) fn cache(id: &CacheId) -> Path {
    caches().join(id.as_str())
}

/// The folder of a version.
pub(crate) fn version(id: &CacheId, number: VersionNumber) -> Path {
    cache(id)
        .join("versions")
        .join(format!("{:08}", number.get()))
}

/// A version's manifest.
pub(crate) fn manifest(id: &CacheId, number: VersionNumber) -> Path {
    version(id, number).join(MANIFEST)
}

/// A file in a version's folder.
pub(crate) fn tensors(id: &CacheId, number: VersionNumber, name: &str) -> Path {
    version(id, number).join(name)
}

/// A new name for a tensors file.
pub(crate) fn tensors_name() -> String {
    format!("{TENSORS_PREFIX}{}{TENSORS_SUFFIX}", nonce())
}

/// Whether a manifest may name its tensors file so: never a path.
pub(crate) fn is_tensors_name(name: &str) -> bool {
    name.strip_prefix(TENSORS_PREFIX)
        .and_then(|rest| rest.strip_suffix(TENSORS_SUFFIX))
        .is_some_and(|nonce| !nonce.is_empty() && nonce.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// A state record.
pub(crate) fn state(id: &CacheId, sequence: u64) -> Path {
    cache(id).join("state").join(format!("{sequence:08}.json"))
}

fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number > 0 && format!("{number:08}") == text).then_some(number)
}

/// What lies at `path`, an object of the cache `id`.
pub(crate) fn classify(id: &CacheId, path: &Path) -> Object {
    let folder = cache(id);
    let Some(parts) = path.prefix_match(&folder) else {
        return Object::Other;
    };
    let parts: Vec<_> = parts.collect();
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    let found = match parts.as_slice() {
        ["versions", folder, file] => {
            let version = number(folder).and_then(VersionNumber::new);
            match (version, *file) {
                (Some(version), MANIFEST) => Some(Object::Manifest(version)),
                (Some(version), name) if is_tensors_name(name) => {
                    Some(Object::Tensors(version, name.to_owned()))
                }
                _ => None,
            }
        }
        ["state", file] => file
            .strip_suffix(".json")
            .and_then(number)
            .map(Object::State),
        _ => None,
    };
    found.unwrap_or(Object::Other)
}
