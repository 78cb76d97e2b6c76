//! What the tags of a page say of its pixels, and which pages are read.

use super::{
    colour::Colour,
    directory::Directories,
    errors::{unclear_levels, undecodable, unsupported},
    fax::Coding,
    first,
    levels::Format,
    old_jpeg,
    tags::Tags,
    ycbcr,
};
use crate::picture::{PictureError, PictureLimits};

/// How strips and tiles are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    /// CCITT's, one bit a pixel.
    Fax(Coding),
    Lzw,
    Jpeg,
    Deflate,
    Zstd,
    Lzma,
    WebP,
    PackBits,
}

/// What samples were made of before they were compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prediction {
    None,
    /// Predictor 2: each is a difference to its left neighbour.
    Differences,
    /// Predictor 3: a row's highest bytes come first, then the next ones, all
    /// as differences.
    Floats,
}

/// The layout of one page.
#[derive(Debug)]
pub(super) struct Page<'a> {
    pub width: u32,
    pub height: u32,
    /// Bits of each sample.
    pub bits: usize,
    pub format: Format,
    /// Samples of each pixel, those that are not kept included.
    pub samples: usize,
    /// Each sample's plane stands by itself.
    pub planar: bool,
    pub prediction: Prediction,
    /// Of YCbCr: the pixels that share their chroma, across and down.
    pub subsampling: (usize, usize),
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
    /// The whole picture as one JPEG stream, if it was compressed in the old style.
    pub stream: Option<Vec<u8>>,
}

impl<'a> Page<'a> {
    /// Reads the tags of the first page of a file of these bytes.
    pub(super) fn read(
        file: &Directories<'a>,
        bytes: &[u8],
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
        first::check(&tags, (width, height), limits)?;
        limits.check_dimensions(width, height)?;

        let number = tags.or(259, 1)?;
        let compression = compression(&tags, number)?;
        let jpeg = compression == Compression::Jpeg;
        let photometric = tags.or(262, 0)?;
        let coloured = jpeg && matches!(photometric, 2 | 6);
        let samples = tags.or(277, if coloured { 3 } else { 1 })?;
        let (bits, format) = sample_format(&tags, samples)?;
        let planar = tags.or(284, 1)? == 2 && samples > 1;
        let colour = Colour::read(&tags, photometric, bits, jpeg && !planar)?;
        if samples < colour.channels() || samples > MOST_SAMPLES {
            return Err(unsupported(format!("with {samples} samples a pixel")));
        }
        let subsampling = match colour {
            Colour::YCbCr(_) => old_jpeg::subsampling(&tags)?,
            _ => (1, 1),
        };
        let (chunk, tiled, chunks) = chunks(&tags, (width, height), planar.then_some(samples))?;
        let mut page = Self {
            width,
            height,
            bits,
            format,
            samples,
            planar,
            prediction: prediction(&tags, compression, format, bits)?,
            subsampling,
            reversed_bits: tags.or(266, 1)? == 2
                && !matches!(compression, Compression::Jpeg | Compression::WebP),
            little_endian: file.little_endian(),
            colour,
            compression,
            orientation: u8::try_from(tags.or(274, 1)?).unwrap_or(1),
            chunk,
            tiled,
            chunks,
            jpeg_tables: tags.raw(347),
            stream: None,
        };
        page.check_levels()?;
        page.check_compression()?;
        if number == OLD_JPEG {
            limits.check_decoder(bytes.len() as u64)?;
            page.stream = Some(page.old_stream(&tags, bytes)?);
        }
        Ok(page)
    }

    /// Samples that follow each other in a row of a chunk.
    pub(super) fn interleaved(&self) -> usize {
        if self.planar { 1 } else { self.samples }
    }

    /// Bytes of a row of a chunk.
    pub(super) fn row_bytes(&self) -> usize {
        (self.chunk.0 * self.interleaved() * self.bits).div_ceil(8)
    }

    /// Bytes of a chunk of so many rows.
    pub(super) fn packed_bytes(&self, rows: usize) -> usize {
        match self.subsampling {
            (1, 1) => self.row_bytes().saturating_mul(rows),
            factors => ycbcr::packed_bytes(self.chunk.0, rows, factors),
        }
    }

    /// Refuses samples of which neither Pillow nor a rule says how light they are.
    fn check_levels(&self) -> Result<(), PictureError> {
        let bits = self.bits;
        let known = match (&self.colour, self.format) {
            (Colour::Grey { .. } | Colour::Rgb { .. } | Colour::Cmyk, Format::Float) => {
                matches!(bits, 16 | 24 | 32 | 64)
            }
            (_, Format::Float) => false,
            // What scanners and microscopes call 16 bits are often 12 of them; a depth of 12
            // is what it says.
            (Colour::Grey { .. }, Format::Whole) if bits >= 16 => {
                return Err(unclear_levels(format!("in {bits}-bit grey")));
            }
            (Colour::Grey { .. } | Colour::Rgb { .. } | Colour::Cmyk, Format::Whole) => {
                matches!(bits, 1..=16 | 24 | 32 | 64)
            }
            (Colour::Palette(_), Format::Whole) => matches!(bits, 1..=8),
            (Colour::JpegYCbCr | Colour::YCbCr(_), Format::Whole) => bits == 8,
            (Colour::Lab(_), Format::Whole) => matches!(bits, 8 | 16),
        };
        if known {
            return Ok(());
        }
        let plural = if self.samples == 1 { "" } else { "s" };
        let point = match self.format {
            Format::Float => " in floating point",
            Format::Whole => "",
        };
        Err(unsupported(format!(
            "with {} sample{plural} of {bits} bits{point}",
            self.samples
        )))
    }

    /// Refuses samples that the compression is not for.
    fn check_compression(&self) -> Result<(), PictureError> {
        let (samples, planar) = (self.samples, self.planar);
        let inks = matches!(self.colour, Colour::Cmyk);
        let rgb = matches!(self.colour, Colour::Rgb { .. });
        if self.subsampling != (1, 1) && (planar || samples != 3) {
            return Err(unsupported("in YCbCr with planes of different sizes"));
        }
        if self.subsampling != (1, 1) && self.prediction != Prediction::None {
            return Err(unsupported("in subsampled YCbCr with a predictor"));
        }
        match self.compression {
            Compression::Fax(_) if self.bits != 1 || (samples != 1 && !planar) => {
                Err(undecodable("CCITT compression is for one bit a pixel"))
            }
            Compression::Jpeg if self.bits != 8 => Err(unsupported(format!(
                "with JPEG compression of {} bits",
                self.bits
            ))),
            Compression::Jpeg
                if !(planar || matches!(samples, 1 | 3) || (samples == 4 && (inks || rgb))) =>
            {
                Err(unsupported(format!(
                    "with JPEG compression of {samples} samples a pixel"
                )))
            }
            Compression::WebP if planar || !rgb || samples > 4 || self.bits != 8 => {
                Err(undecodable("WebP compression is for RGB of 8 bits"))
            }
            _ => Ok(()),
        }
    }

    fn old_stream(&self, tags: &Tags, bytes: &[u8]) -> Result<Vec<u8>, PictureError> {
        if self.tiled || self.planar || !matches!(self.samples, 1 | 3) {
            return Err(unsupported(
                "with old-style JPEG compression in tiles, in planes or of other than 1 or 3 \
                 samples",
            ));
        }
        let shape = old_jpeg::Shape {
            width: self.width,
            height: self.height,
            samples: self.samples,
            rows: self.chunk.1,
            strips: &self.chunks,
        };
        old_jpeg::stream(tags, bytes, &shape)
    }
}

/// Most samples of a pixel: colour, alpha and what scanners add.
const MOST_SAMPLES: usize = 32;

const OLD_JPEG: usize = 6;

fn compression(tags: &Tags, number: usize) -> Result<Compression, PictureError> {
    let name = match number {
        1 => return Ok(Compression::None),
        2 => return Ok(Compression::Fax(Coding::ModifiedHuffman { words: false })),
        32771 => return Ok(Compression::Fax(Coding::ModifiedHuffman { words: true })),
        3 => {
            // The first bit of T4Options.
            let two_dimensions = tags.or(292, 0)? & 1 == 1;
            return Ok(Compression::Fax(Coding::Group3 { two_dimensions }));
        }
        4 => return Ok(Compression::Fax(Coding::Group4)),
        5 => return Ok(Compression::Lzw),
        OLD_JPEG | 7 => return Ok(Compression::Jpeg),
        8 | 32946 => return Ok(Compression::Deflate),
        50000 => return Ok(Compression::Zstd),
        34925 => return Ok(Compression::Lzma),
        50001 => return Ok(Compression::WebP),
        32773 => return Ok(Compression::PackBits),
        9 | 10 | 34661 => "JBIG",
        32766 => "NeXT",
        32809 => "ThunderScan",
        32908 | 32909 => "Pixar's",
        32947 => "Kodak's DCS",
        34676 | 34677 => "SGI LogLuv",
        34887 => "LERC",
        34892 => "lossy DNG",
        34933 => "PNG",
        34934 | 22610 => "JPEG XR",
        50002 | 52546 => "JPEG XL",
        34712 | 33003 | 33005 => "JPEG 2000",
        _ => return Err(unsupported(format!("with compression {number}"))),
    };
    Err(unsupported(format!("with {name} compression")))
}

/// The bits of a sample and what they are, which must be the same for all.
fn sample_format(tags: &Tags, samples: usize) -> Result<(usize, Format), PictureError> {
    let bits = tags.all(258)?.unwrap_or_else(|| vec![1]);
    let (&first, rest) = bits
        .split_first()
        .ok_or_else(|| undecodable("it states no bits a sample"))?;
    if rest
        .iter()
        .take(samples.saturating_sub(1))
        .any(|other| *other != first)
    {
        return Err(unsupported("whose samples have different sizes"));
    }
    let formats = tags.all(339)?.unwrap_or_default();
    let &format = formats.first().unwrap_or(&1);
    if formats.iter().take(samples).any(|other| *other != format) {
        return Err(unsupported("whose samples are of different kinds"));
    }
    match format {
        // Of no kind that is named: as they stand.
        1 | 4 => Ok((first, Format::Whole)),
        // Pillow reads them as they stand, too.
        2 if first == 8 => Ok((first, Format::Whole)),
        2 => Err(unclear_levels(format!(
            "with signed samples of {first} bits"
        ))),
        3 => Ok((first, Format::Float)),
        5 | 6 => Err(unclear_levels("with complex samples")),
        other => Err(unsupported(format!("with samples of format {other}"))),
    }
}

fn prediction(
    tags: &Tags,
    compression: Compression,
    format: Format,
    bits: usize,
) -> Result<Prediction, PictureError> {
    let predicted = matches!(
        compression,
        Compression::Lzw | Compression::Deflate | Compression::Zstd | Compression::Lzma
    );
    match tags.or(317, 1)? {
        _ if !predicted => Ok(Prediction::None),
        1 => Ok(Prediction::None),
        2 if matches!(bits, 8 | 16 | 32 | 64) => Ok(Prediction::Differences),
        3 if format == Format::Float => Ok(Prediction::Floats),
        other => Err(unsupported(format!(
            "with predictor {other} of samples of {bits} bits"
        ))),
    }
}

type Chunks = ((usize, usize), bool, Vec<(usize, Option<usize>)>);

/// Strips or tiles that any picture may have, and pixels for each one more:
/// each costs a decoder of its own.
const CHUNKS: usize = 1 << 16;
const PIXELS_A_CHUNK: usize = 128;

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
    if needed > CHUNKS + width * height * planes.unwrap_or(1) / PIXELS_A_CHUNK {
        return Err(undecodable(format!(
            "it has {needed} strips or tiles of {}×{} pixels, which are too many",
            chunk.0, chunk.1
        )));
    }
    let lengths = lengths.unwrap_or_default();
    let chunks = offsets
        .into_iter()
        .take(needed)
        .enumerate()
        // Some writers leave the lengths 0.
        .map(|(index, offset)| {
            (
                offset,
                lengths.get(index).copied().filter(|length| *length > 0),
            )
        })
        .collect();
    Ok((chunk, tiled, chunks))
}
