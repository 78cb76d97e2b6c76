//! JPEG: baseline and progressive, grey, YCbCr, RGB, and Adobe's CMYK and
//! YCCK, by libjpeg-turbo, which is what Pillow decodes with: the same bytes.

use turbojpeg::{Colorspace, Decompressor, Image, PixelFormat, ScalingFactor};

use super::{Picture, PictureError, PictureLimits, buffer};

/// Most scans of a progressive picture. Encoders make about ten; a small file
/// of thousands keeps a decoder busy for minutes.
const SCANS: u32 = 100;

/// Decodes it, at a fraction where `side` pixels of the shorter side are enough.
pub(super) fn decode(
    bytes: &[u8],
    limits: &PictureLimits,
    side: Option<u32>,
) -> Result<Picture, PictureError> {
    let frame = Frame::read(bytes)?;
    let (width, height) = (frame.width, frame.height);
    limits.check_dimensions(width, height)?;
    let pixels = u64::from(width) * u64::from(height);
    // Of a picture in several scans the coefficients are held whole, two bytes
    // each, in blocks that may reach over the edges.
    let coefficients = if frame.scans > 1 { 2 } else { 0 };
    limits.check_decoder(pixels * (3 + frame.channels * (1 + coefficients)))?;

    let mut decoder = Decompressor::new().map_err(undecodable)?;
    decoder.set_scan_limit(SCANS).map_err(undecodable)?;
    let header = decoder.read_header(bytes).map_err(undecodable)?;
    if (header.width, header.height) != (width as usize, height as usize) {
        return Err(undecodable("it states two sizes"));
    }
    let inks = matches!(header.colorspace, Colorspace::CMYK | Colorspace::YCCK);
    let format = if inks {
        PixelFormat::CMYK
    } else {
        PixelFormat::RGB
    };
    let full = (width, height);
    let factor = fraction(width.min(height), side);
    decoder.set_scaling_factor(factor).map_err(undecodable)?;
    let scaled = |side: u32| factor.scale(side as usize) as u32;
    let (width, height) = (scaled(width), scaled(height));
    let mut samples = buffer(width, height, format.size() as u64, limits)?;
    let image = Image {
        pixels: samples.as_mut_slice(),
        width: width as usize,
        pitch: width as usize * format.size(),
        height: height as usize,
        format,
    };
    match decoder.decompress(bytes, image) {
        Ok(()) => {}
        // Cameras leave stray bytes between segments. The picture is whole.
        Err(error) if error.to_string().contains("extraneous bytes before marker") => {}
        Err(error) => return Err(undecodable(error)),
    }
    let rgb = if inks { cmyk_to_rgb(&samples) } else { samples };
    Ok(Picture::new(width, height, rgb).shrunk_from(full, factor.denom() as u32))
}

/// The smallest fraction that leaves `side` pixels of a shorter side of
/// `short`. Only those that libjpeg-turbo has vector code for.
fn fraction(short: u32, side: Option<u32>) -> ScalingFactor {
    let enough = |factor: &ScalingFactor| {
        side.is_some_and(|side| factor.scale(short as usize) >= side.max(1) as usize)
    };
    [
        ScalingFactor::ONE_EIGHTH,
        ScalingFactor::ONE_QUARTER,
        ScalingFactor::ONE_HALF,
    ]
    .into_iter()
    .find(enough)
    .unwrap_or(ScalingFactor::ONE)
}

/// The header, and the certainty that the end is there.
#[derive(Debug)]
struct Frame {
    width: u32,
    height: u32,
    channels: u64,
    scans: usize,
}

impl Frame {
    /// Walks all markers to the end of the picture. A picture whose end is
    /// missing is refused here: decoders fill the rest with grey.
    fn read(bytes: &[u8]) -> Result<Self, PictureError> {
        let mut walk = Markers { bytes, at: 2 };
        let mut frame = None;
        let mut scans = 0;
        while let Some((marker, segment)) = walk.next()? {
            match marker {
                0xC0..=0xC2 if frame.is_none() => {
                    let &[precision, h1, h0, w1, w0, channels, ..] = segment else {
                        return Err(undecodable("its frame header is too short"));
                    };
                    if precision != 8 {
                        return Err(unsupported(format!("of {precision} bits a sample")));
                    }
                    if !matches!(channels, 1 | 3 | 4) {
                        return Err(unsupported(format!("of {channels} components")));
                    }
                    frame = Some((
                        u32::from(u16::from_be_bytes([w1, w0])),
                        u32::from(u16::from_be_bytes([h1, h0])),
                        u64::from(channels),
                    ));
                }
                0xC0..=0xC2 => return Err(unsupported("of several frames".into())),
                0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                    return Err(unsupported(
                        "in lossless, hierarchical or arithmetic coding".into(),
                    ));
                }
                0xDA => scans += 1,
                _ => {}
            }
        }
        let Some((width, height, channels)) = frame else {
            return Err(undecodable("it has no frame"));
        };
        if width == 0 || height == 0 {
            return Err(unsupported("with a side of 0".into()));
        }
        Ok(Self {
            width,
            height,
            channels,
            scans,
        })
    }
}

/// Walks a JPEG's marker segments, over entropy-coded data.
struct Markers<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Markers<'a> {
    /// The next marker and its segment; none at the end of the picture.
    fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, PictureError> {
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let Some(skip) = memchr::memchr(0xFF, rest) else {
                return Err(truncated());
            };
            let Some(&marker) = rest.get(skip + 1) else {
                return Err(truncated());
            };
            match marker {
                // A fill byte: the marker may begin with the next one.
                0xFF => self.at += skip + 1,
                // A stuffed 0xFF in the data, a restart, or a bare marker.
                0x00 | 0x01 | 0xD0..=0xD8 => self.at += skip + 2,
                0xD9 => return Ok(None),
                _ => {
                    let Some(&[high, low]) = rest.get(skip + 2..skip + 4) else {
                        return Err(truncated());
                    };
                    let length = usize::from(u16::from_be_bytes([high, low]));
                    let Some(segment) = rest.get(skip + 4..skip + 2 + length.max(2)) else {
                        return Err(truncated());
                    };
                    self.at += skip + 2 + length.max(2);
                    return Ok(Some((marker, segment)));
                }
            }
        }
    }
}

/// Pillow's CMYK to RGB. Pillow takes every JPEG's CMYK for inverted, as
/// Adobe's is: `ink` is 255 − level.
fn cmyk_to_rgb(cmyk: &[u8]) -> Vec<u8> {
    cmyk.chunks_exact(4)
        .flat_map(|pixel| {
            let paper = pixel[3];
            [0, 1, 2].map(|at| paper.saturating_sub(scale(255 - pixel[at], paper)))
        })
        .collect()
}

/// a·b/255, rounded as Pillow's MULDIV255.
fn scale(a: u8, b: u8) -> u8 {
    let product = u32::from(a) * u32::from(b) + 128;
    (((product >> 8) + product) >> 8) as u8
}

fn truncated() -> PictureError {
    PictureError::Truncated {
        format: "JPEG",
        detail: "its end marker is missing".into(),
    }
}

fn undecodable(detail: impl ToString) -> PictureError {
    PictureError::Undecodable {
        format: "JPEG",
        detail: detail.to_string(),
    }
}

fn unsupported(what: String) -> PictureError {
    PictureError::Unsupported {
        what: format!("a JPEG {what}"),
    }
}
