//! Pillow's resampling of 8-bit RGB, bit for bit, for a window of the output.
//!
//! The algorithm is Pillow's `Resample.c` (up to Pillow 12): a horizontal and
//! then a vertical convolution (in the other order for pictures over a hundred
//! times as tall as wide, where rows become fewer), each rounded to 8 bits, with coefficients
//! computed in float64, normalised, and rounded to 22-bit fixed point. Other
//! libraries' "bicubic" (fast_image_resize's too, whose coefficients have 16
//! bits) differs from it. Only what the window needs is computed.

// SIMD intrinsics.
#![allow(unsafe_code)]

use super::picture::Picture;

/// A resampling kernel, widened by the scale when shrinking (antialiasing).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Keys' cubic with a = −0.5.
    Bicubic,
    /// The triangle: linear interpolation when enlarging.
    Bilinear,
}

impl Interpolation {
    /// As `bundle.toml` and the API name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bicubic => "bicubic",
            Self::Bilinear => "bilinear",
        }
    }

    fn support(self) -> f64 {
        match self {
            Self::Bicubic => 2.0,
            Self::Bilinear => 1.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Self::Bilinear if x < 1.0 => 1.0 - x,
            _ => 0.0,
        }
    }
}

/// A rectangle of the output, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its left column, from 0.
    pub x: u64,
    /// Its top row, from 0.
    pub y: u64,
    /// How many columns it has.
    pub width: usize,
    /// How many rows it has.
    pub height: usize,
}

const PRECISION_BITS: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (PRECISION_BITS - 1);
/// Taps are padded with zeros to a multiple of this, for the vector code.
const TAP_BLOCK: usize = 4;

fn clip8(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Where an axis's output pixels come from.
struct Axis {
    /// First source pixel and number of taps of each output pixel.
    bounds: Vec<(usize, usize)>,
    /// `stride` fixed-point taps for each output pixel, zero-padded.
    taps: Vec<i32>,
    stride: usize,
}

impl Axis {
    /// Output pixels `first .. first + count` of an axis of `input` pixels,
    /// `extent` of which are resized to `output`.
    fn new(
        (input, extent): (usize, f64),
        output: u64,
        first: u64,
        count: usize,
        filter: Interpolation,
    ) -> Self {
        let scale = extent / output as f64;
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let inverse = 1.0 / filter_scale;
        let stride = (support.ceil() as usize * 2 + 1).next_multiple_of(TAP_BLOCK);
        let mut bounds = Vec::with_capacity(count);
        let mut taps = vec![0; stride * count];
        let mut weights = Vec::with_capacity(stride);
        for (out, taps) in (first..).zip(taps.chunks_exact_mut(stride)) {
            let centre = (out as f64 + 0.5) * scale;
            // Truncation toward zero, as C's (int).
            let low = ((centre - support + 0.5) as i64).max(0) as usize;
            let high = ((centre + support + 0.5) as i64).clamp(0, input as i64) as usize;
            weights.clear();
            weights.extend((low..high).map(|x| filter.weight((x as f64 - centre + 0.5) * inverse)));
            let total: f64 = weights.iter().sum();
            for (tap, weight) in taps.iter_mut().zip(&weights) {
                let weight = if total == 0.0 {
                    *weight
                } else {
                    weight / total
                };
                let scaled = weight * f64::from(1 << PRECISION_BITS);
                *tap = (scaled + if weight < 0.0 { -0.5 } else { 0.5 }) as i32;
            }
            bounds.push((low, weights.len()));
        }
        Self {
            bounds,
            taps,
            stride,
        }
    }

    /// An axis that is not resized: Pillow leaves that pass out.
    fn copy(first: u64, count: usize) -> Self {
        let mut taps = vec![0; TAP_BLOCK * count];
        for tap in taps.iter_mut().step_by(TAP_BLOCK) {
            // Exactly 1: the pass then changes nothing.
            *tap = 1 << PRECISION_BITS;
        }
        Self {
            bounds: (0..count).map(|i| (first as usize + i, 1)).collect(),
            taps,
            stride: TAP_BLOCK,
        }
    }

    fn for_window(
        input: (usize, f64),
        output: u64,
        first: u64,
        count: usize,
        filter: Interpolation,
    ) -> Self {
        if input == (output as usize, output as f64) {
            Self::copy(first, count)
        } else {
            Self::new(input, output, first, count, filter)
        }
    }

    /// The source pixels that are read: first, and one past the last.
    fn span(&self) -> (usize, usize) {
        let low = self.bounds.iter().map(|b| b.0).min().unwrap_or(0);
        let high = self.bounds.iter().map(|b| b.0 + b.1).max().unwrap_or(0);
        (low, high)
    }
}

/// Resizes the part `region` of a picture to `width` × `height` pixels and
/// returns the part `window` of that: window.height × window.width × 3 bytes,
/// the bytes that Pillow gives for
/// `picture.crop(region).resize((width, height), filter).crop(window)`.
///
/// `extent` is how much of the region's columns and rows is resized, where it
/// is not all of them (Pillow's `box`).
///
/// The caller keeps `region` within the picture and `window` within the
/// output.
pub(super) fn resize(
    picture: &Picture,
    region: Window,
    extent: Option<(f64, f64)>,
    (width, height): (u64, u64),
    window: Window,
    filter: Interpolation,
) -> Vec<u8> {
    let (across, down) = extent.unwrap_or((region.width as f64, region.height as f64));
    let (across, down) = ((region.width, across), (region.height, down));
    let columns = Axis::for_window(across, width, window.x, window.width, filter);
    let rows = Axis::for_window(down, height, window.y, window.height, filter);
    // Pillow's own exception for pictures that are mere strips.
    if down.1 > 100.0 * across.1 && (height as f64) < down.1 {
        return resize_rows_first(picture, region, &columns, &rows);
    }
    let pitch = picture.width() as usize * 3;
    let (top, bottom) = rows.span();
    let out_pitch = window.width * 3;

    let mut middle = vec![0; (bottom - top) * out_pitch];
    let source = picture
        .rgb()
        .get((region.y as usize + top) * pitch + region.x as usize * 3..)
        .unwrap_or_default();
    let mut out = vec![0; window.height * out_pitch];
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, which is all that these ask for.
        unsafe {
            avx2::horizontal(source, pitch, &columns, &mut middle);
            avx2::vertical(&middle, top, &rows, &mut out);
        }
        return out;
    }
    horizontal(source, pitch, &columns, &mut middle);
    vertical(&middle, top, &rows, &mut out);
    out
}

/// [`resize`] in the other order of passes. The region is narrow: it is copied.
fn resize_rows_first(picture: &Picture, region: Window, columns: &Axis, rows: &Axis) -> Vec<u8> {
    let pitch = region.width * 3;
    let (top, bottom) = rows.span();
    let from = region.x as usize * 3;
    let strip: Vec<u8> = picture
        .rgb()
        .chunks_exact(picture.width() as usize * 3)
        .skip(region.y as usize + top)
        .take(bottom - top)
        .flat_map(|row| row.get(from..from + pitch).unwrap_or_default())
        .copied()
        .collect();
    let mut middle = vec![0; rows.bounds.len() * pitch];
    vertical(&strip, top, rows, &mut middle);
    let mut out = vec![0; rows.bounds.len() * columns.bounds.len() * 3];
    horizontal(&middle, pitch, columns, &mut out);
    out
}

/// One output pixel: the taps' sum over source pixels.
#[inline(always)]
fn convolve_pixel(pixels: &[u8], taps: &[i32]) -> [u8; 3] {
    let mut sum = [HALF; 3];
    for (pixel, tap) in pixels.chunks_exact(3).zip(taps) {
        for (sum, &level) in sum.iter_mut().zip(pixel) {
            *sum += i32::from(level) * tap;
        }
    }
    sum.map(clip8)
}

fn horizontal(source: &[u8], pitch: usize, columns: &Axis, out: &mut [u8]) {
    let out_pitch = columns.bounds.len() * 3;
    for (row, out) in source.chunks(pitch).zip(out.chunks_exact_mut(out_pitch)) {
        let taps = columns.taps.chunks_exact(columns.stride);
        for ((out, &(low, count)), taps) in out.chunks_exact_mut(3).zip(&columns.bounds).zip(taps) {
            let pixels = row.get(low * 3..(low + count) * 3).unwrap_or_default();
            out.copy_from_slice(&convolve_pixel(pixels, taps));
        }
    }
}

#[inline(always)]
fn vertical(middle: &[u8], top: usize, rows: &Axis, out: &mut [u8]) {
    const LANES: usize = 32;
    let pitch = out.len() / rows.bounds.len().max(1);
    let taps = rows.taps.chunks_exact(rows.stride);
    for ((out, &(low, count)), taps) in out
        .chunks_exact_mut(pitch.max(1))
        .zip(&rows.bounds)
        .zip(taps)
    {
        let source = middle.get((low - top) * pitch..).unwrap_or_default();
        for (block, out) in out.chunks_mut(LANES).enumerate() {
            let mut sums = [HALF; LANES];
            for (row, tap) in source.chunks(pitch).zip(taps.iter().take(count)) {
                let levels = row.get(block * LANES..).unwrap_or_default();
                if let Some(levels) = levels.first_chunk::<LANES>() {
                    for (sum, &level) in sums.iter_mut().zip(levels) {
                        *sum += i32::from(level) * tap;
                    }
                } else {
                    for (sum, &level) in sums.iter_mut().zip(levels) {
                        *sum += i32::from(level) * tap;
                    }
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = clip8(sum);
            }
        }
    }
}

/// The same two passes with AVX2: the vertical one as the compiler makes it,
/// the horizontal one by hand, since three-byte pixels defeat the compiler.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{Axis, HALF, PRECISION_BITS, TAP_BLOCK, convolve_pixel};

    #[target_feature(enable = "avx2")]
    pub fn vertical(middle: &[u8], top: usize, rows: &Axis, out: &mut [u8]) {
        super::vertical(middle, top, rows, out);
    }

    /// Four taps a step: sixteen bytes hold five pixels, and two shuffles
    /// spread four of them over two vectors of two pixels × (R, G, B, 0).
    #[target_feature(enable = "avx2")]
    pub fn horizontal(source: &[u8], pitch: usize, columns: &Axis, out: &mut [u8]) {
        const N: i8 = -1;
        #[rustfmt::skip]
        let first = _mm256_setr_epi8(
            0, N, N, N, 1, N, N, N, 2, N, N, N, N, N, N, N,
            3, N, N, N, 4, N, N, N, 5, N, N, N, N, N, N, N,
        );
        #[rustfmt::skip]
        let second = _mm256_setr_epi8(
            6, N, N, N, 7, N, N, N, 8, N, N, N, N, N, N, N,
            9, N, N, N, 10, N, N, N, 11, N, N, N, N, N, N, N,
        );
        // Each tap four times over, so that a vector of two taps is one load.
        let spread: Vec<[i32; 4]> = columns.taps.iter().map(|&tap| [tap; 4]).collect();
        let out_pitch = columns.bounds.len() * 3;
        for (y, out) in out.chunks_exact_mut(out_pitch).enumerate() {
            let row = source.get(y * pitch..).unwrap_or_default();
            let spread = spread.chunks_exact(columns.stride);
            let taps = columns.taps.chunks_exact(columns.stride);
            for (((out, &(low, count)), spread), taps) in out
                .chunks_exact_mut(3)
                .zip(&columns.bounds)
                .zip(spread)
                .zip(taps)
            {
                let steps = count.div_ceil(TAP_BLOCK);
                // The last step may read past the last tap's pixel (times
                // zero), which only the picture's very end cannot give.
                let reach = low * 3 + steps * TAP_BLOCK * 3 + 4;
                let Some(pixels) = row.get(low * 3..reach) else {
                    let pixels = row.get(low * 3..(low + count) * 3).unwrap_or_default();
                    out.copy_from_slice(&convolve_pixel(pixels, taps));
                    continue;
                };
                let mut even = _mm256_setr_epi32(HALF, HALF, HALF, 0, 0, 0, 0, 0);
                let mut odd = _mm256_setzero_si256();
                for (step, spread) in spread.chunks_exact(TAP_BLOCK).take(steps).enumerate() {
                    let Some(bytes) = pixels
                        .get(step * TAP_BLOCK * 3..)
                        .and_then(|bytes| bytes.first_chunk::<16>())
                    else {
                        break;
                    };
                    // SAFETY: `bytes` has 16 bytes and `spread` four times
                    // four i32; unaligned loads.
                    let (bytes, tap01, tap23) = unsafe {
                        (
                            _mm_loadu_si128(bytes.as_ptr().cast()),
                            _mm256_loadu_si256(spread.as_ptr().cast()),
                            _mm256_loadu_si256(spread.as_ptr().add(2).cast()),
                        )
                    };
                    let bytes = _mm256_broadcastsi128_si256(bytes);
                    let pixel01 = _mm256_shuffle_epi8(bytes, first);
                    let pixel23 = _mm256_shuffle_epi8(bytes, second);
                    even = _mm256_add_epi32(even, _mm256_mullo_epi32(pixel01, tap01));
                    odd = _mm256_add_epi32(odd, _mm256_mullo_epi32(pixel23, tap23));
                }
                let sum = _mm256_add_epi32(even, odd);
                let sum = _mm_add_epi32(
                    _mm256_castsi256_si128(sum),
                    _mm256_extracti128_si256::<1>(sum),
                );
                let sum = _mm_srai_epi32::<{ PRECISION_BITS as i32 }>(sum);
                // Both packs saturate: to i16, then to u8, which clips.
                let sum = _mm_packus_epi16(_mm_packs_epi32(sum, sum), sum);
                let [r, g, b, _] = _mm_cvtsi128_si32(sum).to_le_bytes();
                out.copy_from_slice(&[r, g, b]);
            }
        }
    }
}
