//! JPEG: baseline and progressive, grey, YCbCr, RGB, and Adobe's CMYK and
//! YCCK, by libjpeg-turbo, which is what Pillow decodes with: the same bytes.

mod errors;
mod markers;
mod tidy;

use turbojpeg::{Colorspace, Decompressor, Image, PixelFormat, ScalingFactor};

use super::{
    options::{DecodeOptions, ExifOrientation},
    samples::{buffer, cmyk, to_rgb},
    turn::turn,
};
use crate::picture::{Picture, PictureError, PictureLimits};
use errors::{truncated, undecodable};
use markers::Frame;

/// Most scans of a picture. Encoders make about ten; each can cost a pass over
/// every coefficient in a few bytes of file.
const SCANS: u64 = 100;

/// Most scans of a picture that has the most pixels allowed; smaller ones may
/// have proportionally more, up to [`SCANS`]. So no picture costs much more
/// than the largest one that an encoder makes.
const SCANS_OF_LARGEST: u64 = 20;

/// Decodes it, at a fraction if that leaves enough pixels.
pub(super) fn decode(
    bytes: &[u8],
    limits: &PictureLimits,
    options: &DecodeOptions,
) -> Result<Picture, PictureError> {
    if let Some(tidied) = tidy::tidied(bytes) {
        return limits.beside(bytes.len() as u64, |limits| {
            decode_tidy(&tidied, limits, options)
        });
    }
    decode_tidy(bytes, limits, options)
}

fn decode_tidy(
    bytes: &[u8],
    limits: &PictureLimits,
    options: &DecodeOptions,
) -> Result<Picture, PictureError> {
    let frame = Frame::read(bytes)?;
    let orientation = match options.exif_orientation {
        ExifOrientation::Apply => frame.orientation.unwrap_or(1),
        ExifOrientation::Ignore => 1,
    };
    let factor = fraction(&frame, options.shortest_side, orientation);
    let picture = match frame.ends_at {
        None => decode_frame(bytes, &frame, factor, limits)?,
        Some(at) => with_end_mark(bytes, at, limits, |ended| {
            decode_frame(ended, &frame, factor, limits)
        })?
        .without_end_mark(),
    };
    turn(picture, orientation, limits)
}

/// Decodes a stream that breaks off in its last scan's data, at `at`: all scans have begun. With
/// an end mark in its place the decoder says whether the last one's data is all there.
fn with_end_mark<T>(
    bytes: &[u8],
    at: usize,
    limits: &PictureLimits,
    decode: impl FnOnce(&[u8]) -> Result<T, PictureError>,
) -> Result<T, PictureError> {
    limits.check_decoder(bytes.len() as u64)?;
    let mut ended = bytes.get(..at).unwrap_or_default().to_vec();
    ended.extend([0xFF, 0xD9]);
    decode(&ended).map_err(|error| match error {
        PictureError::Undecodable { .. } => truncated(),
        error => error,
    })
}

fn decode_frame(
    bytes: &[u8],
    frame: &Frame,
    factor: ScalingFactor,
    limits: &PictureLimits,
) -> Result<Picture, PictureError> {
    let mut decoder = open(bytes, frame, limits)?;
    let header = decoder.read_header(bytes).map_err(undecodable)?;
    if (header.width, header.height) != (frame.width as usize, frame.height as usize) {
        return Err(undecodable("it states two sizes"));
    }
    let inks = matches!(header.colorspace, Colorspace::CMYK | Colorspace::YCCK);
    let format = if inks {
        PixelFormat::CMYK
    } else {
        PixelFormat::RGB
    };
    decoder.set_scaling_factor(factor).map_err(undecodable)?;
    let scaled = |side: u32| factor.scale(side as usize) as u32;
    let (width, height) = (scaled(frame.width), scaled(frame.height));
    let mut samples = decompress(&mut decoder, bytes, frame, (width, height), format, limits)?;
    if inks {
        // Pillow takes every JPEG's CMYK for inverted, as Adobe's is.
        to_rgb(&mut samples, |levels| {
            cmyk(&levels.map(|level| 255 - level))
        });
    }
    Ok(Picture::new(width, height, samples)
        .shrunk_from((frame.width, frame.height), factor.denom() as u32))
}

/// The samples of a JPEG inside a TIFF: columns, rows, and one level of grey,
/// three of RGB or four inks a pixel.
pub(super) fn decode_levels(
    bytes: &[u8],
    samples: usize,
    limits: &PictureLimits,
) -> Result<(u32, u32, Vec<u8>), PictureError> {
    let frame = Frame::read(bytes)?;
    if frame.components.len() != samples {
        return Err(undecodable(format!(
            "it has {} components, its TIFF says {samples}",
            frame.components.len()
        )));
    }
    if let Some(at) = frame.ends_at {
        return with_end_mark(bytes, at, limits, |ended| {
            decode_levels(ended, samples, limits)
        });
    }
    let mut decoder = open(bytes, &frame, limits)?;
    decoder.read_header(bytes).map_err(undecodable)?;
    let format = match samples {
        1 => PixelFormat::GRAY,
        4 => PixelFormat::CMYK,
        _ => PixelFormat::RGB,
    };
    let (width, height) = (frame.width, frame.height);
    let samples = decompress(&mut decoder, bytes, &frame, (width, height), format, limits)?;
    Ok((width, height, samples))
}

/// Whether components of a JPEG have fewer samples than others, as no RGB has.
///
/// # Errors
/// Its markers cannot be read.
pub(super) fn is_subsampled(bytes: &[u8]) -> Result<bool, PictureError> {
    let components = Frame::read(bytes)?.components;
    let mut factors = components.iter().map(|one| (one.across, one.down));
    let first = factors.next();
    Ok(factors.any(|one| Some(one) != first))
}

/// Whether the bytes begin with a JPEG of these columns and rows and this many
/// components, up to its end mark.
pub(super) fn is_whole(bytes: &[u8], size: (u32, u32), components: usize) -> bool {
    bytes.starts_with(&[0xFF, 0xD8])
        && Frame::read(bytes).is_ok_and(|frame| {
            (frame.width, frame.height) == size
                && frame.components.len() == components
                && frame.ends_at.is_none()
        })
}

/// A decoder, once the size and the number of scans are known to be allowed.
fn open(bytes: &[u8], frame: &Frame, limits: &PictureLimits) -> Result<Decompressor, PictureError> {
    limits.check_dimensions(frame.width, frame.height)?;
    let pixels = u64::from(frame.width) * u64::from(frame.height);
    let most = (SCANS_OF_LARGEST * limits.pixels / pixels).clamp(1, SCANS);
    if frame.scans > most {
        return Err(undecodable(format!(
            "it has {} scans, the limit for {pixels} pixels in {} bytes is {most}",
            frame.scans,
            bytes.len()
        )));
    }
    let mut decoder = Decompressor::new().map_err(undecodable)?;
    decoder.set_scan_limit(most as u32).map_err(undecodable)?;
    Ok(decoder)
}

fn decompress(
    decoder: &mut Decompressor,
    bytes: &[u8],
    frame: &Frame,
    (width, height): (u32, u32),
    format: PixelFormat,
    limits: &PictureLimits,
) -> Result<Vec<u8>, PictureError> {
    let output = u64::from(width) * u64::from(height) * format.size() as u64;
    limits.check_decoder(output + decoder_bytes(frame))?;
    let mut samples = buffer(width, height, format.size() as u64, limits)?;
    let image = Image {
        pixels: samples.as_mut_slice(),
        width: width as usize,
        pitch: width as usize * format.size(),
        height: height as usize,
        format,
    };
    match decoder.decompress(bytes, image) {
        Ok(()) => Ok(samples),
        // Cameras leave stray bytes between segments. The picture is whole.
        Err(error) if error.to_string().contains("extraneous bytes before marker") => Ok(samples),
        Err(error) => Err(undecodable(error)),
    }
}

/// What libjpeg-turbo holds beside its output: some rows of blocks of each
/// component, and of a picture in several scans all coefficients, two bytes
/// each, in blocks that reach over the edges.
fn decoder_bytes(frame: &Frame) -> u64 {
    let most = |factor: fn(&markers::Component) -> u64| {
        frame.components.iter().map(factor).max().unwrap_or(1)
    };
    let (across, down) = (most(|c| c.across), most(|c| c.down));
    let blocks = |side: u32, own: u64, most: u64| {
        (u64::from(side) * own)
            .div_ceil(8 * most)
            .next_multiple_of(own)
    };
    let components = frame.components.iter();
    let sizes = components.map(|component| {
        let columns = blocks(frame.width, component.across, across);
        let rows = blocks(frame.height, component.down, down);
        let held = if frame.multi_scan { rows } else { 0 };
        columns * 64 * (2 * held + ROWS_OF_BLOCKS * component.down)
    });
    sizes.sum()
}

/// Rows of blocks, for each unit of a component's vertical sampling, that are
/// under way in the decoder at once.
const ROWS_OF_BLOCKS: u64 = 6;

/// The smallest fraction that leaves `side` pixels of the shorter side. Only
/// those that libjpeg-turbo has vector code for. A picture that is to be
/// turned must have no part of a pixel at its edges: that would come to lie on
/// the left or at the top.
fn fraction(frame: &Frame, side: Option<u32>, orientation: u8) -> ScalingFactor {
    let short = frame.width.min(frame.height) as usize;
    let fits = |factor: &ScalingFactor| {
        let denominator = factor.denom() as u32;
        let whole =
            frame.width.is_multiple_of(denominator) && frame.height.is_multiple_of(denominator);
        side.is_some_and(|side| factor.scale(short) >= side.max(1) as usize)
            && (orientation == 1 || whole)
    };
    [
        ScalingFactor::ONE_EIGHTH,
        ScalingFactor::ONE_QUARTER,
        ScalingFactor::ONE_HALF,
    ]
    .into_iter()
    .find(fits)
    .unwrap_or(ScalingFactor::ONE)
}
