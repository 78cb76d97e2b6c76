//! A batch of features as the kernels read them.

use super::Products;
use crate::panels::{BF16_STEP, Panels};
use crate::simd::MAX_ROWS;
use tip_spec::KeyDtype;

/// Features as the kernels read them: [B, ld].
pub struct Features {
    /// Numbers from one row to the next.
    pub(super) ld: usize,
    data: FeatureData,
}

enum FeatureData {
    /// Owned where padding was needed, else the caller's memory.
    Borrowed(*const f32),
    Owned(Vec<f32>),
    /// bfloat16, rows padded to [`MAX_ROWS`] with zeros for AMX.
    Bf16(Vec<u16>),
}

// SAFETY: the borrowed memory is only read, and outlives the work on it.
unsafe impl Sync for Features {}

impl Features {
    /// `rows` rows of `panels.width()` numbers each.
    ///
    /// # Safety
    /// `source` holds them, and outlives what is returned.
    pub unsafe fn new(
        source: *const f32,
        rows: usize,
        panels: &Panels,
        products: Products,
    ) -> Self {
        let width = panels.width();
        let padded = match panels.dtype() {
            KeyDtype::Bf16 => width.next_multiple_of(BF16_STEP),
            KeyDtype::F32 | KeyDtype::F16 => width,
        };
        // SAFETY: by the caller's promise.
        let row = |b: usize| unsafe { std::slice::from_raw_parts(source.add(b * width), width) };
        let data = if products != Products::F32 {
            let mut to = vec![0u16; rows.next_multiple_of(MAX_ROWS) * padded];
            for (b, to) in to.chunks_exact_mut(padded.max(1)).take(rows).enumerate() {
                for (to, from) in to.iter_mut().zip(row(b)) {
                    *to = half::bf16::from_f32(*from).to_bits();
                }
            }
            FeatureData::Bf16(to)
        } else if padded != width {
            let mut to = vec![0f32; rows * padded];
            for (b, to) in to.chunks_exact_mut(padded).enumerate() {
                to[..width].copy_from_slice(row(b));
            }
            FeatureData::Owned(to)
        } else {
            FeatureData::Borrowed(source)
        };
        Self { ld: padded, data }
    }

    #[inline]
    pub(super) fn f32_ptr(&self, row: usize) -> *const f32 {
        let base = match &self.data {
            FeatureData::Borrowed(base) => *base,
            FeatureData::Owned(data) => data.as_ptr(),
            FeatureData::Bf16(_) => unreachable!("bfloat16 features for an f32 product"),
        };
        // SAFETY: row < rows.
        unsafe { base.add(row * self.ld) }
    }

    #[inline]
    pub(super) fn bf16_ptr(&self, row: usize) -> *const u16 {
        match &self.data {
            // SAFETY: row < rows, padded.
            FeatureData::Bf16(data) => unsafe { data.as_ptr().add(row * self.ld) },
            _ => unreachable!("f32 features for a bfloat16 product"),
        }
    }
}
