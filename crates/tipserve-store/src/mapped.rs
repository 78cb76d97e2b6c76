//! Reading a local file whole: mapped, if it is large.

// A mapping is sound only while nobody changes the file.
#![allow(unsafe_code)]

use std::{fs::File, io};

use bytes::Bytes;

/// Local files up to this size are read rather than mapped: a mapping saves
/// nothing there, and only a mapping suffers when the file is cut while in use.
const MAP_FROM_BYTES: u64 = 16 << 20;

pub(crate) fn read_file(path: &std::path::Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    if file.metadata()?.len() <= MAP_FROM_BYTES {
        return std::fs::read(path).map(Bytes::from);
    }
    // SAFETY: a version's files are immutable from the moment they have their
    // name: this store never writes to one again, and deletion only unlinks it,
    // which leaves the mapping whole. Changing a mapped file from outside
    // breaks the store's documented rule (docs/storage.md).
    let map = unsafe { memmap2::Mmap::map(&file)? };
    Ok(Bytes::from_owner(map))
}
