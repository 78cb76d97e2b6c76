//! The formats that keys are in, and a tile of products in each.

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32,
};

use super::features::Features;
use crate::simd::{Avx512, Simd, VECTORS};

/// A format of keys, and the tile product in it.
pub(super) trait Format<S: Simd> {
    unsafe fn tile<const R: usize>(
        features: &Features,
        row: usize,
        panel: *const u8,
    ) -> [[S::V; VECTORS]; R];
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct Bf16Wide;
pub(super) struct Bf16;

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
