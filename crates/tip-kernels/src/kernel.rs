//! The product of features and packed keys, tile by tile, with what is done to
//! a tile while it is still in registers: the exponential, and the sum over
//! each class's keys. So [B, M] never exists, and the exponential costs a few
//! hundredths of the product.
//!
//! Every number of the result is summed in one fixed order, whatever the
//! batch, the rows beside it and the number of threads: the same picture gets
//! the same logits, bit for bit.

mod features;
mod finish;
mod format;
mod segments;

use super::{
    panels::{Isa, Panels},
    simd::{Avx2, Avx512, MAX_PANEL, MAX_ROWS, Simd, VECTORS},
};
pub use features::Features;
pub use finish::{Finish, add_edges};
use format::{Bf16, Bf16Wide, F16, F32, Format};
pub use format::{tile_bf16, tile_f32};
pub use segments::Segments;
use tip_spec::KeyDtype;

/// How the products are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    /// In f32, 16-bit keys widened as they are read.
    F32,
    /// bfloat16 × bfloat16 summed in f32, by AVX512-BF16.
    Bf16,
    /// bf16 products by AMX tiles, summed in f32.
    Amx,
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
