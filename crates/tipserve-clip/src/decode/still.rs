//! WebP, BMP, TIFF and PNM, by the `image` crate's decoders.

use std::io::Cursor;

use image::{
    ColorType, ExtendedColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits,
    codecs::pnm::PnmDecoder, error::UnsupportedErrorKind, metadata::Orientation,
};

use super::{Picture, PictureError, PictureLimits, buffer, drop_alpha, grey, tiff};

pub(super) fn decode(
    bytes: &[u8],
    kind: ImageFormat,
    format: &'static str,
    limits: &PictureLimits,
) -> Result<Picture, PictureError> {
    let refuse = |error| refuse(error, format);
    let unsupported = |what: &str| PictureError::Unsupported {
        what: format!("a {format} {what}"),
    };
    if kind == ImageFormat::Pnm {
        let decoder = PnmDecoder::new(Cursor::new(bytes)).map_err(refuse)?;
        let levels = decoder.header().maximal_sample();
        // Pillow rounds other scales in its own way.
        if !matches!(levels, 1 | 255) {
            return Err(unsupported(&format!("whose white is {levels}, not 255")));
        }
    }
    if kind == ImageFormat::Tiff {
        tiff::check(bytes, limits)?;
    }
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

    // Pillow turns a TIFF by its orientation tag, and no other format.
    if kind == ImageFormat::Tiff && !matches!(decoder.orientation(), Ok(Orientation::NoTransforms))
    {
        return Err(unsupported("with an orientation tag other than 1"));
    }
    if let original @ (ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16) =
        decoder.original_color_type()
    {
        return Err(unsupported(&format!("in {original:?}")));
    }
    let colour = decoder.color_type();
    let channels = u64::from(colour.bytes_per_pixel());
    limits.check_decoder(u64::from(width) * u64::from(height) * (channels + 3))?;
    let mut samples = buffer(width, height, channels, limits)?;
    if decoder.total_bytes() != samples.len() as u64 {
        return Err(PictureError::Undecodable {
            format,
            detail: "its rows do not fit its size".into(),
        });
    }
    decoder.read_image(&mut samples).map_err(refuse)?;
    let rgb = match colour {
        ColorType::Rgb8 => samples,
        ColorType::Rgba8 => drop_alpha(&samples),
        ColorType::L8 => grey(&samples, 1),
        ColorType::La8 => grey(&samples, 2),
        ColorType::Rgb16 => high_bytes(&samples),
        ColorType::Rgba16 => drop_alpha(&high_bytes(&samples)),
        ColorType::L16 | ColorType::La16 => {
            return Err(unsupported(
                "in 16-bit grey (convert it to 8 bits: where to put white is the sender's to say)",
            ));
        }
        other => return Err(unsupported(&format!("in {other:?}"))),
    };
    Ok(Picture::new(width, height, rgb))
}

/// The high bytes of native 16-bit samples.
fn high_bytes(samples: &[u8]) -> Vec<u8> {
    samples
        .chunks_exact(2)
        .map(|sample| (u16::from_ne_bytes([sample[0], sample[1]]) >> 8) as u8)
        .collect()
}

fn refuse(error: ImageError, format: &'static str) -> PictureError {
    match error {
        ImageError::Unsupported(error) => PictureError::Unsupported {
            what: match error.kind() {
                UnsupportedErrorKind::Color(colour) => format!("a {format} in {colour:?}"),
                _ => format!("this {format} ({error})"),
            },
        },
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            PictureError::Truncated {
                format,
                detail: "the data ends before the picture does".into(),
            }
        }
        error => PictureError::Undecodable {
            format,
            detail: error.to_string(),
        },
    }
}
