//! What the tags of a page say of its pixels, and which pages are read.

use super::{
    directory::Directories,
    errors::{undecodable, unsupported},
};
use crate::picture::{PictureError, PictureLimits};

/// How strips and tiles are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    /// CCITT T.4 in one dimension (Group 3), one bit a pixel.
    Fax3,
    /// CCITT T.6 (Group 4), one bit a pixel.
    Fax4,
    Lzw,
    Jpeg,
    Deflate,
    Zstd,
    PackBits,
}

/// How the samples of a pixel become a colour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    /// Black is 0, or white is.
    Grey { white_is_zero: bool },
    /// Three samples; a fourth is kept if they were multiplied by it.
    Rgb { associated_alpha: bool },
    /// One sample, an index into this table of RGB colours.
    Palette(Vec<[u8; 3]>),
    /// Four inks, 255 is full.
    Cmyk,
    /// Three samples that JPEG turns into RGB.
    YCbCr,
}

impl Colour {
    /// How many of a pixel's samples are kept until the picture is complete.
    pub(super) fn channels(&self) -> usize {
        match self {
            Self::Grey { .. } | Self::Palette(_) => 1,
            Self::Rgb {
                associated_alpha: false,
            }
            | Self::YCbCr => 3,
            Self::Rgb {
                associated_alpha: true,
            }
            | Self::Cmyk => 4,
        }
    }
}

/// The layout of one page.
#[derive(Debug)]
pub(super) struct Page<'a> {
    pub width: u32,
    pub height: u32,
    /// Bits of each sample: 1, 2, 4, 8 or 16.
    pub bits: usize,
    /// Samples of each pixel, those that are not kept included.
    pub samples: usize,
    /// Each sample's plane stands by itself.
    pub planar: bool,
    /// Samples are differences to their left neighbours (predictor 2).
    pub differences: bool,
    /// Bytes hold their bits the other way round (fill order 2).
    pub reversed_bits: bool,
    pub little_endian: bool,
    pub colour: Colour,
    pub compression: Compression,
    /// EXIF's number for how the picture is turned, 1 to 8.
    pub orientation: u8,
    /// Columns and rows of a strip or tile.
    pub chunk: (usize, usize),
    /// Tiles are whole at the edges, strips are cut there.
    pub tiled: bool,
    /// Offset and length of each strip or tile.
    pub chunks: Vec<(usize, Option<usize>)>,
    /// Tables that the JPEG streams share.
    pub jpeg_tables: Option<&'a [u8]>,
}

/// The tags of one directory.
struct Tags<'f, 'a> {
    file: &'f Directories<'a>,
    directory: usize,
}

impl Tags<'_, '_> {
    fn all(&self, tag: usize) -> Result<Option<Vec<usize>>, PictureError> {
        self.file.numbers(self.directory, tag)
    }

    fn one(&self, tag: usize) -> Result<Option<usize>, PictureError> {
        Ok(self.all(tag)?.and_then(|values| values.first().copied()))
    }

    fn or(&self, tag: usize, default: usize) -> Result<usize, PictureError> {
        Ok(self.one(tag)?.unwrap_or(default))
    }

    fn side(&self, tag: usize, name: &str) -> Result<u32, PictureError> {
        let side = self
            .one(tag)?
            .ok_or_else(|| undecodable(format!("its {name} is missing")))?;
        u32::try_from(side).map_err(|_| undecodable(format!("its {name} is {side}")))
    }
}

impl<'a> Page<'a> {
    /// Reads the tags of the file's first page.
    pub(super) fn read(
        file: &Directories<'a>,
        limits: &PictureLimits,
    ) -> Result<Self, PictureError> {
        let directory = file
            .first()
            .filter(|at| *at > 0)
            .ok_or_else(|| undecodable("it has no page"))?;
        file.check(directory, limits)?;
        let tags = Tags { file, directory };
        let (width, height) = (tags.side(256, "width")?, tags.side(257, "height")?);
        if width == 0 || height == 0 {
            return Err(undecodable("a side is 0"));
        }
        limits.check_dimensions(width, height)?;

        let compression = compression(tags.or(259, 1)?)?;
        // Bit 0 of T4Options; the `fax` crate has no decoder for it.
        if compression == Compression::Fax3 && tags.or(292, 0)? & 1 == 1 {
            return Err(unsupported(
                "with CCITT T.4 compression in two dimensions".into(),
            ));
        }
        let photometric = tags.or(262, 0)?;
        let jpeg_colour = compression == Compression::Jpeg && matches!(photometric, 2 | 6);
        let samples = tags.or(277, if jpeg_colour { 3 } else { 1 })?;
        let bits = bits(&tags, samples)?;
        let extra = tags.all(338)?.unwrap_or_default();
        let colour = colour(&tags, photometric, bits, extra.first() == Some(&1))?;
        let planar = tags.or(284, 1)? == 2 && samples > 1;
        if samples < colour.channels() || samples > MOST_SAMPLES {
            return Err(unsupported(format!("with {samples} samples a pixel")));
        }
        check_kind(compression, &colour, bits, samples, planar)?;
        let differences = match tags.or(317, 1)? {
            _ if !predicted(compression) => false,
            1 => false,
            2 if bits >= 8 => true,
            other => return Err(unsupported(format!("with predictor {other}"))),
        };
        let (chunk, tiled, chunks) = chunks(&tags, (width, height), planar.then_some(samples))?;
        Ok(Self {
            width,
            height,
            bits,
            samples,
            planar,
            differences,
            reversed_bits: tags.or(266, 1)? == 2 && compression != Compression::Jpeg,
            little_endian: file.little_endian(),
            colour,
            compression,
            orientation: u8::try_from(tags.or(274, 1)?).unwrap_or(1),
            chunk,
            tiled,
            chunks,
            jpeg_tables: file.raw(directory, 347),
        })
    }

    /// Samples that follow each other in a row of a chunk.
    pub(super) fn interleaved(&self) -> usize {
        if self.planar { 1 } else { self.samples }
    }

    /// Bytes of a row of a chunk.
    pub(super) fn row_bytes(&self) -> usize {
        (self.chunk.0 * self.interleaved() * self.bits).div_ceil(8)
    }
}

/// Whether samples may be stored as differences under this compression.
fn predicted(compression: Compression) -> bool {
    matches!(
        compression,
        Compression::Lzw | Compression::Deflate | Compression::Zstd
    )
}

/// Most samples of a pixel: colour, alpha and what scanners add.
const MOST_SAMPLES: usize = 32;

fn compression(number: usize) -> Result<Compression, PictureError> {
    let name = match number {
        1 => return Ok(Compression::None),
        3 => return Ok(Compression::Fax3),
        4 => return Ok(Compression::Fax4),
        5 => return Ok(Compression::Lzw),
        7 => return Ok(Compression::Jpeg),
        8 | 32946 => return Ok(Compression::Deflate),
        50000 => return Ok(Compression::Zstd),
        32773 => return Ok(Compression::PackBits),
        2 => "CCITT modified Huffman",
        6 => "old-style JPEG",
        34925 => "LZMA",
        34887 => "LERC",
        34933 => "PNG",
        34934 => "JPEG XR",
        50001 => "WebP",
        50002 | 52546 => "JPEG XL",
        34712 | 33003 | 33005 => "JPEG 2000",
        _ => return Err(unsupported(format!("with compression {number}"))),
    };
    Err(unsupported(format!("with {name} compression")))
}

/// The bits of a sample, which must be the same for all.
fn bits(tags: &Tags, samples: usize) -> Result<usize, PictureError> {
    let bits = tags.all(258)?.unwrap_or_else(|| vec![1]);
    let (&first, rest) = bits
        .split_first()
        .ok_or_else(|| undecodable("it states no bits a sample"))?;
    if rest
        .iter()
        .take(samples.saturating_sub(1))
        .any(|other| *other != first)
    {
        return Err(unsupported("whose samples have different sizes".into()));
    }
    let formats = tags.all(339)?.unwrap_or_default();
    match formats.iter().find(|format| **format != 1) {
        None => {}
        // Pillow reads them as they stand, too.
        Some(2) if first == 8 => {}
        Some(3) => {
            return Err(unsupported(format!("in floating point of {first} bits")));
        }
        Some(2) => return Err(unsupported(format!("with signed samples of {first} bits"))),
        Some(_) => return Err(unsupported("with complex or untyped samples".into())),
    }
    Ok(first)
}

fn colour(
    tags: &Tags,
    photometric: usize,
    bits: usize,
    associated: bool,
) -> Result<Colour, PictureError> {
    let colour = match photometric {
        0 | 1 => Colour::Grey {
            white_is_zero: photometric == 0,
        },
        2 => Colour::Rgb {
            associated_alpha: associated,
        },
        3 => Colour::Palette(palette(tags, bits)?),
        5 => Colour::Cmyk,
        6 => Colour::YCbCr,
        8..=10 => return Err(unsupported("in CIE L*a*b* colour".into())),
        32803 => return Err(unsupported("of a raw colour filter array".into())),
        other => {
            return Err(unsupported(format!(
                "in photometric interpretation {other}"
            )));
        }
    };
    if associated && !matches!(colour, Colour::Rgb { .. }) {
        return Err(unsupported(
            "with associated alpha beside other than RGB".into(),
        ));
    }
    Ok(colour)
}

/// The palette's high bytes, as Pillow takes them.
fn palette(tags: &Tags, bits: usize) -> Result<Vec<[u8; 3]>, PictureError> {
    if !matches!(bits, 1 | 2 | 4 | 8) {
        return Err(unsupported(format!(
            "with a palette and {bits} bits a pixel"
        )));
    }
    let levels = tags
        .all(320)?
        .ok_or_else(|| undecodable("its palette is missing"))?;
    let entries = 1 << bits;
    if levels.len() != 3 * entries {
        return Err(undecodable(format!(
            "its palette has {} levels, {bits} bits a pixel need {}",
            levels.len(),
            3 * entries
        )));
    }
    let plane = |number: usize| levels.iter().skip(number * entries);
    Ok(plane(0)
        .zip(plane(1))
        .zip(plane(2))
        .take(entries)
        .map(|((red, green), blue)| [red, green, blue].map(|level| (level >> 8) as u8))
        .collect())
}

/// Refuses kinds that neither Pillow reads nor a rule says how to show.
fn check_kind(
    compression: Compression,
    colour: &Colour,
    bits: usize,
    samples: usize,
    planar: bool,
) -> Result<(), PictureError> {
    match (colour, bits) {
        (Colour::Grey { .. }, 16) => {
            return Err(unsupported("in 16-bit grey".into()));
        }
        (Colour::Grey { .. } | Colour::Palette(_), 1 | 2 | 4) if samples == 1 => {}
        (_, 8) | (Colour::Rgb { .. } | Colour::Cmyk, 16) => {}
        _ => {
            let plural = if samples == 1 { "" } else { "s" };
            return Err(unsupported(format!(
                "with {samples} sample{plural} of {bits} bits"
            )));
        }
    }
    match compression {
        Compression::Fax3 | Compression::Fax4
            if (bits, samples) != (1, 1) || !matches!(colour, Colour::Grey { .. }) =>
        {
            Err(undecodable("CCITT compression is for one bit a pixel"))
        }
        Compression::Jpeg
            if bits != 8
                || planar
                || !(matches!(samples, 1 | 3) || (samples == 4 && *colour == Colour::Cmyk)) =>
        {
            Err(unsupported(
                "whose JPEG strips or tiles are not 8-bit grey, RGB, YCbCr or CMYK".into(),
            ))
        }
        Compression::Jpeg => Ok(()),
        _ if *colour == Colour::YCbCr => {
            Err(unsupported("in YCbCr without JPEG compression".into()))
        }
        _ => Ok(()),
    }
}

type Chunks = ((usize, usize), bool, Vec<(usize, Option<usize>)>);

/// Size, kind and places of the strips or tiles.
fn chunks(
    tags: &Tags,
    (width, height): (u32, u32),
    planes: Option<usize>,
) -> Result<Chunks, PictureError> {
    let (width, height) = (width as usize, height as usize);
    let tiled = tags.one(322)?.is_some() || tags.one(324)?.is_some();
    let (chunk, offsets, lengths) = if tiled {
        let side = |tag, name| tags.side(tag, name).map(|side| side as usize);
        let sides = (side(322, "tile width")?, side(323, "tile height")?);
        (sides, tags.all(324)?, tags.all(325)?)
    } else {
        let rows = tags.or(278, height)?.min(height);
        ((width, rows), tags.all(273)?, tags.all(279)?)
    };
    if chunk.0 == 0 || chunk.1 == 0 {
        return Err(undecodable("its strips or tiles have a side of 0"));
    }
    let offsets = offsets.ok_or_else(|| undecodable("it does not say where its data is"))?;
    let needed = width.div_ceil(chunk.0) * height.div_ceil(chunk.1) * planes.unwrap_or(1);
    if offsets.len() < needed {
        return Err(undecodable(format!(
            "it has {} strips or tiles, its size needs {needed}",
            offsets.len()
        )));
    }
    let lengths = lengths.unwrap_or_default();
    let chunks = offsets
        .into_iter()
        .take(needed)
        .enumerate()
        .map(|(index, offset)| (offset, lengths.get(index).copied()))
        .collect();
    Ok((chunk, tiled, chunks))
}
