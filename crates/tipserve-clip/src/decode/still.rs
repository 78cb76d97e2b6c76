//! WebP, and what else goes through the `image` crate's decoders.

use std::io::Cursor;

use image::{
    ColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits,
    error::UnsupportedErrorKind,
};

use super::{
    chunks,
    format::Format,
    options::{DecodeOptions, ExifOrientation},
    orientation::of_webp,
    samples::{buffer, grey, to_rgb},
    turn::turn,
};
use crate::picture::{Picture, PictureError, PictureLimits};

pub(super) fn decode_webp(
    bytes: &[u8],
    limits: &PictureLimits,
    options: &DecodeOptions,
) -> Result<Picture, PictureError> {
    // The decoder takes zeros for what is missing of its data.
    let first = |kind: &[u8; 4]| matches!(kind, b"VP8 " | b"VP8L" | b"ANMF");
    if !chunks::riff(bytes).any(|chunk| first(chunk.kind)) {
        return Err(truncated(Format::WebP.name()));
    }
    let held = webp_bytes(bytes);
    let picture = match with_plain_first_frame(bytes) {
        None => decode(bytes, ImageFormat::WebP, Format::WebP, held, limits),
        Some(plain) => limits.beside(bytes.len() as u64, |limits| {
            decode(&plain, ImageFormat::WebP, Format::WebP, held, limits)
        }),
    }?;
    match options.exif_orientation {
        ExifOrientation::Apply => turn(picture, of_webp(bytes).unwrap_or(1), limits),
        ExifOrientation::Ignore => Ok(picture),
    }
}

/// An animation whose first frame is not blended with the empty canvas before it, which libwebp
/// (and so Pillow) does not do either: the decoder's blending would change colours. None if the
/// file is none, or is so already.
fn with_plain_first_frame(bytes: &[u8]) -> Option<Vec<u8>> {
    const FLAGS: usize = 15;
    const NOT_BLENDED: u8 = 2;
    let frame = chunks::riff(bytes).find(|chunk| chunk.kind == b"ANMF")?;
    if frame.data.get(FLAGS)? & NOT_BLENDED != 0 {
        return None;
    }
    let start = frame
        .end
        .checked_sub(frame.data.len().next_multiple_of(2))?;
    let mut plain = bytes.to_vec();
    *plain.get_mut(start + FLAGS)? |= NOT_BLENDED;
    Some(plain)
}

/// Bytes a pixel that the WebP decoder holds beside its output, rounded up
/// (image-webp 0.2).
pub(super) fn webp_bytes(bytes: &[u8]) -> u64 {
    let mut alpha = false;
    for chunk in chunks::riff(bytes) {
        match chunk.kind {
            // An animation's canvas and its frame, decoded as below.
            b"ANMF" => return 15,
            b"ALPH" => alpha = true,
            // Luma and half of chroma, on whole macroblocks; alpha is a
            // lossless picture of its own, and a plane made of that.
            b"VP8 " => return if alpha { 7 } else { 2 },
            // Four channels, and the tables of its transforms.
            b"VP8L" => return 5,
            _ => {}
        }
    }
    5
}

pub(super) fn decode(
    bytes: &[u8],
    kind: ImageFormat,
    format: Format,
    held: u64,
    limits: &PictureLimits,
) -> Result<Picture, PictureError> {
    let format = format.name();
    let Still {
        width,
        height,
        colour,
        mut samples,
    } = read(bytes, kind, format, held, limits)?;
    let rgb = match colour {
        ColorType::Rgb8 => samples,
        ColorType::Rgba8 => {
            to_rgb(&mut samples, |&[red, green, blue, _]| [red, green, blue]);
            samples
        }
        ColorType::L8 => grey(&samples, 1),
        ColorType::La8 => grey(&samples, 2),
        other => {
            return Err(PictureError::Unsupported {
                what: format!("a {format} in {other:?} (convert it to 8 bits)"),
            });
        }
    };
    Ok(Picture::new(width, height, rgb))
}

/// A still picture as it is stored.
pub(super) struct Still {
    pub width: u32,
    pub height: u32,
    pub colour: ColorType,
    pub samples: Vec<u8>,
}

/// Reads a still picture, which errors call `format`. `held` are the bytes a
/// pixel that the decoder holds beside its output.
pub(super) fn read(
    bytes: &[u8],
    kind: ImageFormat,
    format: &'static str,
    held: u64,
    limits: &PictureLimits,
) -> Result<Still, PictureError> {
    let refuse = |error| refuse(error, format);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), kind);
    // A decoder's own first allocations, such as tables.
    let mut bounds = Limits::no_limits();
    bounds.max_alloc = Some(limits.decoder_bytes);
    reader.limits(bounds.clone());
    let mut decoder = reader.into_decoder().map_err(refuse)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(PictureError::Undecodable {
            format,
            detail: "a side is 0".into(),
        });
    }
    limits.check_dimensions(width, height)?;
    decoder.set_limits(bounds).map_err(refuse)?;

    let colour = decoder.color_type();
    let channels = u64::from(colour.bytes_per_pixel());
    // Grey is copied to RGB, colour is converted in place.
    let copied = if colour.channel_count() < 3 { 3 } else { 0 };
    let pixels = u64::from(width) * u64::from(height);
    limits.check_decoder(pixels * (channels + held.max(copied)))?;
    let mut samples = buffer(width, height, channels, limits)?;
    if decoder.total_bytes() != samples.len() as u64 {
        return Err(PictureError::Undecodable {
            format,
            detail: "its rows do not fit its size".into(),
        });
    }
    decoder.read_image(&mut samples).map_err(refuse)?;
    Ok(Still {
        width,
        height,
        colour,
        samples,
    })
}

pub(super) fn truncated(format: &'static str) -> PictureError {
    PictureError::Truncated {
        format,
        detail: "the data ends before the picture does".into(),
    }
}

pub(super) fn refuse(error: ImageError, format: &'static str) -> PictureError {
    match error {
        ImageError::Unsupported(error) => PictureError::Unsupported {
            what: match error.kind() {
                UnsupportedErrorKind::Color(colour) => {
                    format!("a {format} in {colour:?} (convert it to PNG)")
                }
                _ => format!("this {format} (convert it to PNG; {error})"),
            },
        },
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            truncated(format)
        }
        error => PictureError::Undecodable {
            format,
            detail: error.to_string(),
        },
    }
}
