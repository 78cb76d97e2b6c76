//! The backward pass, panel by panel: ∂loss/∂(f·Kᵀ) in the affinities' place,
//! its product with the features, and AdamW's step while the gradient is still
//! in the first-level cache.

use super::padded;
use crate::{
    adamw::AdamW,
    amx,
    kernel::{Products, Segments, tile_bf16, tile_f32},
    panels::Isa,
    simd::{Avx2, Avx512, MAX_PANEL, MAX_ROWS, Simd, VECTORS},
    team::Shards,
};

/// What every panel of a backward pass needs.
pub(super) struct Backward<'a> {
    pub rows: usize,
    pub width: usize,
    pub classes: usize,
    pub transposed: &'a [f32],
    pub transposed_bf16: &'a [u16],
    /// Gradient of the loss by logit, times β and the class's weight: G·β·w,
    /// [B, N].
    pub gradient: &'a [f32],
    pub segments: &'a Segments,
    pub affinities: Shards<f32>,
    pub keys: Shards<f32>,
    /// The keys in bfloat16, and how far their panels lie apart.
    pub copy: Option<(Shards<u16>, usize)>,
    /// First and second moments, as far apart as the keys are: `stride`.
    pub first: Shards<f32>,
    pub second: Shards<f32>,
    pub stride: usize,
    pub adamw: AdamW,
}

impl Backward<'_> {
    /// Runs the pass on a panel.
    ///
    /// # Safety
    /// `isa` was detected, and so were `products`; the panel is no one else's
    /// meanwhile.
    pub unsafe fn run(&self, isa: Isa, products: Products, panel: usize) {
        unsafe {
            match (isa, products) {
                (Isa::Avx512, Products::F32) => backward_avx512(self, panel),
                (Isa::Avx512, Products::Bf16) => backward_avx512_bf16(self, panel),
                (Isa::Avx512, Products::Amx) => backward_amx(self, panel),
                (Isa::Avx2, _) => backward_avx2(self, panel),
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn backward_avx512(pass: &Backward, panel: usize) {
    unsafe { backward_f32::<Avx512>(pass, panel) }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn backward_avx2(pass: &Backward, panel: usize) {
    unsafe { backward_f32::<Avx2>(pass, panel) }
}

/// A panel's gradient in f32, R dimensions at a time, and AdamW's step on them.
#[inline(always)]
unsafe fn backward_f32<S: Simd>(pass: &Backward, panel: usize) {
    unsafe {
        let tile = scaled::<S>(pass, panel);
        let mut d = 0;
        while d < pass.width {
            let left = pass.width - d;
            d += if left >= 8 && S::ROWS >= 8 {
                update_f32::<S, 8>(pass, panel, tile, d)
            } else if left >= 4 {
                update_f32::<S, 4>(pass, panel, tile, d)
            } else {
                update_f32::<S, 1>(pass, panel, tile, d)
            };
        }
    }
}

#[inline(always)]
unsafe fn update_f32<S: Simd, const R: usize>(
    pass: &Backward,
    panel: usize,
    tile: *const f32,
    d: usize,
) -> usize {
    unsafe {
        let features = pass.transposed.as_ptr().add(d * pass.rows);
        let gradient = tile_f32::<S, R>(features, pass.rows, tile, pass.rows);
        let mut buffer = [0f32; 8 * MAX_PANEL];
        spill::<S, R>(&gradient, &mut buffer);
        adamw::<S>(pass, panel, d, R, &buffer);
        R
    }
}

#[inline(always)]
unsafe fn spill<S: Simd, const R: usize>(tile: &[[S::V; VECTORS]; R], to: &mut [f32]) {
    for (i, &v) in tile.iter().flatten().enumerate() {
        // SAFETY: the buffer holds eight rows, R is at most that.
        unsafe { S::store(to.as_mut_ptr().add(i * S::LANES), v) }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn backward_avx512_bf16(pass: &Backward, panel: usize) {
    unsafe {
        let tile = paired(pass, panel);
        let pairs = padded(pass.rows) / 2;
        let mut buffer = [0f32; 8 * MAX_PANEL];
        // Dimensions are padded to a multiple of eight.
        for d in (0..pass.width).step_by(8) {
            let features = pass.transposed_bf16.as_ptr().add(d * pairs * 2);
            let gradient = tile_bf16::<8>(features, pairs, tile);
            spill::<Avx512, 8>(&gradient, &mut buffer);
            adamw::<Avx512>(pass, panel, d, (pass.width - d).min(8), &buffer);
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn backward_amx(pass: &Backward, panel: usize) {
    unsafe {
        let tile = paired(pass, panel);
        let rows = padded(pass.rows);
        let mut buffer = [0f32; MAX_ROWS * MAX_PANEL];
        amx::configure();
        // Dimensions are padded to whole tiles.
        for d in (0..pass.width).step_by(MAX_ROWS) {
            let features = pass.transposed_bf16.as_ptr().add(d * rows);
            amx::tile(features, rows, tile, &mut buffer);
            adamw::<Avx512>(pass, panel, d, (pass.width - d).min(MAX_ROWS), &buffer);
        }
        amx::release();
    }
}

/// ∂loss/∂(f·Kᵀ) of a panel, in the affinities' place: [B, W].
#[inline(always)]
unsafe fn scaled<S: Simd>(pass: &Backward, panel: usize) -> *mut f32 {
    unsafe {
        let width = VECTORS * S::LANES;
        let tile = pass.affinities.at(panel * padded(pass.rows) * width);
        let runs = pass.segments.of(panel);
        let used = runs.last().map_or(0, |run| run.end as usize);
        for b in 0..pass.rows {
            let row = std::slice::from_raw_parts_mut(tile.add(b * width), width);
            for run in runs {
                let g = pass.gradient[b * pass.classes + run.class as usize];
                for x in &mut row[run.start as usize..run.end as usize] {
                    *x *= g;
                }
            }
            // Keys that only fill the panel up.
            row[used..].fill(0.0);
        }
        tile
    }
}

/// [`scaled`] in pairs of bfloat16, [padded B / 2, W, 2], in the same place.
#[inline(always)]
unsafe fn paired(pass: &Backward, panel: usize) -> *const u16 {
    unsafe {
        let tile = scaled::<Avx512>(pass, panel);
        let (pairs, all) = (pass.rows.div_ceil(2), padded(pass.rows) / 2);
        let to = tile.cast::<u16>();
        for pair in 0..pairs {
            for v in 0..VECTORS {
                // Pairs are half as long as the rows that they are read from,
                // so that nothing is overwritten before it is read.
                let at = tile.add((pair * 2 * VECTORS + v) * Avx512::LANES);
                let first = Avx512::load(at);
                let second = if pair * 2 + 1 < pass.rows {
                    Avx512::load(at.add(MAX_PANEL))
                } else {
                    Avx512::zero()
                };
                let to = to.add((pair * VECTORS + v) * Avx512::LANES * 2);
                Avx512::store_bf16_pairs(to, first, second);
            }
        }
        let rest = (all - pairs) * MAX_PANEL * 2;
        std::slice::from_raw_parts_mut(to.add(pairs * MAX_PANEL * 2), rest).fill(0);
        to
    }
}

/// AdamW's step (Loshchilov and Hutter, ICLR 2019, as torch.optim.AdamW has
/// it) on dimensions `d..d + rows` of a panel's keys, from their gradient
/// [rows, W]. `d` is even, and so is `rows` but for the last dimension's sake,
/// wherever there is a copy in bfloat16.
#[inline(always)]
unsafe fn adamw<S: Simd>(pass: &Backward, panel: usize, d: usize, rows: usize, gradient: &[f32]) {
    unsafe {
        let mut r = 0;
        while r < rows {
            for v in 0..VECTORS {
                let first = advance::<S>(pass, panel, d + r, v, gradient, r);
                let Some((copy, stride)) = pass.copy else {
                    continue;
                };
                let second = if r + 1 < rows {
                    advance::<S>(pass, panel, d + r + 1, v, gradient, r + 1)
                } else {
                    S::zero()
                };
                let pair = (d + r) / 2 * VECTORS + v;
                let at = copy.at(panel * stride + pair * S::LANES * 2);
                S::store_bf16_pairs(at, first, second);
            }
            r += if pass.copy.is_some() { 2 } else { 1 };
        }
    }
}

/// One vector of keys, a step further.
#[inline(always)]
unsafe fn advance<S: Simd>(
    pass: &Backward,
    panel: usize,
    d: usize,
    v: usize,
    gradient: &[f32],
    r: usize,
) -> S::V {
    unsafe {
        let a = &pass.adamw;
        let at = panel * pass.stride + (d * VECTORS + v) * S::LANES;
        let g = S::load(gradient.as_ptr().add((r * VECTORS + v) * S::LANES));
        let (first, second, key) = (pass.first.at(at), pass.second.at(at), pass.keys.at(at));
        let m = S::mul(S::splat(1.0 - a.beta1), g);
        let m = S::fma(S::splat(a.beta1), S::load(first), m);
        let n = S::mul(S::splat(1.0 - a.beta2), S::mul(g, g));
        let n = S::fma(S::splat(a.beta2), S::load(second), n);
        S::store(first, m);
        S::store(second, n);
        let denominator = S::fma(S::sqrt(n), S::splat(a.root), S::splat(a.epsilon));
        let decayed = S::mul(S::splat(a.decay), S::load(key));
        let moved = S::fma(S::splat(a.size), S::div(m, denominator), decayed);
        S::store(key, moved);
        moved
    }
}
