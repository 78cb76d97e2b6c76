//! YCbCr that is not inside JPEG, as libtiff shows it: with the file's
//! coefficients and its levels of black and white, chroma repeated where it was
//! subsampled.

use super::{errors::unsupported, tags::Tags};
use crate::picture::PictureError;

/// From luma and chroma to RGB: libtiff's tables (`TIFFYCbCrToRGBInit`).
#[derive(Debug)]
pub(super) struct YCbCr {
    luma: [i32; 256],
    red_of_cr: [i32; 256],
    blue_of_cb: [i32; 256],
    /// Of 65536ths, as they are added before they are rounded.
    green_of_cr: [i32; 256],
    green_of_cb: [i32; 256],
}

/// Bits after the point.
const SHIFT: u32 = 16;
const ONE_HALF: i32 = 1 << (SHIFT - 1);

/// A factor from 0 to 2 in 65536ths; 0 for what is no number.
fn fixed(factor: f32) -> i32 {
    let factor = if factor >= 0.0 { factor.min(2.0) } else { 0.0 };
    (f64::from(factor) * f64::from(1 << SHIFT) + 0.5) as i32
}

/// A level between the file's black and white, of `range` levels.
fn level(code: i32, black: f32, white: f32, range: f32) -> i32 {
    const MOST: f32 = 128.0 * 32.0;
    let span = if white - black == 0.0 {
        1.0
    } else {
        white - black
    };
    let value = (code - black as i32) as f32 * range / span;
    let value = if value >= -MOST { value } else { -MOST };
    value.min(MOST) as i32
}

impl YCbCr {
    /// The conversion that a page's tags describe.
    pub(super) fn read(tags: &Tags) -> Result<Self, PictureError> {
        let [red, green, blue] = tags.fractions(529, [0.299, 0.587, 0.114])?;
        let reference = [0.0, 255.0, 128.0, 255.0, 128.0, 255.0];
        let [black, white, cb_black, cb_white, cr_black, cr_white] =
            tags.fractions(532, reference)?;
        if green == 0.0 {
            return Err(unsupported("in YCbCr without green"));
        }
        let cr_to_red = 2.0 - 2.0 * red;
        let cb_to_blue = 2.0 - 2.0 * blue;
        let (to_red, to_blue) = (fixed(cr_to_red), fixed(cb_to_blue));
        let cr_to_green = -fixed(red * cr_to_red / green);
        let cb_to_green = -fixed(blue * cb_to_blue / green);
        let mut tables = Self {
            luma: [0; 256],
            red_of_cr: [0; 256],
            blue_of_cb: [0; 256],
            green_of_cr: [0; 256],
            green_of_cb: [0; 256],
        };
        let Self {
            luma,
            red_of_cr,
            blue_of_cb,
            green_of_cr,
            green_of_cb,
        } = &mut tables;
        let entries = luma.iter_mut().zip(red_of_cr).zip(blue_of_cb);
        let entries = entries.zip(green_of_cr).zip(green_of_cb).zip(0..);
        for (((((luma, red_of_cr), blue_of_cb), green_of_cr), green_of_cb), code) in entries {
            let cr = level(code - 128, cr_black - 128.0, cr_white - 128.0, 127.0);
            let cb = level(code - 128, cb_black - 128.0, cb_white - 128.0, 127.0);
            *luma = level(code, black, white, 255.0);
            *red_of_cr = (to_red * cr + ONE_HALF) >> SHIFT;
            *blue_of_cb = (to_blue * cb + ONE_HALF) >> SHIFT;
            *green_of_cr = cr_to_green * cr;
            *green_of_cb = cb_to_green * cb + ONE_HALF;
        }
        Ok(tables)
    }

    /// One pixel.
    pub(super) fn rgb(&self, &[luma, cb, cr]: &[u8; 3]) -> [u8; 3] {
        let of = |table: &[i32; 256], code: u8| table.get(usize::from(code)).copied().unwrap_or(0);
        let luma = of(&self.luma, luma);
        let green = (of(&self.green_of_cb, cb) + of(&self.green_of_cr, cr)) >> SHIFT;
        [
            luma + of(&self.red_of_cr, cr),
            luma + green,
            luma + of(&self.blue_of_cb, cb),
        ]
        .map(|level| level.clamp(0, 255) as u8)
    }
}

/// Bytes of `rows` rows of blocks, in each of which `across` × `down` pixels
/// share their chroma.
pub(super) fn packed_bytes(columns: usize, rows: usize, (across, down): (usize, usize)) -> usize {
    let blocks = columns.div_ceil(across).saturating_mul(rows.div_ceil(down));
    blocks.saturating_mul(across * down + 2)
}

/// The three samples of each pixel, from blocks of the lumas of `across` ×
/// `down` pixels and their chroma.
pub(super) fn of_blocks(
    packed: &[u8],
    columns: usize,
    rows: usize,
    (across, down): (usize, usize),
) -> Vec<u8> {
    let mut samples = vec![0; columns * rows * 3];
    let blocks = packed.chunks_exact(across * down + 2);
    for (number, block) in blocks.enumerate() {
        let per_row = columns.div_ceil(across);
        let (left, top) = (number % per_row * across, number / per_row * down);
        let Some((lumas, &[cb, cr])) = block.split_last_chunk::<2>() else {
            break;
        };
        for (at, &luma) in lumas.iter().enumerate() {
            let (x, y) = (left + at % across, top + at / across);
            if x >= columns || y >= rows {
                continue;
            }
            let place = (y * columns + x) * 3;
            if let Some(pixel) = samples.get_mut(place..place + 3) {
                pixel.copy_from_slice(&[luma, cb, cr]);
            }
        }
    }
    samples
}
