//! PNG.

use std::{borrow::Cow, io::Cursor};

use png::{BitDepth, ColorType, Decoder, DecodingError, Limits, Transformations};

use super::{
    chunks,
    options::{DecodeOptions, ExifOrientation},
    orientation::of_png,
    samples::{buffer, grey, to_rgb},
    turn::turn,
};
use crate::picture::{Picture, PictureError, PictureLimits};

pub(super) fn decode(
    bytes: &[u8],
    limits: &PictureLimits,
    options: &DecodeOptions,
) -> Result<Picture, PictureError> {
    if chunks::png(bytes)
        .next()
        .is_some_and(|chunk| chunk.kind == b"CgBI")
    {
        return Err(PictureError::Unsupported {
            what: "a PNG that Apple's tools rewrote for iOS (undo it with `pngcrush \
                   -revert-iphone-optimizations IN OUT`)"
                .into(),
        });
    }
    let ended = with_end_mark(bytes, limits)?;
    let mut picture = decode_ended(&ended, limits)?;
    if matches!(ended, Cow::Owned(_)) {
        picture = picture.without_end_mark();
    }
    drop(ended);
    match options.exif_orientation {
        ExifOrientation::Apply => turn(picture, of_png(bytes).unwrap_or(1), limits),
        ExifOrientation::Ignore => Ok(picture),
    }
}

/// The file, with an end mark if that alone is missing: all its other chunks
/// are whole. The decoder says whether they hold every pixel.
fn with_end_mark<'a>(
    bytes: &'a [u8],
    limits: &PictureLimits,
) -> Result<Cow<'a, [u8]>, PictureError> {
    const END: &[u8] = b"\0\0\0\0IEND\xAE\x42\x60\x82";
    let mut last = None;
    for chunk in chunks::png(bytes) {
        if chunk.kind == b"IEND" {
            return Ok(Cow::Borrowed(bytes));
        }
        last = Some(chunk);
    }
    let Some(whole) = last.and_then(|chunk| bytes.get(..chunk.end)) else {
        return Ok(Cow::Borrowed(bytes));
    };
    // Part of an end mark may be there, but not part of other chunks.
    let rest = bytes.get(whole.len()..).unwrap_or_default();
    if !END.starts_with(rest) {
        return Ok(Cow::Borrowed(bytes));
    }
    limits.check_decoder(bytes.len() as u64)?;
    Ok(Cow::Owned([whole, END].concat()))
}

fn decode_ended(bytes: &[u8], limits: &PictureLimits) -> Result<Picture, PictureError> {
    let mut decoder = Decoder::new_with_limits(
        Cursor::new(bytes),
        Limits {
            bytes: usize::try_from(limits.decoder_bytes).unwrap_or(usize::MAX),
        },
    );
    // Compressed text and colour profiles can be bombs of their own (image-rs
    // 2993), and nothing here reads them.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(refuse)?;
    let (width, height) = header.size();
    if width == 0 || height == 0 {
        return Err(undecodable("a side is 0".into()));
    }
    limits.check_dimensions(width, height)?;
    if (header.color_type, header.bit_depth) == (ColorType::Grayscale, BitDepth::Sixteen) {
        return Err(PictureError::Unsupported {
            what: "a 16-bit grey PNG (convert it to 8 bits: where to put white is the sender's to say)"
                .into(),
        });
    }

    // EXPAND: palettes become RGB, grey below 8 bits is scaled to 8.
    decoder.set_transformations(Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(refuse)?;
    // The decoder checks that there are at most 256 entries, and panics over a
    // part of one (png 0.18.1).
    if let (ColorType::Indexed, Some(palette)) = (reader.info().color_type, &reader.info().palette)
        && !palette.len().is_multiple_of(3)
    {
        return Err(undecodable(format!(
            "its palette has {} bytes, not 3 for each entry",
            palette.len()
        )));
    }
    let (colour, depth) = reader.output_color_type();
    let wide = depth == BitDepth::Sixteen;
    let channels = colour.samples() as u64 * if wide { 2 } else { 1 };
    // Grey is copied to RGB, colour is converted in place.
    let copied = if colour.samples() < 3 { 3 } else { 0 };
    limits.check_decoder(u64::from(width) * u64::from(height) * (channels + copied))?;
    let mut samples = buffer(width, height, channels, limits)?;
    if reader.output_buffer_size() != Some(samples.len()) {
        return Err(undecodable("its rows do not fit its size".into()));
    }
    reader.next_frame(&mut samples).map_err(refuse)?;
    // Samples of 16 bits are big-endian: their first byte is kept.
    let rgb = match (colour, wide) {
        (ColorType::Rgb, false) => samples,
        (ColorType::Rgb, true) => {
            to_rgb(&mut samples, |&[red, _, green, _, blue, _]| {
                [red, green, blue]
            });
            samples
        }
        (ColorType::Rgba, false) => {
            to_rgb(&mut samples, |&[red, green, blue, _]| [red, green, blue]);
            samples
        }
        (ColorType::Rgba, true) => {
            to_rgb(&mut samples, |&[red, _, green, _, blue, _, _, _]| {
                [red, green, blue]
            });
            samples
        }
        (ColorType::Grayscale | ColorType::GrayscaleAlpha, _) => grey(&samples, channels as usize),
        (ColorType::Indexed, _) => return Err(undecodable("its palette is missing".into())),
    };
    Ok(Picture::new(width, height, rgb))
}

fn undecodable(detail: String) -> PictureError {
    PictureError::Undecodable {
        format: "PNG",
        detail,
    }
}

fn refuse(error: DecodingError) -> PictureError {
    match error {
        DecodingError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            PictureError::Truncated {
                format: "PNG",
                detail: "the data ends before the picture does".into(),
            }
        }
        error => undecodable(with_plain_chunks(&error.to_string())),
    }
}

/// The decoder's words with chunks by their names alone, not by all that is known of them.
fn with_plain_chunks(text: &str) -> String {
    const BEGINS: &str = "ChunkType { type: ";
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, chunk)) = rest.split_once(BEGINS) {
        let (about, after) = chunk.split_once('}').unwrap_or((chunk, ""));
        plain.push_str(before);
        plain.push_str(about.split(',').next().unwrap_or(about));
        rest = after;
    }
    plain + rest
}
