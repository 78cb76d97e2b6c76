//! Encoded bytes to RGB, as Pillow's `Image.open(…).convert("RGB")` gives it.
//!
//! The format is found from the content, never from a name. Dimensions are
//! checked in the header, before anything of the picture's size is allocated.
//! Of an animation the first frame is taken; alpha is dropped, not blended
//! (as Pillow's `convert`); EXIF orientation is applied if asked for
//! ([`ExifOrientation`]); colour profiles are ignored.
//!
//! JPEG, PNG, GIF, BMP and TIFF use their decoders directly, not through the
//! `image` crate, whose conversions hide what decides the bytes: strictness,
//! the palette under transparent pixels, inverted CMYK.

mod bmp;
mod chunks;
mod contained;
mod foreign;
mod format;
mod frames;
mod gif;
mod jpeg;
mod options;
mod orientation;
mod png;
mod pnm;
mod samples;
mod still;
mod tiff;
mod turn;

use crate::picture::{Picture, PictureError, PictureLimits};
use format::Format;
pub use options::{DecodeOptions, ExifOrientation};

/// Decodes one picture: JPEG, PNG, GIF, WebP, BMP, TIFF or PNM, with the
/// default options.
///
/// All give Pillow's bytes (held against Pillow 12.3). 16-bit colour keeps the
/// high byte, as Pillow does (of a PNM it is rounded, as Pillow does, too); 16-bit grey is
/// refused, since Pillow cuts everything above 255 off. A JPEG or PNG that has every pixel and lacks its
/// end mark is taken, and says so ([`Picture::lacks_end_mark`]).
///
/// # Errors
/// [`PictureError`], naming the limit and the value if there is one. No
/// input makes it panic or allocate more than `limits` say.
pub fn decode(bytes: &[u8], limits: &PictureLimits) -> Result<Picture, PictureError> {
    decode_with(bytes, limits, &DecodeOptions::default())
}

/// The same, with options.
///
/// # Errors
/// As [`decode`].
pub fn decode_with(
    bytes: &[u8],
    limits: &PictureLimits,
    options: &DecodeOptions,
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
    let format = format::sniff(bytes)?;
    contained::contained(|| decode_as(format, bytes, limits, options)).unwrap_or_else(|panic| {
        // The decoder's bug, met by a hostile or a new kind of file: for the
        // operator to report, not for the sender to mend.
        tracing::error!(
            format = format.name(),
            bytes = bytes.len(),
            panic,
            "a picture decoder panicked"
        );
        Err(PictureError::Undecodable {
            format: format.name(),
            detail: "the decoder failed on this picture".into(),
        })
    })
}

fn decode_as(
    format: Format,
    bytes: &[u8],
    limits: &PictureLimits,
    options: &DecodeOptions,
) -> Result<Picture, PictureError> {
    limits.check_frames(frames::count(bytes, format, limits.frames))?;
    match format {
        Format::Jpeg => jpeg::decode(bytes, limits, options),
        Format::Png => png::decode(bytes, limits, options),
        Format::Gif => gif::decode(bytes, limits),
        Format::WebP => still::decode_webp(bytes, limits, options),
        Format::Bmp => bmp::decode(bytes, limits),
        Format::Tiff => tiff::decode(bytes, limits),
        Format::Pnm => pnm::decode(bytes, limits),
    }
}
