//! JPEG: baseline and progressive, grey, YCbCr, RGB, and Adobe's CMYK and
//! YCCK.

use zune_jpeg::{
    JpegDecoder,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

use super::{Picture, PictureError, PictureLimits, buffer};

pub(super) fn decode(bytes: &[u8], limits: &PictureLimits) -> Result<Picture, PictureError> {
    let frame = Frame::read(bytes)?;
    let (width, height) = (frame.width, frame.height);
    limits.check_dimensions(width, height)?;
    let pixels = u64::from(width) * u64::from(height);
    // A progressive picture's coefficients are held whole, two bytes each.
    let coefficients = if frame.progressive { 2 } else { 0 };
    limits.check_decoder(pixels * (3 + frame.channels() * (1 + coefficients)))?;

    let raw = frame.raw_space();
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(width as usize)
        .set_max_height(height as usize)
        .jpeg_set_out_colorspace(raw);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let mut samples = buffer(width, height, raw.num_components() as u64, limits)?;
    decoder
        .decode_into(&mut samples)
        .map_err(|error| undecodable(format!("{error:?}")))?;
    if decoder.dimensions() != Some((width as usize, height as usize)) {
        return Err(undecodable("it states two sizes".into()));
    }
    let rgb = match frame.space {
        Space::Grey | Space::YCbCr | Space::Rgb => samples,
        Space::Cmyk => cmyk_to_rgb(&samples),
        Space::Ycck => ycck_to_rgb(&samples),
    };
    Ok(Picture::new(width, height, rgb))
}

/// What the components mean, decided as libjpeg decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Space {
    Grey,
    YCbCr,
    Rgb,
    Cmyk,
    Ycck,
}

/// The header, and the certainty that the end is there.
#[derive(Debug)]
struct Frame {
    width: u32,
    height: u32,
    progressive: bool,
    space: Space,
    /// The decoder takes for YCbCr what is RGB by its component names.
    unmarked_rgb: bool,
}

impl Frame {
    /// Walks all markers to the end of the picture. A picture whose end is
    /// missing is refused here: decoders fill the rest with grey.
    fn read(bytes: &[u8]) -> Result<Self, PictureError> {
        let mut walk = Markers { bytes, at: 2 };
        let mut size = None;
        let mut components = Vec::new();
        let (mut jfif, mut adobe) = (false, None);
        while let Some((marker, segment)) = walk.next()? {
            match marker {
                0xC0..=0xC2 if size.is_none() => {
                    let &[precision, h1, h0, w1, w0, count, ref rest @ ..] = segment else {
                        return Err(undecodable("its frame header is too short".into()));
                    };
                    if precision != 8 {
                        return Err(unsupported(format!("of {precision} bits a sample")));
                    }
                    components = rest
                        .chunks_exact(3)
                        .take(count.into())
                        .map(|component| component[0])
                        .collect();
                    size = Some((
                        u32::from(u16::from_be_bytes([w1, w0])),
                        u32::from(u16::from_be_bytes([h1, h0])),
                        marker == 0xC2,
                    ));
                }
                0xC0..=0xC2 => return Err(unsupported("of several frames".into())),
                0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                    return Err(unsupported(
                        "in lossless, hierarchical or arithmetic coding".into(),
                    ));
                }
                0xE0 if segment.starts_with(b"JFIF\0") => jfif = true,
                0xEE if segment.starts_with(b"Adobe") => adobe = segment.get(11).copied(),
                _ => {}
            }
        }
        let Some((width, height, progressive)) = size else {
            return Err(undecodable("it has no frame".into()));
        };
        if width == 0 || height == 0 {
            return Err(unsupported("with a side of 0".into()));
        }
        let names_rgb = components == *b"RGB";
        let space = match (components.len(), adobe) {
            (1, _) => Space::Grey,
            (3, _) if jfif => Space::YCbCr,
            (3, Some(0)) => Space::Rgb,
            (3, Some(_)) => Space::YCbCr,
            (3, None) if names_rgb => Space::Rgb,
            (3, None) => Space::YCbCr,
            (4, Some(2)) => Space::Ycck,
            (4, _) => Space::Cmyk,
            (count, _) => return Err(unsupported(format!("of {count} components"))),
        };
        let contradicts = match (space, adobe) {
            // JFIF beside Adobe's "no transform": the decoder goes by Adobe.
            (Space::YCbCr, Some(0)) => true,
            (Space::Cmyk, Some(1)) => true,
            _ => false,
        };
        if contradicts {
            return Err(unsupported("whose colour markers contradict".into()));
        }
        Ok(Self {
            width,
            height,
            progressive,
            space,
            unmarked_rgb: space == Space::Rgb && adobe.is_none(),
        })
    }

    fn channels(&self) -> u64 {
        match self.space {
            Space::Grey => 1,
            Space::YCbCr | Space::Rgb => 3,
            Space::Cmyk | Space::Ycck => 4,
        }
    }

    /// What to ask of the decoder: RGB, or the components as they are.
    fn raw_space(&self) -> ColorSpace {
        match self.space {
            Space::Rgb if self.unmarked_rgb => ColorSpace::YCbCr,
            Space::Grey | Space::YCbCr | Space::Rgb => ColorSpace::RGB,
            Space::Cmyk => ColorSpace::CMYK,
            Space::Ycck => ColorSpace::YCCK,
        }
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

/// Adobe's YCCK: libjpeg makes CMY of it (255 − RGB), which Pillow inverts.
fn ycck_to_rgb(ycck: &[u8]) -> Vec<u8> {
    ycck.chunks_exact(4)
        .flat_map(|pixel| {
            let [y, cb, cr] = [pixel[0], pixel[1], pixel[2]].map(i32::from);
            let paper = pixel[3];
            ycc_to_rgb(y, cb - 128, cr - 128)
                .map(|ink| paper.saturating_sub(scale(ink, paper)))
        })
        .collect()
}

/// libjpeg's YCbCr to RGB, 16-bit fixed point.
fn ycc_to_rgb(y: i32, cb: i32, cr: i32) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let red = (91_881 * cr + HALF) >> 16;
    let green = (-22_554 * cb - 46_802 * cr + HALF) >> 16;
    let blue = (116_130 * cb + HALF) >> 16;
    [y + red, y + green, y + blue].map(|level| level.clamp(0, 255) as u8)
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

fn undecodable(detail: String) -> PictureError {
    PictureError::Undecodable {
        format: "JPEG",
        detail,
    }
}

fn unsupported(what: String) -> PictureError {
    PictureError::Unsupported {
        what: format!("a JPEG {what}"),
    }
}
