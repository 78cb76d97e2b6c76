//! TIFF and BigTIFF: the first page, as Pillow (with libtiff) reads it.
//!
//! Read: strips and tiles, interleaved or in planes; uncompressed, PackBits,
//! LZW, Deflate, Zstandard, JPEG, CCITT T.4 (one dimension) and T.6; grey of 1, 2, 4 and
//! 8 bits, palettes, RGB and CMYK of 8 and 16 bits, any extra samples, alpha
//! that the colours were multiplied by (divided out), either byte and bit
//! order, predictor 2. The picture is turned by its orientation tag, as
//! Pillow turns it.
//!
//! Refused, with the reason: 16-bit grey, signed and floating-point samples
//! (Pillow clips them at 255: where white is, is the sender's to say), CIE
//! L\*a\*b\*, YCbCr outside JPEG, old-style JPEG, LZMA, WebP and JPEG 2000
//! inside TIFF, CCITT modified Huffman and T.4 in two dimensions (the `fax`
//! crate has no decoder for these).
//!
//! It is our own reader on well-kept decompressors (`flate2`, `weezl`, `fax`,
//! libjpeg-turbo), since the `tiff` crate (0.11) reads predictor 2 with extra
//! samples wrongly, panics on tiled planes, and has no palettes.

mod chunk;
mod directory;
mod errors;
mod page;

use super::{
    samples::{buffer, cmyk, to_rgb, unmultiply},
    turn::turn,
};
use crate::picture::{Picture, PictureError, PictureLimits};
pub(super) use directory::Directories;
use errors::{truncated, undecodable};
use page::{Colour, Compression, Page};

pub(super) fn decode(bytes: &[u8], limits: &PictureLimits) -> Result<Picture, PictureError> {
    let file = Directories::open(bytes).ok_or_else(|| undecodable("it has no header"))?;
    let page = Page::read(&file, limits)?;
    check_memory(&page, bytes.len(), limits)?;
    let channels = page.colour.channels();
    let mut samples = buffer(page.width, page.height, channels as u64, limits)?;
    for index in 0..page.chunks.len() {
        read_chunk(&page, index, bytes, limits, &mut samples)?;
    }
    let rgb = match &page.colour {
        Colour::Grey { white_is_zero } => expand(&samples, |level| {
            [if *white_is_zero { 255 - level } else { level }; 3]
        }),
        Colour::Palette(entries) => expand(&samples, |index| {
            entries.get(usize::from(index)).copied().unwrap_or_default()
        }),
        Colour::Rgb {
            associated_alpha: false,
        }
        | Colour::YCbCr => samples,
        Colour::Rgb {
            associated_alpha: true,
        } => {
            to_rgb(&mut samples, unmultiply);
            samples
        }
        Colour::Cmyk => {
            to_rgb(&mut samples, cmyk);
            samples
        }
    };
    turn(
        Picture::new(page.width, page.height, rgb),
        page.orientation,
        limits,
    )
}

fn expand(samples: &[u8], rgb: impl Fn(u8) -> [u8; 3]) -> Vec<u8> {
    let mut out = vec![0; samples.len() * 3];
    for (pixel, sample) in out.chunks_exact_mut(3).zip(samples) {
        pixel.copy_from_slice(&rgb(*sample));
    }
    out
}

/// Checks what is held at most at once: the kept samples, and beside them
/// either the strip or tile that is unpacked or the RGB made of them.
fn check_memory(page: &Page, file: usize, limits: &PictureLimits) -> Result<(), PictureError> {
    let pixels = u64::from(page.width) * u64::from(page.height);
    let samples = pixels * page.colour.channels() as u64;
    let rgb = match page.colour.channels() {
        1 => pixels * 3,
        _ => 0,
    };
    let (columns, rows) = (page.chunk.0 as u64, page.chunk.1 as u64);
    let levels = columns
        .saturating_mul(rows)
        .saturating_mul(page.interleaved() as u64);
    // Packed bytes and levels are both there for samples that are not 8 bits.
    let packed = levels.saturating_mul(page.bits as u64).div_ceil(8);
    let unpacked = match page.bits {
        8 => packed,
        _ => packed.saturating_add(levels),
    };
    let reversed = if page.reversed_bits { file as u64 } else { 0 };
    let decompressor = match page.compression {
        Compression::Zstd => chunk::ZSTD_BYTES,
        _ => 0,
    };
    let chunk = unpacked
        .saturating_add(reversed)
        .saturating_add(decompressor);
    limits.check_decoder(samples.saturating_add(chunk.max(rgb)))
}

/// Decodes one strip or tile, and puts its pixels where they belong.
fn read_chunk(
    page: &Page,
    index: usize,
    bytes: &[u8],
    limits: &PictureLimits,
    samples: &mut [u8],
) -> Result<(), PictureError> {
    let (width, height) = (page.width as usize, page.height as usize);
    let across = width.div_ceil(page.chunk.0);
    let each_plane = across * height.div_ceil(page.chunk.1);
    let (plane, place) = (index / each_plane, index % each_plane);
    let channels = page.colour.channels();
    if page.planar && plane >= channels {
        return Ok(());
    }
    let (left, top) = (place % across * page.chunk.0, place / across * page.chunk.1);
    let visible = (
        page.chunk.1.min(height - top),
        page.chunk.0.min(width - left),
    );
    let rows = if page.tiled { page.chunk.1 } else { visible.0 };

    let &(offset, length) = page.chunks.get(index).ok_or_else(truncated)?;
    let data = bytes.get(offset..).ok_or_else(truncated)?;
    let data = data.get(..length.unwrap_or(data.len()).min(data.len()));
    let chunk = chunk::decode(page, data.unwrap_or_default(), rows, limits)?;

    let stride = page.interleaved();
    let kept = if page.planar { 1 } else { channels };
    let first = if page.planar { plane } else { 0 };
    let targets = samples.chunks_exact_mut(width * channels).skip(top);
    for (row, target) in chunk
        .levels
        .chunks_exact(chunk.row)
        .zip(targets)
        .take(visible.0)
    {
        let target = target.get_mut(left * channels..).unwrap_or_default();
        let pixels = target.chunks_exact_mut(channels).take(visible.1);
        for (to, from) in pixels.zip(row.chunks_exact(stride)) {
            for (to, from) in to.iter_mut().skip(first).zip(from.iter().take(kept)) {
                *to = *from;
            }
        }
    }
    Ok(())
}
