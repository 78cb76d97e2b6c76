//! Reading a local file whole: mapped, if it is large.

// A mapping is sound only while nobody changes the file.
#![allow(unsafe_code)]

use std::{fs::File, io};

use bytes::Bytes;

/// Local files up to this size are read rather than mapped: a mapping saves
/// nothing there, and only a mapping suffers when the file is cut while in use.
const MAP_FROM_BYTES: u64 = 16 << 20;

/// Whether a local file of this size is mapped.
pub(crate) fn is_mapped(bytes: u64) -> bool {
    bytes > MAP_FROM_BYTES
}

pub(crate) fn read_file(path: &std::path::Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    if !is_mapped(file.metadata()?.len()) {
        return std::fs::read(path).map(Bytes::from);
    }
    // SAFETY: a version's files are immutable from the moment they have their
    // name: this store never writes to one again, and deletion only unlinks it,
    // which leaves the mapping whole. Changing a mapped file from outside
    // breaks the store's documented rule (docs/storage.md).
    let map = unsafe { memmap2::Mmap::map(&file)? };
    Ok(Bytes::from_owner(map))
}
