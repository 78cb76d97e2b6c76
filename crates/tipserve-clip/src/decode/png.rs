//! PNG.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, DecodingError, Limits, Transformations};

use super::{Picture, PictureError, PictureLimits, buffer, drop_alpha, grey};

pub(super) fn decode(bytes: &[u8], limits: &PictureLimits) -> Result<Picture, PictureError> {
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
    let sample_bytes = if depth == BitDepth::Sixteen { 2 } else { 1 };
    let channels = colour.samples() as u64 * sample_bytes;
    // The decoder's output and the RGB made from it.
    limits.check_decoder(u64::from(width) * u64::from(height) * (channels + 3))?;
    let mut samples = buffer(width, height, channels, limits)?;
    if reader.output_buffer_size() != Some(samples.len()) {
        return Err(undecodable("its rows do not fit its size".into()));
    }
    reader.next_frame(&mut samples).map_err(refuse)?;
    if sample_bytes == 2 {
        // Big-endian: the high byte comes first.
        samples = samples.into_iter().step_by(2).collect();
    }
    let rgb = match colour {
        ColorType::Rgb => samples,
        ColorType::Rgba => drop_alpha(&samples),
        ColorType::Grayscale => grey(&samples, 1),
        ColorType::GrayscaleAlpha => grey(&samples, 2),
        ColorType::Indexed => return Err(undecodable("its palette is missing".into())),
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
        error => undecodable(error.to_string()),
    }
}
