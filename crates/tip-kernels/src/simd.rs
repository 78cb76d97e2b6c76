//! The few vector operations that the kernels are written in, for AVX-512 and
//! for AVX2. The kernels are generic over [`Simd`] and are compiled once for
//! each, inside functions that carry the right `target_feature`.

use std::arch::x86_64::*;

/// Vectors side by side in a panel: with the rows of a tile, as many
/// accumulators as the register file holds.
pub const VECTORS: usize = 3;
/// Rows of the tallest tile of all (AMX's), and of the tile buffer.
pub const MAX_ROWS: usize = 32;
/// Rows in the widest panel of any instruction set. in keys.
pub const MAX_PANEL: usize = VECTORS * Avx512::LANES;

/// One vector instruction set.
///
/// # Safety
/// Every function needs the instruction set at run time, and the memory that
/// its pointers and [`Self::LANES`] name.
pub unsafe trait Simd: Copy {
    /// A SIMD register of `LANES` f32.
    type V: Copy;
    /// Number of f32 in a register.
    const LANES: usize;
    /// Rows of the largest tile.
    const ROWS: usize;

    unsafe fn zero() -> Self::V;
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    /// Loads `LANES` IEEE half floats, widened to f32.
    unsafe fn load_half(p: *const u16) -> Self::V;
    /// LANES pairs of bfloat16, widened: the first of each pair, the second.
    unsafe fn load_bf16_pairs(p: *const u16) -> (Self::V, Self::V);
    /// LANES pairs, rounded to bfloat16 (to nearest, ties to even): the
    /// reverse of [`Self::load_bf16_pairs`].
    unsafe fn store_bf16_pairs(p: *mut u16, first: Self::V, second: Self::V);
    /// `a·b + c`, rounded once.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sqrt(a: Self::V) -> Self::V;
    /// `x` held to `low..=high`; NaN stays NaN.
    unsafe fn clamp(x: Self::V, low: f32, high: f32) -> Self::V;
    /// The nearest integer, ties to even.
    unsafe fn round(x: Self::V) -> Self::V;
    /// 2 to the whole number `n`, −126 ≤ n ≤ 127.
    unsafe fn exp2_whole(n: Self::V) -> Self::V;

    /// e to the `x`, to about one unit in the last place (1.2e-7); below
    /// −87.3 the smallest normal number, above 88.3 held there.
    #[inline(always)]
    unsafe fn exp(x: Self::V) -> Self::V {
        // Cody and Waite's reduction x = n·ln 2 + r, |r| ≤ ln 2 / 2, with
        // ln 2 in two parts, then e^r by its Taylor series to r⁷.
        unsafe {
            let x = Self::clamp(x, -87.3, 88.3);
            let n = Self::round(Self::mul(x, Self::splat(std::f32::consts::LOG2_E)));
            let r = Self::fma(n, Self::splat(-0.693_359_4), x);
            let r = Self::fma(n, Self::splat(2.121_944_4e-4), r);
            let mut p = Self::splat(1.0 / 5040.0);
            for c in [
                1.0 / 720.0,
                1.0 / 120.0,
                1.0 / 24.0,
                1.0 / 6.0,
                0.5,
                1.0,
                1.0,
            ] {
                p = Self::fma(p, r, Self::splat(c));
            }
            Self::mul(p, Self::exp2_whole(n))
        }
    }
}

/// The AVX-512 F instruction set.
#[derive(Clone, Copy)]
pub struct Avx512;

// SAFETY: the callers are compiled with, and run only after detecting, AVX-512 F.
unsafe impl Simd for Avx512 {
    type V = __m512;
    const LANES: usize = 16;
    const ROWS: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_half(p: *const u16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(p: *const u16) -> (__m512, __m512) {
        unsafe {
            let both = _mm512_loadu_si512(p.cast());
            (
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(both)),
                _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(-65536))),
            )
        }
    }
    #[inline(always)]
    unsafe fn store_bf16_pairs(p: *mut u16, first: __m512, second: __m512) {
        unsafe {
            let one = _mm512_set1_epi32(1);
            let half = _mm512_set1_epi32(0x7fff);
            let x = _mm512_castps_si512(first);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(x), one);
            let low = _mm512_add_epi32(x, _mm512_add_epi32(odd, half));
            let x = _mm512_castps_si512(second);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(x), one);
            let high = _mm512_add_epi32(x, _mm512_add_epi32(odd, half));
            let high = _mm512_and_si512(high, _mm512_set1_epi32(-65536));
            let both = _mm512_or_si512(_mm512_srli_epi32::<16>(low), high);
            _mm512_storeu_si512(p.cast(), both);
        }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sqrt(a: __m512) -> __m512 {
        unsafe { _mm512_sqrt_ps(a) }
    }
    #[inline(always)]
    unsafe fn clamp(x: __m512, low: f32, high: f32) -> __m512 {
        // With a NaN in it, max and min give their second operand.
        unsafe {
            let x = _mm512_max_ps(_mm512_set1_ps(low), x);
            _mm512_min_ps(_mm512_set1_ps(high), x)
        }
    }
    #[inline(always)]
    unsafe fn round(x: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<0x08>(x) }
    }
    #[inline(always)]
    unsafe fn exp2_whole(n: __m512) -> __m512 {
        unsafe {
            let n = _mm512_cvtps_epi32(n);
            let bits = _mm512_slli_epi32::<23>(_mm512_add_epi32(n, _mm512_set1_epi32(127)));
            _mm512_castsi512_ps(bits)
        }
    }
}

/// AVX2 with FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx2;

// SAFETY: the callers are compiled with, and run only after detecting, AVX2, FMA and F16C.
unsafe impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        unsafe { _mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_half(p: *const u16) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(p: *const u16) -> (__m256, __m256) {
        unsafe {
            let both = _mm256_loadu_si256(p.cast());
            (
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(both)),
                _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(-65536))),
            )
        }
    }
    #[inline(always)]
    unsafe fn store_bf16_pairs(p: *mut u16, first: __m256, second: __m256) {
        unsafe {
            let one = _mm256_set1_epi32(1);
            let half = _mm256_set1_epi32(0x7fff);
            let x = _mm256_castps_si256(first);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(x), one);
            let low = _mm256_add_epi32(x, _mm256_add_epi32(odd, half));
            let x = _mm256_castps_si256(second);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(x), one);
            let high = _mm256_add_epi32(x, _mm256_add_epi32(odd, half));
            let high = _mm256_and_si256(high, _mm256_set1_epi32(-65536));
            let both = _mm256_or_si256(_mm256_srli_epi32::<16>(low), high);
            _mm256_storeu_si256(p.cast(), both);
        }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sqrt(a: __m256) -> __m256 {
        unsafe { _mm256_sqrt_ps(a) }
    }
    #[inline(always)]
    unsafe fn clamp(x: __m256, low: f32, high: f32) -> __m256 {
        unsafe {
            let x = _mm256_max_ps(_mm256_set1_ps(low), x);
            _mm256_min_ps(_mm256_set1_ps(high), x)
        }
    }
    #[inline(always)]
    unsafe fn round(x: __m256) -> __m256 {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) }
    }
    #[inline(always)]
    unsafe fn exp2_whole(n: __m256) -> __m256 {
        unsafe {
            let n = _mm256_cvtps_epi32(n);
            let bits = _mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127)));
            _mm256_castsi256_ps(bits)
        }
    }
}
