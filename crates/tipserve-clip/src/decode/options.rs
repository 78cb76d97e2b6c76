//! What may be asked of a decoder.

/// What to do with a picture's EXIF orientation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ExifOrientation {
    /// Pixels stay as they are stored, which is what CLIP's own pipelines do.
    #[default]
    Ignore,
    /// The picture is turned upright, as viewers show it.
    Apply,
}

/// How a picture is decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeOptions {
    /// What to do with the orientation that cameras write beside the pixels.
    /// (TIFF's own orientation tag is always applied, as Pillow does.)
    pub exif_orientation: ExifOrientation,
    /// A JPEG may be decoded at a half, a quarter or an eighth of its size,
    /// the smallest whose shorter side still has this many pixels. That is
    /// done on the DCT's coefficients and saves most of the work after the
    /// entropy decoder; the pixels are close to the full picture's box
    /// averages, and not those that Pillow gives. None: always in full.
    pub shortest_side: Option<u32>,
}
