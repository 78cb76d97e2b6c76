//! Thumbnails of a version's examples: three tensors of its file, read one
//! picture at a time.

use std::ops::Range;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{
    Dtype, NamedTensor, Store, StoreError, TensorFile, layout, manifest::Manifest, sealed::hex,
};

/// Length of a SHA-256 digest, in bytes.
const DIGEST: usize = 32;

/// One small picture file an example, as three tensors: `NAME.bytes` u8
/// [total], all files one after the other; `NAME.offsets` i64 [n + 1]: file i is
/// `bytes[offsets[i]..offsets[i + 1]]`, and none if that is empty;
/// `NAME.sha256` u8 [n, 32], so that one file can be fetched and checked without
/// the others. Holds where they lie, not the pictures.
#[derive(Clone, Debug)]
pub struct PictureColumn {
    offsets: Vec<u64>,
    digests: Vec<[u8; DIGEST]>,
    /// Where `NAME.bytes` begins in the version's file.
    start: u64,
}

/// Where one picture is stored in its version's file, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PicturePlace {
    range: Range<u64>,
    digest: [u8; DIGEST],
}

impl PictureColumn {
    /// The three tensors of a column; an empty slice stands for no picture.
    pub fn encode<B: AsRef<[u8]>>(
        name: &str,
        pictures: impl IntoIterator<Item = B>,
    ) -> [NamedTensor; 3] {
        let (mut bytes, mut digests) = (Vec::new(), Vec::new());
        let mut offsets = 0_i64.to_le_bytes().to_vec();
        for picture in pictures {
            let picture = picture.as_ref();
            bytes.extend_from_slice(picture);
            offsets.extend_from_slice(&(bytes.len() as i64).to_le_bytes());
            digests.extend_from_slice(&Sha256::digest(picture));
        }
        let tensor = |part: &str, dtype, shape, bytes: Vec<u8>| NamedTensor {
            name: format!("{name}.{part}"),
            dtype,
            shape,
            bytes: bytes.into(),
        };
        let count = digests.len() / DIGEST;
        [
            tensor("bytes", Dtype::U8, vec![bytes.len()], bytes),
            tensor("offsets", Dtype::I64, vec![count + 1], offsets),
            tensor("sha256", Dtype::U8, vec![count, DIGEST], digests),
        ]
    }

    /// The column of that name; `Ok(None)` if the file has none. Does not
    /// look at the pictures themselves.
    ///
    /// # Errors
    /// The reason, in words, where the three tensors do not fit each other.
    pub fn read(file: &TensorFile, name: &str) -> Result<Option<Self>, String> {
        let part = |part: &str| format!("{name}.{part}");
        let (Some(bytes), Some(index), Some(digests)) = (
            file.get(&part("bytes")),
            file.get(&part("offsets")),
            file.get(&part("sha256")),
        ) else {
            return Ok(None);
        };
        let place = file.place(&part("bytes")).unwrap_or_default();
        let count = digests.shape.first().copied().unwrap_or(0);
        let fits = bytes.dtype == Dtype::U8
            && index.dtype == Dtype::I64
            && digests.dtype == Dtype::U8
            && index.shape.len() == 1
            && index.shape.first().copied() == count.checked_add(1)
            && digests.shape == [count, DIGEST];
        if !fits {
            return Err(format!("{name} is not a column of pictures"));
        }
        let mut offsets = Vec::with_capacity(count.saturating_add(1));
        let mut last = 0;
        for raw in index.bytes.as_chunks::<8>().0 {
            let offset = u64::try_from(i64::from_le_bytes(*raw)).unwrap_or(u64::MAX);
            if offset < last || (offsets.is_empty() && offset != 0) {
                return Err(format!("{name}.offsets is out of order at {offset}"));
            }
            last = offset;
            offsets.push(offset);
        }
        if last != place.end.saturating_sub(place.start) {
            return Err(format!("{name}.offsets does not cover {name}.bytes"));
        }
        Ok(Some(Self {
            offsets,
            digests: digests.bytes.as_chunks::<DIGEST>().0.to_vec(),
            start: place.start,
        }))
    }

    /// How many examples it speaks of, those without a picture included.
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// Whether it speaks of none.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Where the picture of example `i` lies; none if it has none.
    pub fn place(&self, i: usize) -> Option<PicturePlace> {
        let (from, to) = (*self.offsets.get(i)?, *self.offsets.get(i.checked_add(1)?)?);
        (from < to).then_some(PicturePlace {
            range: self.start.checked_add(from)?..self.start.checked_add(to)?,
            digest: *self.digests.get(i)?,
        })
    }

    /// The picture of example `i`, sharing the memory of the file that the
    /// column was read from.
    pub fn get(&self, file: &TensorFile, i: usize) -> Option<Bytes> {
        file.slice(&self.place(i)?.range)
    }
}

impl PicturePlace {
    /// Size of the picture, bytes.
    pub fn size(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Whether these are the picture's bytes.
    pub fn is(&self, bytes: &[u8]) -> bool {
        Sha256::digest(bytes).as_slice() == self.digest
    }
}

impl Store {
    /// One picture of a version, fetched alone and checked against its own
    /// SHA-256. The place is one that the version's column gave.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where the bytes are others by now, or gone;
    /// [`StoreError::Unavailable`].
    pub async fn read_picture(
        &self,
        manifest: &Manifest,
        place: &PicturePlace,
    ) -> Result<Bytes, StoreError> {
        let path = layout::tensors(&manifest.cache, manifest.version, &manifest.tensors.name);
        let damaged = |detail: String| {
            StoreError::damaged(manifest.resource_name(), format!("{path}: {detail}"))
        };
        let bytes = self
            .backend
            .read_range(&path, place.range.clone())
            .await?
            .ok_or_else(|| damaged("it is missing".into()))?;
        if !place.is(&bytes) {
            let (found, expected) = (hex(&Sha256::digest(&bytes)), hex(&place.digest));
            return Err(damaged(format!(
                "a picture's SHA-256 is {found} instead of {expected}"
            )));
        }
        Ok(bytes)
    }
}
