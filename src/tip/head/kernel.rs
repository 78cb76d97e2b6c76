//! The product of features and packed keys, tile by tile, with what is done to
//! a tile while it is still in registers: the exponential, and the sum over
//! each class's keys. So [B, M] never exists, and the exponential costs a few
//! hundredths of the product.
//!
//! Every number of the result is summed in one fixed order, whatever the
//! batch, the rows beside it and the number of threads: the same picture gets
//! the same logits, bit for bit.

use super::{
    panels::{Isa, Panels},
    simd::{Avx2, Avx512, Simd, VECTORS},
    team::Shards,
};
use crate::tip::spec::KeyDtype;
use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32,
};

/// Rows of the tallest tile of all (AMX's), and of the tile buffer.
pub const MAX_ROWS: usize = 32;
/// Widest panel of all.
pub const MAX_PANEL: usize = VECTORS * Avx512::LANES;

/// How the products are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    /// In f32, 16-bit keys widened as they are read.
    F32,
    /// bfloat16 × bfloat16 summed in f32, by AVX512-BF16.
    Bf16,
    /// The same by AMX.
    Amx,
}

/// Features as the kernels read them: [B, ld].
pub struct Features {
    ld: usize,
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
            KeyDtype::Bf16 => width.next_multiple_of(super::panels::BF16_STEP),
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

    fn f32_ptr(&self, row: usize) -> *const f32 {
        let base = match &self.data {
            FeatureData::Borrowed(base) => *base,
            FeatureData::Owned(data) => data.as_ptr(),
            FeatureData::Bf16(_) => unreachable!("bfloat16 features for an f32 product"),
        };
        // SAFETY: row < rows.
        unsafe { base.add(row * self.ld) }
    }

    fn bf16_ptr(&self, row: usize) -> *const u16 {
        match &self.data {
            // SAFETY: row < rows, padded.
            FeatureData::Bf16(data) => unsafe { data.as_ptr().add(row * self.ld) },
            _ => unreachable!("f32 features for a bfloat16 product"),
        }
    }
}

/// A run of keys of one class inside a panel.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// The class.
    pub class: u32,
    /// First key in the panel.
    pub start: u8,
    /// One past the last.
    pub end: u8,
}

/// Where the runs of each class lie, for keys sorted by class.
pub struct Segments {
    /// Per panel, its first entry in `runs`; one more at the end.
    first: Vec<u32>,
    runs: Vec<Segment>,
}

impl Segments {
    /// From labels in ascending order.
    pub fn new(labels: &[u32], panel: usize) -> Self {
        let mut first = vec![0];
        let mut runs: Vec<Segment> = Vec::new();
        for labels in labels.chunks(panel) {
            let mut start = 0;
            for same in labels.chunk_by(|a, b| a == b) {
                let end = start + same.len();
                // A panel is at most 48 wide, a chunk never empty.
                runs.push(Segment {
                    class: same[0],
                    start: start as u8,
                    end: end as u8,
                });
                start = end;
            }
            first.push(runs.len() as u32);
        }
        Self { first, runs }
    }

    /// The runs in a panel.
    pub fn of(&self, panel: usize) -> &[Segment] {
        &self.runs[self.first[panel] as usize..self.first[panel + 1] as usize]
    }

    /// Bytes held.
    pub fn size_bytes(&self) -> usize {
        self.first.len() * 4 + self.runs.len() * size_of::<Segment>()
    }
}

/// What becomes of a tile.
pub enum Finish<'a> {
    /// out[b, n] = dot + bias[n].
    Affine {
        /// Padded to whole panels.
        bias: Option<&'a [f32]>,
        /// [B, N].
        out: Shards<f32>,
        /// N.
        ld: usize,
    },
    /// out[b, c] += weight[c] · Σ over the class's keys of exp(β(dot − 1)).
    Classes {
        beta: f32,
        segments: &'a Segments,
        weight: &'a [f32],
        /// [B, N].
        out: Shards<f32>,
        /// N.
        ld: usize,
        /// The class that the item shares with the one before it, and where
        /// its sums go: [B].
        before: Option<(u32, Shards<f32>)>,
        /// Likewise with the one after it.
        after: Option<(u32, Shards<f32>)>,
        /// Where the affinities themselves are kept for the gradient: [panels,
        /// rows, W], and how many rows, at least B.
        keep: Option<(Shards<f32>, usize)>,
    },
    /// out[b, j − first] = dot, or exp(β(dot − 1)) with a β.
    Dots {
        beta: Option<f32>,
        /// [B, ld].
        out: Shards<f32>,
        ld: usize,
        /// The first key of the item.
        first: usize,
    },
}

/// One piece of work: some panels, some rows.
pub struct Item<'a> {
    pub panels: &'a Panels,
    pub features: &'a Features,
    pub products: Products,
    pub panel_range: std::ops::Range<usize>,
    pub row_range: std::ops::Range<usize>,
    pub finish: Finish<'a>,
}

/// Computes an item.
///
/// The caller has checked the shapes: features as wide as the panels, ranges
/// inside them, products that the machine has and the features were made for.
pub fn compute(item: &Item) {
    // SAFETY: Panels exist only for an instruction set that was detected, and
    // `products` only for one that was, too.
    unsafe {
        match (item.panels.isa(), item.panels.dtype(), item.products) {
            (Isa::Avx512, KeyDtype::F32, _) => avx512_f32(item),
            (Isa::Avx512, KeyDtype::F16, _) => avx512_f16(item),
            (Isa::Avx512, KeyDtype::Bf16, Products::F32) => avx512_bf16_wide(item),
            (Isa::Avx512, KeyDtype::Bf16, Products::Bf16) => avx512_bf16(item),
            (Isa::Avx512, KeyDtype::Bf16, Products::Amx) => amx_bf16(item),
            (Isa::Avx2, KeyDtype::F32, _) => avx2_f32(item),
            (Isa::Avx2, KeyDtype::F16, _) => avx2_f16(item),
            (Isa::Avx2, KeyDtype::Bf16, _) => avx2_bf16_wide(item),
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn avx512_f32(item: &Item) {
    unsafe { sweep::<Avx512, F32>(item) }
}
#[target_feature(enable = "avx512f")]
unsafe fn avx512_f16(item: &Item) {
    unsafe { sweep::<Avx512, F16>(item) }
}
#[target_feature(enable = "avx512f")]
unsafe fn avx512_bf16_wide(item: &Item) {
    unsafe { sweep::<Avx512, Bf16Wide>(item) }
}
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn avx512_bf16(item: &Item) {
    unsafe { sweep::<Avx512, Bf16>(item) }
}
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2_f32(item: &Item) {
    unsafe { sweep::<Avx2, F32>(item) }
}
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2_f16(item: &Item) {
    unsafe { sweep::<Avx2, F16>(item) }
}
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2_bf16_wide(item: &Item) {
    unsafe { sweep::<Avx2, Bf16Wide>(item) }
}

#[target_feature(enable = "avx512f")]
unsafe fn amx_bf16(item: &Item) {
    let width = item.features.ld;
    let mut buffer = [0f32; MAX_ROWS * MAX_PANEL];
    // SAFETY: compute()'s; features are padded to whole AMX tiles.
    unsafe {
        super::amx::configure();
        for panel in item.panel_range.clone() {
            let keys = item.panels.panel_ptr(panel).cast::<u16>();
            let mut row = item.row_range.start;
            while row < item.row_range.end {
                let rows = MAX_ROWS.min(item.row_range.end - row);
                super::amx::tile(item.features.bf16_ptr(row), width, keys, &mut buffer);
                if let Some(beta) = item.finish.beta() {
                    let beta = Avx512::splat(beta);
                    for at in (0..rows * MAX_PANEL).step_by(Avx512::LANES) {
                        let at = buffer.as_mut_ptr().add(at);
                        let dot = Avx512::load(at);
                        let x = Avx512::sub(Avx512::mul(beta, dot), beta);
                        Avx512::store(at, Avx512::exp(x));
                    }
                }
                item.finish.write(panel, row, rows, MAX_PANEL, &buffer);
                row += rows;
            }
        }
        super::amx::release();
    }
}

/// A format of keys, and the tile product in it.
trait Format<S: Simd> {
    unsafe fn tile<const R: usize>(
        features: &Features,
        row: usize,
        panel: *const u8,
    ) -> [[S::V; VECTORS]; R];
}

struct F32;
struct F16;
struct Bf16Wide;
struct Bf16;

impl<S: Simd> Format<S> for F32 {
    #[inline(always)]
    unsafe fn tile<const R: usize>(
        features: &Features,
        row: usize,
        panel: *const u8,
    ) -> [[S::V; VECTORS]; R] {
        unsafe {
            tile_f32::<S, R>(
                features.f32_ptr(row),
                features.ld,
                panel.cast(),
                features.ld,
            )
        }
    }
}

/// Σ over k of `a[r·lda + k] · b[k][W]`, for R rows.
///
/// # Safety
/// Both hold what `depth` says.
#[inline(always)]
pub unsafe fn tile_f32<S: Simd, const R: usize>(
    a: *const f32,
    lda: usize,
    b: *const f32,
    depth: usize,
) -> [[S::V; VECTORS]; R] {
    unsafe {
        let mut acc = [[S::zero(); VECTORS]; R];
        for k in 0..depth {
            let mut keys = [S::zero(); VECTORS];
            for (v, keys) in keys.iter_mut().enumerate() {
                *keys = S::load(b.add((k * VECTORS + v) * S::LANES));
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = S::splat(*a.add(r * lda + k));
                for v in 0..VECTORS {
                    acc[v] = S::fma(x, keys[v], acc[v]);
                }
            }
        }
        acc
    }
}

impl<S: Simd> Format<S> for F16 {
    #[inline(always)]
    unsafe fn tile<const R: usize>(
        features: &Features,
        row: usize,
        panel: *const u8,
    ) -> [[S::V; VECTORS]; R] {
        unsafe {
            let (a, lda) = (features.f32_ptr(row), features.ld);
            let b = panel.cast::<u16>();
            let mut acc = [[S::zero(); VECTORS]; R];
            for k in 0..lda {
                let mut keys = [S::zero(); VECTORS];
                for (v, keys) in keys.iter_mut().enumerate() {
                    *keys = S::load_half(b.add((k * VECTORS + v) * S::LANES));
                }
                for (r, acc) in acc.iter_mut().enumerate() {
                    let x = S::splat(*a.add(r * lda + k));
                    for v in 0..VECTORS {
                        acc[v] = S::fma(x, keys[v], acc[v]);
                    }
                }
            }
            acc
        }
    }
}

impl<S: Simd> Format<S> for Bf16Wide {
    #[inline(always)]
    unsafe fn tile<const R: usize>(
        features: &Features,
        row: usize,
        panel: *const u8,
    ) -> [[S::V; VECTORS]; R] {
        unsafe {
            let (a, lda) = (features.f32_ptr(row), features.ld);
            let b = panel.cast::<u16>();
            let mut acc = [[S::zero(); VECTORS]; R];
            for pair in 0..lda / 2 {
                for v in 0..VECTORS {
                    let (even, odd) =
                        S::load_bf16_pairs(b.add((pair * VECTORS + v) * S::LANES * 2));
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let a = a.add(r * lda + 2 * pair);
                        acc[v] = S::fma(S::splat(*a), even, acc[v]);
                        acc[v] = S::fma(S::splat(*a.add(1)), odd, acc[v]);
                    }
                }
            }
            acc
        }
    }
}

impl Format<Avx512> for Bf16 {
    #[inline(always)]
    unsafe fn tile<const R: usize>(
        features: &Features,
        row: usize,
        panel: *const u8,
    ) -> [[<Avx512 as Simd>::V; VECTORS]; R] {
        let pairs = features.ld / 2;
        unsafe { tile_bf16::<R>(features.bf16_ptr(row), pairs, panel.cast()) }
    }
}

/// Σ over k of `a[r][k] · b[k / 2][W][k % 2]`, for R rows of `pairs` pairs of
/// bfloat16.
///
/// # Safety
/// Both hold what `pairs` says, and the caller is compiled for AVX512-BF16.
#[inline(always)]
pub unsafe fn tile_bf16<const R: usize>(
    a: *const u16,
    pairs: usize,
    b: *const u16,
) -> [[<Avx512 as Simd>::V; VECTORS]; R] {
    // SAFETY: the casts are between 512-bit registers.
    unsafe {
        let (a, b) = (a.cast::<i32>(), b.cast::<i32>());
        let mut acc = [[Avx512::zero(); VECTORS]; R];
        for pair in 0..pairs {
            let mut keys = [_mm512_set1_epi32(0); VECTORS];
            for (v, keys) in keys.iter_mut().enumerate() {
                *keys = _mm512_loadu_si512(b.add((pair * VECTORS + v) * Avx512::LANES).cast());
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = _mm512_set1_epi32(a.add(r * pairs + pair).read_unaligned());
                let x = std::mem::transmute::<__m512i, __m512bh>(x);
                for v in 0..VECTORS {
                    let keys = std::mem::transmute::<__m512i, __m512bh>(keys[v]);
                    acc[v] = _mm512_dpbf16_ps(acc[v], x, keys);
                }
            }
        }
        acc
    }
}

#[inline(always)]
unsafe fn sweep<S: Simd, F: Format<S>>(item: &Item) {
    unsafe {
        for panel in item.panel_range.clone() {
            let mut row = item.row_range.start;
            // The last rows go in smaller tiles, so that one picture does not
            // pay for eight.
            while row < item.row_range.end {
                let left = item.row_range.end - row;
                row += if left >= 8 && S::ROWS >= 8 {
                    block::<S, F, 8>(item, panel, row)
                } else if left >= 4 {
                    block::<S, F, 4>(item, panel, row)
                } else if left >= 2 {
                    block::<S, F, 2>(item, panel, row)
                } else {
                    block::<S, F, 1>(item, panel, row)
                };
            }
        }
    }
}

#[inline(always)]
unsafe fn block<S: Simd, F: Format<S>, const R: usize>(
    item: &Item,
    panel: usize,
    row: usize,
) -> usize {
    unsafe {
        let mut acc = F::tile::<R>(item.features, row, item.panels.panel_ptr(panel));
        if let Some(beta) = item.finish.beta() {
            let beta = S::splat(beta);
            for acc in acc.iter_mut().flatten() {
                *acc = S::exp(S::sub(S::mul(beta, *acc), beta));
            }
        }
        let mut buffer = [0f32; 8 * MAX_PANEL];
        let width = VECTORS * S::LANES;
        for (r, acc) in acc.iter().enumerate() {
            for (v, acc) in acc.iter().enumerate() {
                S::store(buffer.as_mut_ptr().add(r * width + v * S::LANES), *acc);
            }
        }
        item.finish.write(panel, row, R, width, &buffer);
        R
    }
}

impl Finish<'_> {
    #[inline(always)]
    fn beta(&self) -> Option<f32> {
        match self {
            Finish::Affine { .. } => None,
            Finish::Classes { beta, .. } => Some(*beta),
            Finish::Dots { beta, .. } => *beta,
        }
    }

    /// Hands over a tile [rows, width] that begins at `row` and at the
    /// panel's first key.
    ///
    /// # Safety
    /// The places named belong to this item alone.
    #[inline(always)]
    unsafe fn write(&self, panel: usize, row: usize, rows: usize, width: usize, tile: &[f32]) {
        unsafe {
            match self {
                Finish::Affine { bias, out, ld } => {
                    let first = panel * width;
                    let count = width.min(ld - first);
                    for r in 0..rows {
                        let out = out.at((row + r) * ld + first);
                        for j in 0..count {
                            let bias = bias.map_or(0.0, |bias| bias[first + j]);
                            *out.add(j) = tile[r * width + j] + bias;
                        }
                    }
                }
                Finish::Classes {
                    segments,
                    weight,
                    out,
                    ld,
                    before,
                    after,
                    keep,
                    ..
                } => {
                    if let Some((kept, all_rows)) = keep {
                        let to = kept.at((panel * all_rows + row) * width);
                        std::ptr::copy_nonoverlapping(tile.as_ptr(), to, rows * width);
                    }
                    for run in segments.of(panel) {
                        let class = run.class as usize;
                        let weight = weight[class];
                        let edge = match (before, after) {
                            (Some((c, sums)), _) if *c == run.class => Some(sums),
                            (_, Some((c, sums))) if *c == run.class => Some(sums),
                            _ => None,
                        };
                        for r in 0..rows {
                            let tile = &tile[r * width..(r + 1) * width];
                            let sum: f32 = tile[run.start as usize..run.end as usize].iter().sum();
                            match edge {
                                Some(sums) => *sums.at(row + r) += sum * weight,
                                None => *out.at((row + r) * ld + class) += sum * weight,
                            }
                        }
                    }
                }
                Finish::Dots { out, ld, first, .. } => {
                    let from = panel * width - first;
                    let count = width.min(ld - from);
                    for r in 0..rows {
                        let out = out.at((row + r) * ld + from);
                        std::ptr::copy_nonoverlapping(tile.as_ptr().add(r * width), out, count);
                    }
                }
            }
        }
    }
}
