//! TIFF and BigTIFF: the first page, as Pillow (with libtiff) reads it.
//!
//! Read: strips and tiles, interleaved or in planes; uncompressed, PackBits,
//! LZW (of before 1988, too), Deflate, Zstandard, LZMA, JPEG (old-style, too),
//! WebP, CCITT modified Huffman, T.4 and T.6; grey, RGB and CMYK of whole
//! numbers or floating point, palettes, YCbCr, CIE L\*a\*b\*, any extra
//! samples, alpha that the colours were multiplied by (divided out), either
//! byte and bit order, predictors 2 and 3. The picture is turned by its
//! orientation tag, as Pillow turns it.
//!
//! Levels: of more than 8 bits the highest 8 count, as in 16-bit PNG. Floating
//! point is from 0, black, to 1, white, as numpy's arrays of floats are; a
//! picture with any other sample is refused.
//!
//! Refused, with the reason: a first page that stands for another (raw files begin with a preview),
//! grey of 16 bits and more, signed samples of more
//! than 8 (Pillow clips them at 255: where white is, is the sender's to say),
//! complex samples, samples of different sizes, ITU's L\*a\*b\*, LogLuv, raw
//! data of cameras, other inks than CMYK, JPEG of 12 bits, and what is
//! compressed with LERC, JPEG 2000, JPEG XL, JBIG and the like.
//!
//! It is our own reader on well-kept decompressors (`flate2`, `weezl`, `zstd`,
//! `lzma-rust2`, `fax`'s tables, libjpeg-turbo, `image`), since the `tiff`
//! crate (0.11) reads predictor 2 with extra samples wrongly, panics on tiled
//! planes, and has no palettes.

mod chunk;
mod colour;
mod directory;
mod embedded;
mod errors;
mod fax;
mod first;
mod lab;
mod levels;
mod old_jpeg;
mod page;
mod tags;
mod unpack;
mod ycbcr;

use super::{jpeg, samples::buffer, turn::turn};
use crate::picture::{Picture, PictureError, PictureLimits};
use chunk::Place;
pub(super) use directory::Directories;
use errors::{truncated, undecodable};
use levels::{Format, Range};
use page::{Compression, Page};

pub(super) fn decode(bytes: &[u8], limits: &PictureLimits) -> Result<Picture, PictureError> {
    let file = Directories::open(bytes).ok_or_else(|| undecodable("it has no header"))?;
    let page = Page::read(&file, bytes, limits)?;
    let samples = match &page.stream {
        Some(stream) => whole_picture(&page, stream, limits)?,
        None => chunk_by_chunk(&page, bytes, limits)?,
    };
    let rgb = page.colour.rgb(samples);
    turn(
        Picture::new(page.width, page.height, rgb),
        page.orientation,
        limits,
    )
}

/// The samples of a page that is one JPEG stream.
fn whole_picture(
    page: &Page,
    stream: &[u8],
    limits: &PictureLimits,
) -> Result<Vec<u8>, PictureError> {
    let grey = match page.samples {
        1 => 3 * u64::from(page.width) * u64::from(page.height),
        _ => 0,
    };
    let (width, height, samples) = limits.beside(stream.len() as u64 + grey, |limits| {
        jpeg::decode_levels(stream, page.samples, limits)
    })?;
    if (width, height) != (page.width, page.height) {
        return Err(undecodable("its JPEG stream has another size"));
    }
    Ok(samples)
}

/// The samples of a page in strips or tiles.
fn chunk_by_chunk(
    page: &Page,
    bytes: &[u8],
    limits: &PictureLimits,
) -> Result<Vec<u8>, PictureError> {
    check_memory(page, bytes.len(), limits)?;
    let channels = page.colour.channels() as u64;
    let mut samples = buffer(page.width, page.height, channels, limits)?;
    let mut range = Range::NONE;
    limits.beside(samples.len() as u64, |limits| {
        for index in 0..page.chunks.len() {
            range.join(read_chunk(page, index, bytes, limits, &mut samples)?);
        }
        Ok(())
    })?;
    range.check()?;
    Ok(samples)
}

/// Checks what is held at most at once: the kept samples, and beside them
/// either the strip or tile that is unpacked or the RGB made of them. (What a
/// JPEG's or WebP's decoder holds, it counts itself.)
fn check_memory(page: &Page, file: usize, limits: &PictureLimits) -> Result<(), PictureError> {
    let pixels = u64::from(page.width) * u64::from(page.height);
    let samples = pixels * page.colour.channels() as u64;
    let rgb = match page.colour.channels() {
        1 | 2 => pixels * 3,
        _ => 0,
    };
    let packed = page.packed_bytes(page.chunk.1) as u64;
    // Packed bytes and levels are both there for samples that are not 8 bits.
    let levels = (page.chunk.0 as u64)
        .saturating_mul(page.chunk.1 as u64)
        .saturating_mul(page.interleaved() as u64);
    let in_place = page.bits == 8 && page.format == Format::Whole && page.subsampling == (1, 1);
    let reversed = if page.reversed_bits { file as u64 } else { 0 };
    let chunk = packed
        .saturating_add(if in_place { 0 } else { levels })
        .saturating_add(reversed)
        .saturating_add(unpack::decompressor_bytes(page.compression, packed));
    limits.check_decoder(samples.saturating_add(chunk.max(rgb)))
}

/// Decodes one strip or tile, and puts its pixels where they belong.
fn read_chunk(
    page: &Page,
    index: usize,
    bytes: &[u8],
    limits: &PictureLimits,
    samples: &mut [u8],
) -> Result<Range, PictureError> {
    let (width, height) = (page.width as usize, page.height as usize);
    let across = width.div_ceil(page.chunk.0);
    let each_plane = across * height.div_ceil(page.chunk.1);
    let (plane, number) = (index / each_plane, index % each_plane);
    let channels = page.colour.channels();
    if page.planar && plane >= channels {
        return Ok(Range::NONE);
    }
    let left = number % across * page.chunk.0;
    let top = number / across * page.chunk.1;
    let visible = (
        page.chunk.1.min(height - top),
        page.chunk.0.min(width - left),
    );
    let rows = if page.tiled { page.chunk.1 } else { visible.0 };

    let &(offset, length) = page.chunks.get(index).ok_or_else(truncated)?;
    let data = bytes.get(offset..).ok_or_else(truncated)?;
    // What is not compressed has the length that its size says, whatever is stated.
    let length = length.filter(|_| page.compression != Compression::None);
    let data = data.get(..length.unwrap_or(data.len()).min(data.len()));
    let place = Place {
        plane,
        rows,
        visible,
    };
    let chunk = chunk::decode(page, data.unwrap_or_default(), &place, limits)?;

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
    Ok(chunk.range)
}
