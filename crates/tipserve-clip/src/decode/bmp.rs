//! BMP of 16 bits a pixel, with Pillow's levels, and OS/2's longer header. (All else goes through
//! the `image` crate, which rounds the one otherwise and does not know the other.)

use super::samples::buffer;
use crate::picture::{Picture, PictureError, PictureLimits};

/// How a BMP's 16 bits are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Five bits a channel; the top bit is unused.
    Rgb555,
    /// Five bits of red and blue, six of green.
    Rgb565,
}

/// A little-endian number of `N` bytes.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk::<N>()?;
    Some(
        field
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u32::from(*byte)),
    )
}

/// Decodes a BMP of 16 bits a pixel; none if it has another depth.
pub(super) fn decode(
    bytes: &[u8],
    limits: &PictureLimits,
) -> Option<Result<Picture, PictureError>> {
    let header = number::<4>(bytes, 14)?;
    let bits = match header {
        12 => number::<2>(bytes, 24)?,
        _ => number::<2>(bytes, 28)?,
    };
    (bits == 16).then(|| decode_16(bytes, header, limits))
}

/// A file with the header of OS/2 2 made one with the header of Windows 3: the first 40 bytes of
/// the former's 64 are the latter's. None for any other header, and for the two kinds of
/// compression that only OS/2 has.
pub(super) fn of_os2(bytes: &[u8]) -> Option<Vec<u8>> {
    const FILE_HEADER: usize = 14;
    let (long, short) = (64, 40);
    let (file_header, rest) = bytes.split_at_checked(FILE_HEADER)?;
    let (header, pixels) = rest.split_at_checked(long)?;
    if number::<4>(header, 0)? != long as u32 || number::<4>(header, 16)? > 2 {
        return None;
    }
    let offset = number::<4>(file_header, 10)?.checked_sub((long - short) as u32)?;
    let mut file = file_header.get(..10)?.to_vec();
    file.extend(offset.to_le_bytes());
    file.extend((short as u32).to_le_bytes());
    file.extend(header.get(4..short)?);
    file.extend(pixels);
    Some(file)
}

/// A file that has every pixel and lacks what fills its last row up, with that: some writers
/// leave it out. None if nothing is missing, or more than that.
pub(super) fn padded(bytes: &[u8]) -> Option<Vec<u8>> {
    let (width, height, bits) = match number::<4>(bytes, 14)? {
        12 => (
            number::<2>(bytes, 18)?,
            number::<2>(bytes, 20)?,
            number::<2>(bytes, 24)?,
        ),
        _ if matches!(number::<4>(bytes, 30)?, 0 | 3) => (
            number::<4>(bytes, 18)?,
            (number::<4>(bytes, 22)? as i32).unsigned_abs(),
            number::<2>(bytes, 28)?,
        ),
        _ => return None,
    };
    let row = (width as usize).checked_mul(bits as usize)?.div_ceil(8);
    let pitch = row.checked_next_multiple_of(4)?;
    let end = pitch
        .checked_mul(height as usize)?
        .checked_add(number::<4>(bytes, 10)? as usize)?;
    let missing = end.checked_sub(bytes.len())?;
    if missing == 0 || missing > pitch - row {
        return None;
    }
    let mut file = bytes.to_vec();
    file.resize(end, 0);
    Some(file)
}

fn decode_16(bytes: &[u8], header: u32, limits: &PictureLimits) -> Result<Picture, PictureError> {
    let short = header == 12;
    let field = |at| number::<4>(bytes, at).ok_or_else(truncated);
    let (width, height) = if short {
        let side = |at| number::<2>(bytes, at).ok_or_else(truncated);
        (side(18)?, side(20)?)
    } else {
        (field(18)?, field(22)?)
    };
    // A negative height: the first row is the top one.
    let from_top = !short && (height as i32) < 0;
    let height = if from_top {
        (height as i32).unsigned_abs()
    } else {
        height
    };
    if width == 0 || height == 0 {
        return Err(undecodable("a side is 0"));
    }
    limits.check_dimensions(width, height)?;
    let compression = if short { 0 } else { field(30)? };
    let layout = match compression {
        0 => Layout::Rgb555,
        3 => match (field(54)?, field(58)?, field(62)?) {
            (0x7C00, 0x3E0, 0x1F) => Layout::Rgb555,
            (0xF800, 0x7E0, 0x1F) => Layout::Rgb565,
            masks => {
                return Err(PictureError::Unsupported {
                    what: format!("a 16-bit BMP with the colour masks {masks:x?}"),
                });
            }
        },
        other => {
            return Err(PictureError::Unsupported {
                what: format!("a 16-bit BMP with compression {other}"),
            });
        }
    };
    let mut rgb = buffer(width, height, 3, limits)?;
    let (width_bytes, pitch) = (width as usize * 2, (width as usize * 2).next_multiple_of(4));
    let data = bytes.get(field(10)? as usize..).ok_or_else(truncated)?;
    for (number, source) in (0..height as usize).zip(data.chunks(pitch)) {
        let row = if from_top {
            number
        } else {
            height as usize - 1 - number
        };
        let source = source.get(..width_bytes).ok_or_else(truncated)?;
        let target = rgb.chunks_exact_mut(width as usize * 3).nth(row);
        for (to, from) in target
            .into_iter()
            .flat_map(|row| row.chunks_exact_mut(3))
            .zip(source.as_chunks::<2>().0)
        {
            to.copy_from_slice(&levels(u16::from_le_bytes(*from), layout));
        }
    }
    if data.len() < pitch * (height as usize - 1) + width_bytes {
        return Err(truncated());
    }
    Ok(Picture::new(width, height, rgb))
}

/// Red, green and blue, scaled to 0–255 and rounded down.
fn levels(pixel: u16, layout: Layout) -> [u8; 3] {
    let level = |shift: u32, bits: u32| {
        let most = (1 << bits) - 1;
        (u32::from(pixel) >> shift & most) * 255 / most
    };
    match layout {
        Layout::Rgb555 => [level(10, 5), level(5, 5), level(0, 5)],
        Layout::Rgb565 => [level(11, 5), level(5, 6), level(0, 5)],
    }
    .map(|level| level as u8)
}

fn truncated() -> PictureError {
    PictureError::Truncated {
        format: "BMP",
        detail: "the data ends before the picture does".into(),
    }
}

fn undecodable(detail: &str) -> PictureError {
    PictureError::Undecodable {
        format: "BMP",
        detail: detail.into(),
    }
}
