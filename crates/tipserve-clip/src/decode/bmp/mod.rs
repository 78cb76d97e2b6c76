//! BMP of Windows and of OS/2, with Pillow's levels.
//!
//! It is our own reader, since the `image` crate rounds 16 bits otherwise, does not know OS/2's
//! longer header, takes a file whose header says no place of the pixels for one whose pixels are
//! its header, and gives black for what run lengths leave out.

mod errors;
mod header;
mod run_lengths;

use super::samples::buffer;
use crate::picture::{Picture, PictureError, PictureLimits};
use errors::truncated;
use header::{Header, Layout, Pixels};

pub(super) fn decode(bytes: &[u8], limits: &PictureLimits) -> Result<Picture, PictureError> {
    let header = Header::read(bytes, limits)?;
    let (width, height) = (header.width as usize, header.height as usize);
    let data = bytes.get(header.data..).ok_or_else(truncated)?;
    let pixels = u64::from(header.width) * u64::from(header.height);
    if header.run_lengths {
        // The indices, and the picture of them.
        limits.check_decoder(pixels * 4)?;
    }
    let mut rgb = buffer(header.width, header.height, 3, limits)?;
    let indices;
    let (data, pitch, row_bytes) = if header.run_lengths {
        indices = run_lengths::indices(data, width, height, header.bits)?;
        (&*indices, width, width)
    } else {
        let row = (width * header.bits).div_ceil(8);
        (data, row.next_multiple_of(4), row)
    };
    // Some writers leave out what fills the last row up.
    if data.len() < pitch * (height - 1) + row_bytes {
        return Err(truncated());
    }
    let rows = rgb.chunks_exact_mut(width * 3).zip(0..height);
    for (target, number) in rows {
        let number = if header.from_top {
            number
        } else {
            height - 1 - number
        };
        let source = data.get(number * pitch..).unwrap_or_default();
        header.row(source.get(..row_bytes).unwrap_or_default(), target);
    }
    Ok(Picture::new(header.width, header.height, rgb))
}

impl Header {
    /// RGB of a row's pixels.
    fn row(&self, source: &[u8], target: &mut [u8]) {
        let target = target.chunks_exact_mut(3);
        match &self.pixels {
            Pixels::Palette(colours) => {
                // Run lengths have been spread to a byte each.
                let bits = if self.run_lengths { 8 } else { self.bits };
                let most = ((1_u32 << bits) - 1) as u8;
                let indices = source.iter().flat_map(|byte| {
                    (1..=8 / bits).map(move |at| byte.checked_shr((8 - at * bits) as u32))
                });
                for (to, index) in target.zip(indices) {
                    let index = usize::from(index.unwrap_or(0) & most);
                    to.copy_from_slice(&colours.get(index).copied().unwrap_or_default());
                }
            }
            Pixels::Bytes => {
                for (to, from) in target.zip(source.chunks_exact(self.bits / 8)) {
                    for (to, from) in to.iter_mut().zip(from.iter().take(3).rev()) {
                        *to = *from;
                    }
                }
            }
            Pixels::Masked(layout) => {
                for (to, from) in target.zip(source.chunks_exact(self.bits / 8)) {
                    let pixel = from
                        .iter()
                        .rev()
                        .fold(0, |sum, byte| sum << 8 | u32::from(*byte));
                    to.copy_from_slice(&layout.rgb(pixel));
                }
            }
        }
    }
}

impl Layout {
    /// Red, green and blue: of fewer than 8 bits scaled to 0–255 and rounded down, of more the
    /// highest 8.
    fn rgb(&self, pixel: u32) -> [u8; 3] {
        self.0.map(|mask| {
            let lowest = mask.trailing_zeros().min(31);
            let (level, most) = ((pixel & mask) >> lowest, mask >> lowest);
            let bits = u32::BITS - most.leading_zeros();
            match bits {
                0 => 0,
                1..=8 => (level * 255 / most) as u8,
                _ => (level >> (bits - 8)) as u8,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_say_where_the_levels_stand() {
        assert_eq!(Layout([0x7C00, 0x3E0, 0x1F]).rgb(0x7FFF), [255; 3]);
        assert_eq!(Layout([0x7C00, 0x3E0, 0x1F]).rgb(0x0401), [8, 0, 8]);
        assert_eq!(Layout([0xF800, 0x7E0, 0x1F]).rgb(0x0020), [0, 4, 0]);
        assert_eq!(
            Layout([0xFF00_0000, 0xFF_0000, 0xFF00]).rgb(0x0102_03FF),
            [1, 2, 3]
        );
        assert_eq!(
            Layout([0x3FF0_0000, 0xF_FC00, 0x3FF]).rgb(0x3FF0_03FC),
            [255, 0, 255]
        );
        assert_eq!(Layout([0, 0xFF00, u32::MAX]).rgb(u32::MAX), [0, 255, 255]);
    }
}
