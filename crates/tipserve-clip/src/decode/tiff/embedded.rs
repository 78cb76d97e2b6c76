//! Strips and tiles that are pictures of their own: JPEG and WebP.

use image::ImageFormat;

use super::{
    colour::Colour,
    errors::undecodable,
    page::{Compression, Page},
};
use crate::{
    decode::{jpeg, still},
    picture::{PictureError, PictureLimits},
};

/// The levels of such a chunk, as far down as `rows`.
pub(super) fn levels(
    page: &Page,
    data: &[u8],
    rows: usize,
    limits: &PictureLimits,
) -> Result<Vec<u8>, PictureError> {
    let (width, height, mut levels) = if page.compression == Compression::WebP {
        webp(page, data, limits)?
    } else {
        let tables = page.jpeg_tables.unwrap_or_default().len();
        limits.check_decoder((data.len() + tables) as u64)?;
        let stream = stream(page, data)?;
        limits.beside(stream.len() as u64, |limits| {
            jpeg::decode_levels(&stream, page.interleaved(), limits)
        })?
    };
    if width as usize != page.chunk.0 || (height as usize) < rows {
        return Err(undecodable(format!(
            "a strip or tile is {width}×{height}, not {}×{rows}",
            page.chunk.0
        )));
    }
    levels.truncate(page.chunk.0 * page.interleaved() * rows);
    Ok(levels)
}

/// A JPEG stream of its own, but for tables that all of them share.
///
/// What colours its components are is what the TIFF says, as libtiff has it: the stream's own
/// word (JFIF's or Adobe's marker) is left out.
fn stream(page: &Page, data: &[u8]) -> Result<Vec<u8>, PictureError> {
    let mut body = data
        .strip_prefix(&[0xFF, 0xD8])
        .ok_or_else(|| undecodable("a JPEG strip or tile does not begin as one"))?;
    let mut stream = vec![0xFF, 0xD8];
    let rgb = matches!(page.colour, Colour::Rgb { .. });
    let subsampled = rgb && jpeg::is_subsampled(data)?;
    if subsampled && after_application_marker(body).is_none() {
        return Err(undecodable(
            "it says that its JPEG is RGB, and that is subsampled",
        ));
    }
    // YCbCr by its own word, which is more than the TIFF's.
    if page.interleaved() >= 3 && !subsampled {
        let transform = u8::from(matches!(page.colour, Colour::JpegYCbCr));
        stream.extend(b"\xFF\xEE\0\x0EAdobe\0\x64\0\0\0\0");
        stream.push(transform);
        while let Some(rest) = after_application_marker(body) {
            body = rest;
        }
    }
    if let Some(tables) = page.jpeg_tables {
        let tables = tables.strip_prefix(&[0xFF, 0xD8]).unwrap_or(tables);
        stream.extend(tables.strip_suffix(&[0xFF, 0xD9]).unwrap_or(tables));
    }
    stream.extend(body);
    Ok(stream)
}

/// What follows a marker by which a JPEG stream names its colours itself (JFIF or Adobe).
fn after_application_marker(body: &[u8]) -> Option<&[u8]> {
    let (&[0xFF, 0xE0 | 0xEE, high, low], _) = body.split_first_chunk::<4>()? else {
        return None;
    };
    body.get(2 + usize::from(u16::from_be_bytes([high, low]))..)
}

/// RGB, or RGB and alpha, whichever of the two the WebP has.
fn webp(
    page: &Page,
    data: &[u8],
    limits: &PictureLimits,
) -> Result<(u32, u32, Vec<u8>), PictureError> {
    const NAME: &str = "WebP inside the TIFF";
    let held = still::webp_bytes(data);
    let still = still::read(data, ImageFormat::WebP, NAME, held, limits)?;
    let found = usize::from(still.colour.bytes_per_pixel());
    let pixels = still.samples.chunks_exact(found.max(1));
    let levels = match (found, page.samples) {
        (3, 3) | (4, 4) => still.samples,
        (4, 3) => pixels
            .flat_map(|pixel| pixel.iter().take(3))
            .copied()
            .collect(),
        // One whose alpha is all opaque was written without.
        (3, _) => pixels
            .flat_map(|pixel| pixel.iter().copied().chain([255]))
            .collect(),
        _ => return Err(undecodable("it is not what its TIFF says")),
    };
    Ok((still.width, still.height, levels))
}
