//! What a BMP's header says.

use super::errors::{truncated, undecodable};
use crate::picture::{PictureError, PictureLimits};

/// A header, checked.
#[derive(Debug)]
pub(super) struct Header {
    pub width: u32,
    pub height: u32,
    /// The first row is the top one.
    pub from_top: bool,
    /// Bits a pixel.
    pub bits: usize,
    pub pixels: Pixels,
    /// The indices of a palette are run-length encoded.
    pub run_lengths: bool,
    /// Where the pixels begin.
    pub data: usize,
}

/// What a pixel's bits are.
#[derive(Debug)]
pub(super) enum Pixels {
    /// An index into these colours, RGB; beyond them is black.
    Palette(Vec<[u8; 3]>),
    /// Blue, green and red, and perhaps a fourth byte.
    Bytes,
    Masked(Layout),
}

/// The bits of red, green and blue in a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout(pub [u32; 3]);

/// Bytes before the header proper.
const FILE_HEADER: usize = 14;

/// OS/2's first header, whose fields are shorter, and the second one.
const OS2_SHORT: u32 = 12;
const OS2_LONG: u32 = 64;

/// A little-endian number of `N` bytes.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<u32, PictureError> {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk::<N>);
    let field = field.ok_or_else(truncated)?;
    Ok(field
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
}

impl Header {
    pub(super) fn read(bytes: &[u8], limits: &PictureLimits) -> Result<Self, PictureError> {
        let size = number::<4>(bytes, 14)?;
        let short = size == OS2_SHORT;
        let (width, height, from_top, bits, compression) = if short {
            let (width, height) = (number::<2>(bytes, 18)?, number::<2>(bytes, 20)?);
            (width, height, false, number::<2>(bytes, 24)?, 0)
        } else if matches!(size, 40 | 52 | 56 | OS2_LONG | 108 | 124) {
            let (width, height) = (
                number::<4>(bytes, 18)? as i32,
                number::<4>(bytes, 22)? as i32,
            );
            let width =
                u32::try_from(width).map_err(|_| undecodable(format!("its width is {width}")))?;
            let (bits, compression) = (number::<2>(bytes, 28)?, number::<4>(bytes, 30)?);
            (width, height.unsigned_abs(), height < 0, bits, compression)
        } else {
            return Err(unsupported(format!("a BMP with a header of {size} bytes")));
        };
        if width == 0 || height == 0 {
            return Err(undecodable("a side is 0"));
        }
        limits.check_dimensions(width, height)?;
        let run_lengths = run_lengths(size, bits, compression)?;
        let mut after = FILE_HEADER + size as usize;
        let layout = match (size, compression) {
            (OS2_LONG, _) | (_, 0..=2) => None,
            _ => Some(Layout([
                number::<4>(bytes, 54)?,
                number::<4>(bytes, 58)?,
                number::<4>(bytes, 62)?,
            ])),
        };
        if size == 40 && layout.is_some() {
            after += if compression == 6 { 16 } else { 12 };
        }
        let pixels = match bits {
            1 | 2 | 4 | 8 => {
                let stated = if short { 0 } else { number::<4>(bytes, 46)? };
                let (colours, end) = palette(bytes, after, bits, stated, short)?;
                after = end;
                Pixels::Palette(colours)
            }
            16 => Pixels::Masked(of_16_bits(layout)?),
            24 | 32 => wide(bits, layout)?,
            _ => return Err(unsupported(format!("a BMP of {bits} bits a pixel"))),
        };
        let stated = number::<4>(bytes, 10)? as usize;
        Ok(Self {
            width,
            height,
            from_top,
            bits: bits as usize,
            pixels,
            run_lengths,
            // Some writers leave it 0.
            data: if stated == 0 { after } else { stated },
        })
    }
}

/// Whether the pixels are run-length encoded.
fn run_lengths(size: u32, bits: u32, compression: u32) -> Result<bool, PictureError> {
    match (compression, bits) {
        (0, _) => Ok(false),
        (1, 8) | (2, 4) => Ok(true),
        (3, 16 | 24 | 32) | (6, 16 | 32) if size != OS2_LONG => Ok(false),
        (4 | 5, _) if size != OS2_LONG => {
            let inside = if compression == 4 { "JPEG" } else { "PNG" };
            Err(unsupported(format!("a BMP that holds a {inside}")))
        }
        _ => Err(unsupported(format!(
            "a {bits}-bit BMP with compression {compression}"
        ))),
    }
}

/// The palette at `at`, and where it ends.
fn palette(
    bytes: &[u8],
    at: usize,
    bits: u32,
    stated: u32,
    short: bool,
) -> Result<(Vec<[u8; 3]>, usize), PictureError> {
    const MOST: usize = 256;
    let entry = if short { 3 } else { 4 };
    let count = match stated {
        0 => 1 << bits,
        stated => stated as usize,
    };
    let colours = bytes.get(at..).unwrap_or_default().chunks_exact(entry);
    let colours: Vec<[u8; 3]> = colours
        .take(count.min(MOST))
        .map(|entry| match entry {
            [blue, green, red, ..] => [*red, *green, *blue],
            _ => [0; 3],
        })
        .collect();
    if colours.len() < count.min(MOST) {
        return Err(truncated());
    }
    Ok((colours, at.saturating_add(count.saturating_mul(entry))))
}

/// Five bits a channel unless masks say where each stands.
fn of_16_bits(layout: Option<Layout>) -> Result<Layout, PictureError> {
    const RGB555: Layout = Layout([0x7C00, 0x3E0, 0x1F]);
    match layout {
        None => Ok(RGB555),
        Some(layout) if layout.is_clear(16) => Ok(layout),
        Some(Layout(masks)) => Err(unsupported(format!(
            "a 16-bit BMP with the colour masks {masks:x?}"
        ))),
    }
}

impl Layout {
    /// Whether each channel has bits of its own, one beside the other, within so many.
    fn is_clear(&self, bits: u32) -> bool {
        let [red, green, blue] = self.0;
        let beside = |mask: u32| {
            let from_lowest = mask.checked_shr(mask.trailing_zeros()).unwrap_or(0);
            from_lowest != 0 && from_lowest.trailing_ones() == from_lowest.count_ones()
        };
        let apart = red & green == 0 && (red | green) & blue == 0;
        apart && self.0.iter().all(|mask| beside(*mask)) && (red | green | blue) >> bits == 0
    }
}

/// Whole bytes, unless masks say otherwise. Some writers leave the masks 0.
fn wide(bits: u32, layout: Option<Layout>) -> Result<Pixels, PictureError> {
    match layout {
        None | Some(Layout([0, 0, 0] | [0xFF_0000, 0xFF00, 0xFF])) => Ok(Pixels::Bytes),
        Some(layout) if bits == 32 => Ok(Pixels::Masked(layout)),
        Some(Layout(masks)) => Err(unsupported(format!(
            "a 24-bit BMP with the colour masks {masks:x?}"
        ))),
    }
}

fn unsupported(what: impl std::fmt::Display) -> PictureError {
    PictureError::Unsupported {
        what: format!("{what} (save it as PNG, or as a BMP of 24 bits)"),
    }
}
