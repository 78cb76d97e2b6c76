//! Samples of any number of bits as levels of 8 bits.

use half::f16;

use super::{
    colour::Colour,
    errors::unclear_levels,
    page::{Page, Prediction},
};
use crate::picture::PictureError;

/// What a sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A whole number; all its bits set are white.
    Whole,
    /// IEEE's floating point; 0 is black and 1 is white.
    Float,
}

/// Samples of a chunk, one byte each, row by row.
pub(super) struct Levels {
    pub levels: Vec<u8>,
    /// Samples in a row of the chunk.
    pub row: usize,
    pub range: Range,
}

/// What floating-point samples were.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    least: f64,
    greatest: f64,
    not_a_number: bool,
}

impl Range {
    /// Of no samples.
    pub(super) const NONE: Self = Self {
        least: f64::INFINITY,
        greatest: f64::NEG_INFINITY,
        not_a_number: false,
    };

    fn note(&mut self, value: f64) {
        self.not_a_number |= value.is_nan();
        // These pass over what is no number.
        self.least = self.least.min(value);
        self.greatest = self.greatest.max(value);
    }

    pub(super) fn join(&mut self, other: Self) {
        self.not_a_number |= other.not_a_number;
        self.least = self.least.min(other.least);
        self.greatest = self.greatest.max(other.greatest);
    }

    /// Refuses a picture with samples that are no levels between black and white.
    pub(super) fn check(&self) -> Result<(), PictureError> {
        if self.not_a_number {
            return Err(unclear_levels(
                "in floating point, where 0 is black and 1 is white, with samples that are no \
                 number (NaN)",
            ));
        }
        if self.least < 0.0 || self.greatest > 1.0 {
            return Err(unclear_levels(format!(
                "in floating point, where 0 is black and 1 is white, with samples from {} to {}",
                self.least, self.greatest
            )));
        }
        Ok(())
    }
}

/// The levels of a chunk's bytes. `visible` are its rows and columns within
/// the picture.
pub(super) fn of_packed(
    page: &Page,
    mut packed: Vec<u8>,
    plane: usize,
    visible: (usize, usize),
) -> Levels {
    let row = page.chunk.0 * page.interleaved();
    let whole_bytes = page.bits.is_multiple_of(8);
    match page.prediction {
        Prediction::None => {}
        Prediction::Differences => {
            for packed in packed.chunks_exact_mut(page.row_bytes()) {
                match page.bits {
                    16 => add_up_wide::<2>(page, packed),
                    32 => add_up_wide::<4>(page, packed),
                    64 => add_up_wide::<8>(page, packed),
                    _ => add_up(packed, page.interleaved()),
                }
            }
        }
        Prediction::Floats => {
            for packed in packed.chunks_exact_mut(page.row_bytes()) {
                add_up(packed, page.interleaved());
            }
        }
    }
    let mut range = Range::NONE;
    let levels = match page.format {
        Format::Whole if page.bits == 8 => packed,
        Format::Whole if whole_bytes => high_bytes(page, &packed),
        Format::Whole => spread(page, &packed, row),
        Format::Float => floats(page, &packed, row, plane, visible, &mut range),
    };
    Levels { levels, row, range }
}

/// Undoes predictor 2: each sample is a difference to the one `stride` before.
fn add_up(row: &mut [u8], stride: usize) {
    for at in stride..row.len() {
        let left = row.get(at - stride).copied().unwrap_or(0);
        if let Some(sample) = row.get_mut(at) {
            *sample = sample.wrapping_add(left);
        }
    }
}

/// The same with samples of `N` bytes, whatever they mean.
fn add_up_wide<const N: usize>(page: &Page, row: &mut [u8]) {
    let mut left = vec![0_u64; page.interleaved()];
    for pixel in row.chunks_exact_mut(N * page.interleaved()) {
        for (sample, left) in pixel.as_chunks_mut::<N>().0.iter_mut().zip(&mut left) {
            let mut wide = [0; 8];
            for (number, byte) in sample.iter().enumerate() {
                let place = if page.little_endian {
                    number
                } else {
                    N - 1 - number
                };
                if let Some(to) = wide.get_mut(place) {
                    *to = *byte;
                }
            }
            // Bits beyond the sample's overflow away.
            *left = left.wrapping_add(u64::from_le_bytes(wide));
            let sum = left.to_le_bytes();
            for (number, byte) in sample.iter_mut().enumerate() {
                let place = if page.little_endian {
                    number
                } else {
                    N - 1 - number
                };
                *byte = sum.get(place).copied().unwrap_or(0);
            }
        }
    }
}

/// The highest bytes of samples of several bytes.
fn high_bytes(page: &Page, packed: &[u8]) -> Vec<u8> {
    let bytes = page.bits / 8;
    let highest = if page.little_endian { bytes - 1 } else { 0 };
    packed
        .iter()
        .skip(highest)
        .step_by(bytes)
        .copied()
        .collect()
}

/// Samples that are not whole bytes: those of less are spread over 0 to 255, of
/// those of more the highest 8 bits are taken; indices into a palette stay.
fn spread(page: &Page, packed: &[u8], row: usize) -> Vec<u8> {
    let bits = page.bits;
    let most = (1_u32 << bits.min(8)) - 1;
    let level = |sample: u32| match page.colour {
        Colour::Palette(_) => sample as u8,
        _ => ((sample * 255 + most / 2) / most) as u8,
    };
    let mut levels = Vec::with_capacity(packed.len() * 8 / bits);
    for packed in packed.chunks_exact(page.row_bytes()) {
        if matches!(bits, 1 | 2 | 4) {
            let in_byte = 8 / bits;
            let samples = packed.iter().flat_map(|&byte| {
                (1..=in_byte).map(move |number| u32::from(byte) >> (8 - number * bits) & most)
            });
            levels.extend(samples.take(row).map(level));
            continue;
        }
        for number in 0..row {
            // At most 8 bits, which lie in two bytes.
            let at = number * bits;
            let byte = |at: usize| u32::from(packed.get(at).copied().unwrap_or(0));
            let two = byte(at / 8) << 8 | byte(at / 8 + 1);
            levels.push(level(two >> (16 - bits.min(8) - at % 8) & most));
        }
    }
    levels
}

/// Levels of floating-point samples, as numpy's `rint(255 * samples)`; those
/// that are not visible, which may be anything, stay 0.
fn floats(
    page: &Page,
    packed: &[u8],
    row: usize,
    plane: usize,
    (rows, columns): (usize, usize),
    range: &mut Range,
) -> Vec<u8> {
    let (bytes, stride) = (page.bits / 8, page.interleaved());
    let kept = match page.planar {
        true => usize::from(plane < page.colour.channels()),
        false => page.colour.channels(),
    };
    let mut levels = vec![0; packed.len() / bytes];
    let packed_rows = packed.chunks_exact(row * bytes);
    for (packed, levels) in packed_rows.zip(levels.chunks_exact_mut(row)).take(rows) {
        for (number, level) in levels.iter_mut().enumerate().take(columns * stride) {
            if number % stride >= kept {
                continue;
            }
            // From the highest byte on.
            let sample = (0..bytes).fold(0_u64, |sample, byte| {
                let at = match (page.prediction, page.little_endian) {
                    (Prediction::Floats, _) => byte * row + number,
                    (_, true) => number * bytes + bytes - 1 - byte,
                    (_, false) => number * bytes + byte,
                };
                sample << 8 | u64::from(packed.get(at).copied().unwrap_or(0))
            });
            let value = match page.bits {
                16 => f16::from_bits(sample as u16).to_f64(),
                24 => of_24_bits(sample as u32),
                32 => f64::from(f32::from_bits(sample as u32)),
                _ => f64::from_bits(sample),
            };
            range.note(value);
            *level = match page.bits {
                64 => (value * 255.0).round_ties_even() as u8,
                _ => (value as f32 * 255.0).round_ties_even() as u8,
            };
        }
    }
    levels
}

/// A sign, an exponent of 7 bits, and 16 bits of fraction.
fn of_24_bits(bits: u32) -> f64 {
    let fraction = f64::from(bits & 0xFFFF) / 65536.0;
    let value = match (bits >> 16 & 0x7F) as i32 {
        0 => fraction * 2_f64.powi(-62),
        127 if fraction == 0.0 => f64::INFINITY,
        127 => f64::NAN,
        exponent => (1.0 + fraction) * 2_f64.powi(exponent - 63),
    };
    if bits >> 23 & 1 == 1 { -value } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_of_24_bits_are_as_adobe_has_them() {
        // 1.0, -2.5, the least above 0, infinity.
        assert_eq!(of_24_bits(0x3F_0000), 1.0);
        assert_eq!(of_24_bits(0xC0_4000), -2.5);
        assert_eq!(of_24_bits(1), 2_f64.powi(-78));
        assert_eq!(of_24_bits(0x7F_0000), f64::INFINITY);
        assert!(of_24_bits(0x7F_0001).is_nan());
    }
}
