//! Encoded bytes to RGB, as Pillow's `Image.open(…).convert("RGB")` gives it.
//!
//! The format is found from the content, never from a name. Dimensions are
//! checked in the header, before anything of the picture's size is allocated.
//! Of an animation the first frame is taken; alpha is dropped, not blended
//! (as Pillow's `convert`); EXIF orientation is not applied (CLIP's own
//! pipelines do not apply it either); colour profiles are ignored.
//!
//! JPEG, PNG and GIF use their decoders directly, not through the `image`
//! crate, whose conversions hide what decides the bytes: strictness, the
//! palette under transparent pixels, inverted CMYK.

mod frames;
mod gif;
mod jpeg;
mod png;
mod still;
mod tiff;

use image::ImageFormat;

use super::picture::{Picture, PictureError, PictureLimits};

/// Decodes one picture: JPEG, PNG, GIF, WebP, BMP, TIFF or PNM.
///
/// All give Pillow's bytes (held against Pillow 12.3). 16-bit colour keeps the
/// high byte, as Pillow does; 16-bit grey is refused, since Pillow cuts
/// everything above 255 off.
///
/// # Errors
/// [`PictureError`], naming the limit and the value where there is one. No
/// input makes it panic or allocate more than `limits` say.
pub fn decode(bytes: &[u8], limits: &PictureLimits) -> Result<Picture, PictureError> {
    decode_at_least(bytes, limits, None)
}

/// The same, but that a JPEG may be decoded at a half, a quarter or an eighth
/// of its size, the smallest whose shorter side still has `side` pixels. That
/// is done on the DCT's coefficients and saves most of the work after the
/// entropy decoder; the pixels are close to the full picture's box averages,
/// and not those that Pillow gives.
///
/// # Errors
/// As [`decode`].
pub fn decode_at_least(
    bytes: &[u8],
    limits: &PictureLimits,
    side: Option<u32>,
) -> Result<Picture, PictureError> {
    if bytes.is_empty() {
        return Err(PictureError::Empty);
    }
    if bytes.len() as u64 > limits.encoded_bytes {
        return Err(PictureError::TooLarge {
            what: "encoded bytes",
            setting: "max_picture_bytes",
            limit: limits.encoded_bytes,
            value: bytes.len() as u64,
        });
    }
    let format = image::guess_format(bytes);
    if let Ok(format) = format {
        limits.check_frames(frames::count(bytes, format, limits.frames))?;
    }
    match format {
        Ok(ImageFormat::Jpeg) => jpeg::decode(bytes, limits, side),
        Ok(ImageFormat::Png) => png::decode(bytes, limits),
        Ok(ImageFormat::Gif) => gif::decode(bytes, limits),
        Ok(ImageFormat::WebP) => still::decode(bytes, ImageFormat::WebP, "WebP", limits),
        Ok(ImageFormat::Bmp) => still::decode(bytes, ImageFormat::Bmp, "BMP", limits),
        Ok(ImageFormat::Tiff) => still::decode(bytes, ImageFormat::Tiff, "TIFF", limits),
        Ok(ImageFormat::Pnm) => still::decode(bytes, ImageFormat::Pnm, "PNM", limits),
        Ok(other) => Err(PictureError::Unsupported {
            what: format!("the format {other:?}"),
        }),
        Err(_) => Err(PictureError::Unrecognised {
            head: bytes
                .iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect::<Vec<_>>()
                .join(" "),
        }),
    }
}

/// A zeroed buffer for width × height × `channels` bytes, once that is known
/// to be within the limits.
fn buffer(
    width: u32,
    height: u32,
    channels: u64,
    limits: &PictureLimits,
) -> Result<Vec<u8>, PictureError> {
    let bytes = u64::from(width) * u64::from(height) * channels;
    limits.check_decoder(bytes)?;
    Ok(vec![0; bytes as usize])
}

/// The first three of each `N` channels.
fn drop_alpha(rgba: &[u8]) -> Vec<u8> {
    rgba.chunks_exact(4)
        .flat_map(|pixel| [pixel[0], pixel[1], pixel[2]])
        .collect()
}

/// The first of each `stride` bytes, three times.
fn grey(levels: &[u8], stride: usize) -> Vec<u8> {
    levels
        .iter()
        .step_by(stride)
        .flat_map(|&level| [level; 3])
        .collect()
}
