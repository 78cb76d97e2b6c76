//! The chunks of PNG and RIFF (WebP) files, walked without decoding anything.

/// A chunk, its checksum neither included nor checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk<'a> {
    pub kind: &'a [u8; 4],
    pub data: &'a [u8],
    /// Where the chunk after it begins.
    pub end: usize,
}

/// A PNG's chunks, as far as they are whole.
pub(super) fn png(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut at = 8;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..)?;
        let (size, rest) = rest.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first_chunk::<4>()?;
        let size = u32::from_be_bytes(*size) as usize;
        let data = rest.get(..size)?;
        // Four more bytes are the checksum.
        let end = at.checked_add(size)?.checked_add(12)?;
        bytes.get(at..end)?;
        at = end;
        Some(Chunk { kind, data, end })
    })
}

/// A WebP's chunks, as far as they are whole.
pub(super) fn riff(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut at = 12_usize;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..)?;
        let (kind, rest) = rest.split_first_chunk::<4>()?;
        let (size, rest) = rest.split_first_chunk::<4>()?;
        let size = u32::from_le_bytes(*size) as usize;
        let data = rest.get(..size)?;
        // Chunks begin at even places.
        at = at.checked_add(size)?.checked_add(size % 2 + 8)?;
        Some(Chunk {
            kind,
            data,
            end: at,
        })
    })
}
