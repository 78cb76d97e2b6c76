//! A decoded picture, what may go into one, and why one was refused.

use thiserror::Error;

/// An RGB picture with 8 bits a channel, row by row from the top left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
    /// Columns and rows of what it was decoded from.
    full: (u32, u32),
    /// It was decoded at 1/`fraction` of that.
    fraction: u32,
    lacks_end_mark: bool,
}

impl Picture {
    /// A picture from raw RGB bytes: height × width × 3, row by row from the
    /// top left, no padding.
    ///
    /// # Errors
    /// [`PictureError::Shape`] where a side is 0 or the length does not fit,
    /// [`PictureError::TooLarge`] where a limit is passed.
    pub fn from_raw(
        width: u32,
        height: u32,
        rgb: &[u8],
        limits: &PictureLimits,
    ) -> Result<Self, PictureError> {
        if width == 0 || height == 0 || rgb.len() as u64 != 3 * u64::from(width) * u64::from(height)
        {
            return Err(PictureError::Shape {
                width,
                height,
                found: rgb.len(),
            });
        }
        limits.check_dimensions(width, height)?;
        Ok(Self {
            width,
            height,
            rgb: rgb.to_vec(),
            full: (width, height),
            fraction: 1,
            lacks_end_mark: false,
        })
    }

    /// For decoders, which have checked the limits before they allocated.
    pub(super) fn new(width: u32, height: u32, rgb: Vec<u8>) -> Self {
        debug_assert_eq!(rgb.len(), width as usize * height as usize * 3);
        Self {
            width,
            height,
            rgb,
            full: (width, height),
            fraction: 1,
            lacks_end_mark: false,
        }
    }

    /// The same, of a file without its end mark.
    pub(super) fn without_end_mark(self) -> Self {
        Self {
            lacks_end_mark: true,
            ..self
        }
    }

    /// The same with its pixels moved: `rgb` is given the columns, the rows and
    /// the bytes. With `swap_sides` columns become rows. Only for pictures
    /// that are not a fraction whose edges reach over the file's picture.
    pub(super) fn map_pixels(
        self,
        swap_sides: bool,
        rgb: impl FnOnce(u32, u32, Vec<u8>) -> Vec<u8>,
    ) -> Self {
        let pixels = rgb(self.width, self.height, self.rgb);
        let order = |(width, height)| match swap_sides {
            true => (height, width),
            false => (width, height),
        };
        let (width, height) = order((self.width, self.height));
        Self {
            width,
            height,
            rgb: pixels,
            full: order(self.full),
            fraction: self.fraction,
            lacks_end_mark: self.lacks_end_mark,
        }
    }

    /// The same, as one of `full` columns and rows at 1/`fraction`, where the
    /// last column and row may reach over its edges.
    pub(super) fn shrunk_from(self, full: (u32, u32), fraction: u32) -> Self {
        Self {
            full,
            fraction: fraction.max(1),
            ..self
        }
    }

    /// How many of its own columns and rows the file's picture covers.
    pub(super) fn extent(&self) -> (f64, f64) {
        let covered = |side: u32| f64::from(side) / f64::from(self.fraction);
        (covered(self.full.0), covered(self.full.1))
    }

    /// Columns of the picture, in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows of the picture, in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Columns and rows of the file's picture: more than its own where it was
    /// decoded at a fraction of its size.
    pub fn full_size(&self) -> (u32, u32) {
        self.full
    }

    /// Whether its file (JPEG or PNG) had every pixel but not its end mark, as
    /// some cameras write it: a hint that something cut it off.
    pub fn lacks_end_mark(&self) -> bool {
        self.lacks_end_mark
    }

    /// The bytes: height × width × 3.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }
}

/// What a picture may cost. Everything is checked against the header, before
/// anything of the picture's size is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureLimits {
    /// Most bytes of an encoded picture.
    pub encoded_bytes: u64,
    /// Most pixels of the longer side.
    pub side: u32,
    /// Most pixels (width × height).
    pub pixels: u64,
    /// Most frames of an animation, pages of a TIFF. The first alone is decoded.
    pub frames: u64,
    /// Most bytes that a decoder may hold at once, its output included.
    pub decoder_bytes: u64,
}

/// The setting of [`PictureLimits::decoder_bytes`].
const DECODER_BYTES: &str = "max_decoder_bytes";

impl Default for PictureLimits {
    /// 32 MiB encoded, sides to 32,768, 64 million pixels (what today's
    /// phones make), 10,000 frames, 640 MiB while decoding (a progressive JPEG of 64 million
    /// pixels needs 576).
    fn default() -> Self {
        Self {
            encoded_bytes: 32 << 20,
            side: 32_768,
            pixels: 64_000_000,
            frames: 10_000,
            decoder_bytes: 640 << 20,
        }
    }
}

impl PictureLimits {
    /// Refuses sides and areas over the limits.
    ///
    /// # Errors
    /// [`PictureError::TooLarge`], naming the limit and the value.
    pub fn check_dimensions(&self, width: u32, height: u32) -> Result<(), PictureError> {
        let longest = width.max(height);
        if longest > self.side {
            return Err(PictureError::TooLarge {
                what: "pixels on the longest side",
                setting: "max_side",
                limit: self.side.into(),
                value: longest.into(),
            });
        }
        let pixels = u64::from(width) * u64::from(height);
        if pixels > self.pixels {
            return Err(PictureError::TooLarge {
                what: "pixels",
                setting: "max_pixels",
                limit: self.pixels,
                value: pixels,
            });
        }
        Ok(())
    }

    /// Refuses an animation of too many frames.
    pub(super) fn check_frames(&self, frames: u64) -> Result<(), PictureError> {
        if frames > self.frames {
            return Err(PictureError::TooLarge {
                what: "frames",
                setting: "max_frames",
                limit: self.frames,
                value: frames,
            });
        }
        Ok(())
    }

    /// Runs a decoder that works while this many bytes are held already: they
    /// count in its limit, and in what it is said to need.
    pub(super) fn beside<T>(
        &self,
        held: u64,
        decoder: impl FnOnce(&Self) -> Result<T, PictureError>,
    ) -> Result<T, PictureError> {
        let left = Self {
            decoder_bytes: self.decoder_bytes.saturating_sub(held),
            ..*self
        };
        decoder(&left).map_err(|error| match error {
            PictureError::TooLarge {
                what,
                setting,
                limit,
                value,
            } if limit == left.decoder_bytes && setting == DECODER_BYTES => {
                PictureError::TooLarge {
                    what,
                    setting,
                    limit: self.decoder_bytes,
                    value: value.saturating_add(held),
                }
            }
            error => error,
        })
    }

    /// Refuses a decoder that would hold more than `decoder_bytes`.
    pub(super) fn check_decoder(&self, bytes: u64) -> Result<(), PictureError> {
        if bytes > self.decoder_bytes {
            return Err(PictureError::TooLarge {
                what: "bytes of memory while decoding",
                setting: DECODER_BYTES,
                limit: self.decoder_bytes,
                value: bytes,
            });
        }
        Ok(())
    }
}

/// Why a picture cannot be used. All of these are the sender's to mend.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PictureError {
    /// The sender gave no bytes at all.
    #[error("the picture is empty (0 bytes)")]
    Empty,
    /// Not a picture in any format read here.
    #[error(
        "not a picture in a known format (JPEG, PNG, GIF, WebP, BMP, TIFF or PNM); it begins with {head}"
    )]
    Unrecognised {
        /// Its first bytes, in hexadecimal.
        head: String,
    },
    /// A picture, of a kind that is not read here.
    #[error("{what} is not supported")]
    Unsupported {
        /// The format, and the kind of it that is not read.
        what: String,
    },
    /// The header states more than a limit allows.
    #[error("the picture has {value} {what}, the limit {setting} is {limit}")]
    TooLarge {
        /// What there is too much of, with its unit.
        what: &'static str,
        /// The limit's name among the server's settings.
        setting: &'static str,
        /// The limit's value, in the unit of `what`.
        limit: u64,
        /// What the picture has, or at least has.
        value: u64,
    },
    /// The file ends before its picture does.
    #[error("the {format} is truncated: {detail}")]
    Truncated {
        /// The format, by its usual name: `JPEG`.
        format: &'static str,
        /// What the file lacks, as far as that is known.
        detail: String,
    },
    /// The file is damaged in some other way.
    #[error("the {format} cannot be decoded: {detail}")]
    Undecodable {
        /// The format, by its usual name: `JPEG`.
        format: &'static str,
        /// The decoder's reason, in its own words.
        detail: String,
    },
    /// Raw pixels that do not fit their stated size.
    #[error(
        "raw RGB of {width}×{height} pixels has {found} bytes; width × height × 3 and no side of 0 is needed"
    )]
    Shape {
        /// Columns that the sender stated.
        width: u32,
        /// Rows that the sender stated.
        height: u32,
        /// Bytes that the sender gave.
        found: usize,
    },
}
