//! Tensors as named arrays in a safetensors file: written and read without
//! copying them.

use std::{collections::HashMap, ops::Range};

use bytes::Bytes;
use safetensors::{
    SafeTensors,
    tensor::{Metadata, TensorInfo},
};
use sha2::{Digest as _, Sha256};

use super::{StoreError, sealed::hex};

pub use safetensors::Dtype;

pub mod names;

/// Largest header that safetensors allows, bytes.
const MAX_HEADER: usize = 100_000_000;

/// Most bytes hashed between two chances for others to run.
const HASH_STEP: usize = 1 << 20;

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct NamedTensor {
    /// Its name in the file.
    pub name: String,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements, row-major and little-endian.
    pub bytes: Bytes,
}

/// A tensor as stored in a file.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// Type of the elements.
    pub dtype: Dtype,
    /// Shape; empty for a scalar.
    pub shape: &'a [usize],
    /// Elements, row-major, little-endian. Aligned to their size where the
    /// file was written by this store; do not rely on it after an import.
    pub bytes: &'a [u8],
}

/// A checked safetensors file in memory or mapped.
#[derive(Clone, Debug)]
pub struct TensorFile {
    bytes: Bytes,
    data_start: usize,
    infos: HashMap<String, TensorInfo>,
    metadata: HashMap<String, String>,
}

/// A safetensors file about to be written: header and tensors, uncopied.
#[derive(Debug)]
pub(crate) struct EncodedTensors {
    pub(crate) chunks: Vec<Bytes>,
    pub(crate) size: u64,
    pub(crate) sha256: String,
}

fn element_bytes(dtype: Dtype) -> usize {
    dtype.bitsize().div_ceil(8)
}

/// The header of a safetensors file: its length, then JSON padded to 8 bytes.
pub(crate) fn header(
    metadata: Option<HashMap<String, String>>,
    infos: Vec<(String, TensorInfo)>,
) -> Result<Bytes, StoreError> {
    let what = "tensors";
    let metadata = Metadata::new(metadata, infos).map_err(|e| StoreError::invalid(what, e))?;
    let mut json = serde_json::to_vec(&metadata).map_err(|e| StoreError::invalid(what, e))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    if json.len() > MAX_HEADER {
        return Err(StoreError::TooLarge {
            what: "the header of the tensors file".into(),
            size: json.len() as u64,
            limit: MAX_HEADER as u64,
        });
    }
    let mut out = (json.len() as u64).to_le_bytes().to_vec();
    out.append(&mut json);
    Ok(out.into())
}

/// SHA-256 over chunks, lower-case hex. Takes CPU time in proportion to size.
pub(crate) fn sha256(chunks: &[Bytes]) -> String {
    let mut hasher = Sha256::new();
    for chunk in chunks {
        for part in chunk.chunks(HASH_STEP) {
            hasher.update(part);
        }
    }
    hex(&hasher.finalize())
}

impl EncodedTensors {
    /// Lays `tensors` out, widest elements first (so that every tensor is
    /// aligned), by name within a width. Blocks for the time of one SHA-256.
    pub(crate) fn new(mut tensors: Vec<NamedTensor>) -> Result<Self, StoreError> {
        tensors.sort_by(|a, b| {
            let width = |t: &NamedTensor| std::cmp::Reverse(element_bytes(t.dtype));
            (width(a), &a.name).cmp(&(width(b), &b.name))
        });
        let mut infos = Vec::with_capacity(tensors.len());
        let mut offset = 0_usize;
        let mut previous: Option<&str> = None;
        for tensor in &tensors {
            if previous == Some(&tensor.name) || tensor.name == "__metadata__" {
                return Err(StoreError::invalid(
                    format!("tensor {}", tensor.name),
                    "the name is taken",
                ));
            }
            previous = Some(&tensor.name);
            let end = offset + tensor.bytes.len();
            let elements = tensor
                .shape
                .iter()
                .try_fold(1_usize, |n, &dim| n.checked_mul(dim));
            let bits = elements.and_then(|n| n.checked_mul(tensor.dtype.bitsize()));
            if bits != tensor.bytes.len().checked_mul(8) {
                return Err(StoreError::invalid(
                    format!("tensor {}", tensor.name),
                    format!(
                        "shape {:?} of {:?} does not take {} bytes",
                        tensor.shape,
                        tensor.dtype,
                        tensor.bytes.len()
                    ),
                ));
            }
            let info = TensorInfo {
                dtype: tensor.dtype,
                shape: tensor.shape.clone(),
                data_offsets: (offset, end),
            };
            infos.push((tensor.name.clone(), info));
            offset = end;
        }
        let mut names: Vec<&str> = infos.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|w| w.first() == w.last()) {
            return Err(StoreError::invalid(
                format!("tensor {}", twice.concat()),
                "the name is taken",
            ));
        }
        let mut chunks = vec![header(None, infos)?];
        chunks.extend(
            tensors
                .into_iter()
                .map(|t| t.bytes)
                .filter(|b| !b.is_empty()),
        );
        let size = chunks.iter().map(|c| c.len() as u64).sum();
        let sha256 = sha256(&chunks);
        Ok(Self {
            chunks,
            size,
            sha256,
        })
    }
}

impl TensorFile {
    /// Reads the header of a file; its bytes are not copied.
    ///
    /// # Errors
    /// The reason, in words, if it is not a whole safetensors file.
    pub fn parse(bytes: Bytes) -> Result<Self, String> {
        let (header_len, metadata) =
            SafeTensors::read_metadata(&bytes).map_err(|e| e.to_string())?;
        let data_start = header_len.checked_add(8).ok_or("its header is too long")?;
        if data_start.checked_add(metadata.data_len()) != Some(bytes.len()) {
            return Err("its header does not describe its length".into());
        }
        let infos = metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| (name, info.clone()))
            .collect();
        let metadata = metadata.metadata().clone().unwrap_or_default();
        Ok(Self {
            bytes,
            data_start,
            infos,
            metadata,
        })
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        let info = self.infos.get(name)?;
        Some(TensorView {
            dtype: info.dtype,
            shape: &info.shape,
            bytes: self.bytes.get(self.range(info))?,
        })
    }

    /// The bytes of a tensor, sharing the file's memory.
    pub fn bytes(&self, name: &str) -> Option<Bytes> {
        let range = self.range(self.infos.get(name)?);
        (range.end <= self.bytes.len()).then(|| self.bytes.slice(range))
    }

    /// A tensor ready to be written again (into a child version, say), sharing
    /// the file's memory.
    pub fn tensor(&self, name: &str) -> Option<NamedTensor> {
        let info = self.infos.get(name)?;
        Some(NamedTensor {
            name: name.to_owned(),
            dtype: info.dtype,
            shape: info.shape.clone(),
            bytes: self.bytes(name)?,
        })
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.infos.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// The file's free metadata, names to texts.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// Size of the whole file, bytes.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The position of a tensor's bytes in the file.
    pub(crate) fn place(&self, name: &str) -> Option<Range<u64>> {
        let range = self.range(self.infos.get(name)?);
        Some(u64::try_from(range.start).ok()?..u64::try_from(range.end).ok()?)
    }

    /// Bytes of the file, sharing its memory.
    pub(crate) fn slice(&self, range: &Range<u64>) -> Option<Bytes> {
        let at = |offset: u64| usize::try_from(offset).ok();
        let (start, end) = (at(range.start)?, at(range.end)?);
        (start <= end && end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
    }

    /// The part after the header.
    pub(crate) fn data(&self) -> Bytes {
        self.bytes.slice(self.data_start.min(self.bytes.len())..)
    }

    /// Names and layout, in the order of the bytes.
    pub(crate) fn layout(&self) -> Vec<(String, TensorInfo)> {
        let mut infos: Vec<_> = self
            .infos
            .iter()
            .map(|(name, info)| (name.clone(), info.clone()))
            .collect();
        infos.sort_by(|(a, x), (b, y)| (x.data_offsets, a).cmp(&(y.data_offsets, b)));
        infos
    }

    fn range(&self, info: &TensorInfo) -> Range<usize> {
        let (start, end) = info.data_offsets;
        self.data_start.saturating_add(start)..self.data_start.saturating_add(end)
    }
}

/// Many short texts as two tensors: `NAME.bytes` u8 [total], all texts one
/// after the other in UTF-8, and `NAME.offsets` i64 [n + 1]: text i is
/// `bytes[offsets[i]..offsets[i + 1]]`. A million ids of ten bytes take 18 MB.
#[derive(Clone, Debug)]
pub struct TextColumn {
    bytes: Bytes,
    offsets: Bytes,
}

impl TextColumn {
    /// The two tensors of a column of texts.
    pub fn encode<S: AsRef<str>>(
        name: &str,
        texts: impl IntoIterator<Item = S>,
    ) -> [NamedTensor; 2] {
        let mut bytes = Vec::new();
        let mut offsets = 0_i64.to_le_bytes().to_vec();
        for text in texts {
            bytes.extend_from_slice(text.as_ref().as_bytes());
            offsets.extend_from_slice(&(bytes.len() as i64).to_le_bytes());
        }
        [
            NamedTensor {
                name: format!("{name}.bytes"),
                dtype: Dtype::U8,
                shape: vec![bytes.len()],
                bytes: bytes.into(),
            },
            NamedTensor {
                name: format!("{name}.offsets"),
                dtype: Dtype::I64,
                shape: vec![offsets.len() / 8],
                bytes: offsets.into(),
            },
        ]
    }

    /// The column of that name; `Ok(None)` if the file has none.
    ///
    /// # Errors
    /// The reason, in words, where the two tensors do not fit each other.
    pub fn read(file: &TensorFile, name: &str) -> Result<Option<Self>, String> {
        let (bytes_name, offsets_name) = (format!("{name}.bytes"), format!("{name}.offsets"));
        let (Some(text), Some(index)) = (file.get(&bytes_name), file.get(&offsets_name)) else {
            return Ok(None);
        };
        if text.dtype != Dtype::U8 || index.dtype != Dtype::I64 || index.shape.len() != 1 {
            return Err(format!("{name} is not a column of texts"));
        }
        let mut last = 0_usize;
        for (i, raw) in index.bytes.as_chunks::<8>().0.iter().enumerate() {
            let offset = usize::try_from(i64::from_le_bytes(*raw)).unwrap_or(usize::MAX);
            let whole = text.bytes.get(last..offset).map(std::str::from_utf8);
            if (i == 0 && offset != 0) || !matches!(whole, Some(Ok(_))) {
                return Err(format!("{offsets_name}[{i}] = {offset} is out of order"));
            }
            last = offset;
        }
        if last != text.bytes.len() || index.bytes.is_empty() {
            return Err(format!("{offsets_name} does not cover {bytes_name}"));
        }
        // Copies: a slice of the file would keep all of it, keys and views too,
        // in memory (or mapped) for as long as the column lives.
        let bytes = Bytes::copy_from_slice(text.bytes);
        let offsets = Bytes::copy_from_slice(index.bytes);
        Ok(Some(Self { bytes, offsets }))
    }

    /// The same column in memory of its own, so that the file's can be freed.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self {
            bytes: Bytes::copy_from_slice(&self.bytes),
            offsets: Bytes::copy_from_slice(&self.offsets),
        }
    }

    /// How many texts there are.
    pub fn len(&self) -> usize {
        (self.offsets.len() / 8).saturating_sub(1)
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Text `i`; none if there are fewer, or its bytes are no UTF-8.
    pub fn get(&self, i: usize) -> Option<&str> {
        let offset = |i: usize| {
            let raw = self.offsets.get(i.checked_mul(8)?..)?.first_chunk::<8>()?;
            usize::try_from(i64::from_le_bytes(*raw)).ok()
        };
        let range = offset(i)?..offset(i.checked_add(1)?)?;
        std::str::from_utf8(self.bytes.get(range)?).ok()
    }

    /// All texts, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|i| self.get(i))
    }
}
