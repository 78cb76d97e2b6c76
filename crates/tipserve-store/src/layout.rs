//! The paths of objects, written and parsed.

use object_store::path::Path;
use sha2::{Digest as _, Sha256};

use super::{
    name::{CacheId, VersionNumber},
    sealed::hex,
};

/// Suffix of tensors files, before which stands `tensors-` and a nonce.
const TENSORS_SUFFIX: &str = ".safetensors";
const TENSORS_PREFIX: &str = "tensors-";
const MANIFEST: &str = "manifest.json";
const NOTICE_PREFIX: &str = "sweep-";
/// Digits of a writer's nonce; in a tensors file's name those of the request
/// id's hash may follow.
const NONCE_DIGITS: usize = 32;
/// Digits of a nonce in a high-water mark, and in a record's ancestry.
pub(crate) const SHORT_NONCE: usize = 12;

/// What an object is, by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    /// The manifest of a version.
    Manifest(VersionNumber),
    /// A tensors file, of that name, in a version's folder.
    Tensors(VersionNumber, String),
    /// A state record, by its sequence number.
    State(u64),
    /// A high-water mark: see [`Mark`].
    Mark(Mark),
    /// A sweep's notice that it is about to remove the tensors file of that
    /// name.
    Notice(VersionNumber, String),
    /// Nothing that this store writes.
    Other,
}

/// What once existed, recorded in an object's name alone: damage to its bytes
/// loses nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    /// There was a state record of this sequence; 0: none yet.
    pub(crate) sequence: u64,
    /// There was a version of this number; 0: none yet.
    pub(crate) number: u64,
    /// Begins the nonce of that state record; "0" if there was none.
    pub(crate) nonce: String,
}

impl Mark {
    pub(crate) fn new(sequence: u64, number: u64, nonce: &str) -> Self {
        Self {
            sequence,
            number,
            nonce: short(nonce),
        }
    }

    fn name(&self) -> String {
        format!("{:08}-{:08}-{}", self.sequence, self.number, self.nonce)
    }

    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, '-');
        let mut count = || parts.next().filter(|p| p.len() >= 8)?.parse().ok();
        let (sequence, number) = (count()?, count()?);
        let mark = Self::new(sequence, number, parts.next()?);
        (mark.name() == name && number < u64::MAX).then_some(mark)
    }
}

/// A nonce shortened to a few letters and digits; "0" for an empty one.
pub(crate) fn short(nonce: &str) -> String {
    let plain = nonce.bytes().all(|b| b.is_ascii_alphanumeric());
    let mut short = match plain {
        true => nonce.to_owned(),
        false => hex(&Sha256::digest(nonce)),
    };
    short.truncate(SHORT_NONCE);
    match short.is_empty() {
        true => "0".to_owned(),
        false => short,
    }
}

/// Random bits as a name part that no other writer has.
pub(crate) fn nonce(random: u128) -> String {
    format!("{random:0NONCE_DIGITS$x}")
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

/// The path of a version's manifest.
pub(crate) fn manifest(id: &CacheId, number: VersionNumber) -> Path {
    version(id, number).join(MANIFEST)
}

/// A file in a version's folder.
pub(crate) fn tensors(id: &CacheId, number: VersionNumber, name: &str) -> Path {
    version(id, number).join(name)
}

/// A new name for a tensors file. With a request id it ends in the id's hash,
/// so that a listing shows which version a request has made.
pub(crate) fn tensors_name(random: u128, request_id: Option<&str>) -> String {
    let (nonce, request) = (nonce(random), request_id.map(request_hash));
    let request = request.unwrap_or_default();
    format!("{TENSORS_PREFIX}{nonce}{request}{TENSORS_SUFFIX}")
}

pub(crate) fn request_hash(request_id: &str) -> String {
    let mut digits = hex(&Sha256::digest(request_id));
    digits.truncate(NONCE_DIGITS);
    digits
}

/// Whether a tensors file of this name was written for a request.
pub(crate) fn is_of_request(name: &str, request_id: &str) -> bool {
    name.strip_prefix(TENSORS_PREFIX)
        .and_then(|rest| rest.strip_suffix(TENSORS_SUFFIX))
        .and_then(|digits| digits.get(NONCE_DIGITS..))
        .is_some_and(|request| request == request_hash(request_id))
}

/// A sweep's notice that it is about to remove a tensors file.
pub(crate) fn notice(
    id: &CacheId,
    number: VersionNumber,
    tensors_name: &str,
    sweeper: &str,
) -> Path {
    version(id, number).join(format!("{NOTICE_PREFIX}{}-{tensors_name}", short(sweeper)))
}

/// The path of one of a cache's high-water marks.
pub(crate) fn mark(id: &CacheId, mark: &Mark) -> Path {
    cache(id).join("high-water").join(mark.name())
}

/// The folder of a deleted cache's tombstones.
pub(crate) fn tombstones(id: &CacheId) -> Path {
    Path::from(TOMBSTONES).join(id.as_str())
}

/// The folder of all tombstones.
pub(crate) const TOMBSTONES: &str = "tombstones";

/// What is left of a deleted cache: its last state record, under a name that
/// tells the most of it.
pub(crate) fn tombstone(id: &CacheId, mark: &Mark) -> Path {
    tombstones(id).join(format!("{}.json", mark.name()))
}

/// What a tombstone's name tells.
pub(crate) fn read_tombstone(path: &Path) -> Option<Mark> {
    Mark::parse(path.filename()?.strip_suffix(".json")?)
}

/// The folder of all runs' records.
pub(crate) fn runs() -> Path {
    Path::from("runs")
}

/// The folder of a run's records.
pub(crate) fn run_folder(run: &str) -> Path {
    runs().join(run)
}

/// The path of one record of a run.
pub(crate) fn run(run: &str, sequence: u64) -> Path {
    run_folder(run).join(format!("{sequence:08}.json"))
}

/// Which record of which run is at `path`.
pub(crate) fn classify_run(path: &Path) -> Option<(String, u64)> {
    let parts: Vec<_> = path.parts().collect();
    let [folder, run, file] = parts.as_slice() else {
        return None;
    };
    let sequence = file.as_ref().strip_suffix(".json").and_then(number)?;
    (folder.as_ref() == "runs").then(|| (run.as_ref().to_owned(), sequence))
}

/// The folder of objects that the storage's time was read from.
pub(crate) fn clock_probes() -> Path {
    Path::from("clock")
}

/// A new object to read the storage's time from.
pub(crate) fn clock_probe(nonce: &str) -> Path {
    clock_probes().join(nonce)
}

/// Whether a manifest may give its tensors file this name: never a path.
pub(crate) fn is_tensors_name(name: &str) -> bool {
    name.strip_prefix(TENSORS_PREFIX)
        .and_then(|rest| rest.strip_suffix(TENSORS_SUFFIX))
        .is_some_and(|nonce| !nonce.is_empty() && nonce.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// The path of one of a cache's state records.
pub(crate) fn state(id: &CacheId, sequence: u64) -> Path {
    cache(id).join("state").join(format!("{sequence:08}.json"))
}

fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number > 0 && format!("{number:08}") == text).then_some(number)
}

/// What is at `path`, an object of the cache `id`.
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
                (Some(version), name) => name
                    .strip_prefix(NOTICE_PREFIX)
                    .and_then(|rest| rest.split_once('-'))
                    .filter(|(_, tensors)| is_tensors_name(tensors))
                    .map(|(_, tensors)| Object::Notice(version, tensors.to_owned())),
                _ => None,
            }
        }
        ["state", file] => file
            .strip_suffix(".json")
            .and_then(number)
            .map(Object::State),
        ["high-water", name] => Mark::parse(name).map(Object::Mark),
        _ => None,
    };
    found.unwrap_or(Object::Other)
}
