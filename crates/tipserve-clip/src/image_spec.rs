//! `[image]` of `bundle.toml`: the image encoder, and how a picture becomes
//! its input.

use serde::{Deserialize, Deserializer, de::Error as _};

use super::{
    resize::Interpolation,
    violation::{Violation, ensure},
};

/// Longest side of what an encoder takes, in pixels.
const MAX_SIDE: u32 = 4096;
/// Longest side that a picture is resized to before the crop, in pixels.
const MAX_RESIZED_SIDE: u32 = 8192;
/// Most encoders in one bundle.
const MAX_PARTS: usize = 4;

/// The image encoder and its preprocessing.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ImageSpec {
    /// TorchScript: f32 [B, 3, height, width], normalised → [B, D].
    pub file: String,
    /// What the encoder takes, in pixels.
    pub size: Size,
    /// Subtracted from each channel (red, green, blue; levels 0 to 1).
    pub mean: [f64; 3],
    /// What each channel is then divided by.
    pub std: [f64; 3],
    /// How a picture is brought to `resize_to`.
    #[serde(default)]
    pub resize: ResizeRule,
    /// What a picture is resized to before the centre crop.
    pub resize_to: Size,
    /// The resampling kernel of the resize.
    pub interpolation: Interpolation,
    /// The squares of a bundle with several encoders, each preprocessed by its
    /// own rule and laid one below the other into `size`; empty if there is
    /// one encoder. `resize`, `resize_to` and `interpolation` above are then
    /// not used.
    #[serde(default)]
    pub parts: Vec<PartSpec>,
}

/// How one of several encoders sees a picture.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PartSpec {
    /// What the encoder takes, in pixels.
    pub size: Size,
    /// How a picture is brought to `resize_to`.
    #[serde(default)]
    pub resize: ResizeRule,
    /// What a picture is resized to before the centre crop.
    pub resize_to: Size,
    /// The resampling kernel of the resize.
    pub interpolation: Interpolation,
    /// Where its features lie among the bundle's, and how much they count; none
    /// from bundles that were joined before it was written down.
    #[serde(flatten)]
    pub share: Option<PartShare>,
}

/// An encoder's share of a joined bundle's features.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct PartShare {
    /// Width of its features. They come in the order of the parts.
    pub width: usize,
    /// Its share of the cosine of two features; those of all parts sum to 1.
    pub weight: f64,
}

/// Rows and columns, in pixels. In `bundle.toml` one number for a square, or
/// `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Rows of the picture, in pixels.
    pub height: u32,
    /// Columns of the picture, in pixels.
    pub width: u32,
}

impl Size {
    /// The same number of rows and columns.
    pub const fn square(side: u32) -> Self {
        Self {
            height: side,
            width: side,
        }
    }

    /// Whether it has as many rows as columns.
    pub fn is_square(self) -> bool {
        self.height == self.width
    }

    /// The longer of the two sides, in pixels.
    pub fn longest(self) -> u32 {
        self.height.max(self.width)
    }

    /// Bytes of an RGB picture of this size.
    pub fn rgb_bytes(self) -> usize {
        self.height as usize * self.width as usize * 3
    }

    /// [count, height, width, 3]: the shape of that many RGB pictures.
    pub fn batch_shape(self, count: usize) -> [i64; 4] {
        let sides = (i64::from(self.height), i64::from(self.width));
        [count as i64, sides.0, sides.1, 3]
    }

    fn is_within(self, least: Size, most: u32) -> bool {
        let fits = |side: u32, least: u32| (least..=most).contains(&side);
        fits(self.height, least.height) && fits(self.width, least.width)
    }

    fn describe(self) -> String {
        match self.is_square() {
            true => self.height.to_string(),
            false => format!("[{}, {}]", self.height, self.width),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Square(u32),
            Sides([u32; 2]),
        }
        match Written::deserialize(from) {
            Ok(Written::Square(side)) => Ok(Self::square(side)),
            Ok(Written::Sides([height, width])) => Ok(Self { height, width }),
            Err(_) => Err(D::Error::custom(
                "pixels are one whole number, or two in the order [height, width]",
            )),
        }
    }
}

/// How a picture is resized before the centre crop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResizeRule {
    /// The shorter side to `resize_to`, a square, the aspect ratio kept.
    #[default]
    ShortestSide,
    /// Both sides to `resize_to`, whatever the aspect ratio.
    Squash,
}

impl ResizeRule {
    /// As `bundle.toml` and the API name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ShortestSide => "shortest-side",
            Self::Squash => "squash",
        }
    }
}

impl ImageSpec {
    /// What is made of each picture: one part for each encoder.
    pub fn parts(&self) -> Vec<PartSpec> {
        match self.parts.is_empty() {
            true => vec![self.whole()],
            false => self.parts.clone(),
        }
    }

    /// The one part of a bundle with one encoder.
    fn whole(&self) -> PartSpec {
        PartSpec {
            size: self.size,
            resize: self.resize,
            resize_to: self.resize_to,
            interpolation: self.interpolation,
            share: None,
        }
    }

    /// Whether the parts' shares, if they are stated, are those of features of
    /// this width.
    pub(super) fn check_shares(&self, width: usize) -> Result<(), Violation> {
        let shares: Vec<PartShare> = self.parts.iter().filter_map(|part| part.share).collect();
        if shares.is_empty() {
            return Ok(());
        }
        let widths: usize = shares.iter().map(|share| share.width).sum();
        ensure(
            shares.len() == self.parts.len() && widths == width,
            "image.parts.width",
            widths,
            "must be stated for all parts or none, and sum to the bundle's width",
        )?;
        let sum: f64 = shares.iter().map(|share| share.weight).sum();
        ensure(
            shares.iter().all(|share| share.weight > 0.0) && (sum - 1.0).abs() < 1e-6,
            "image.parts.weight",
            sum,
            "must be over 0, and sum to 1",
        )
    }

    /// The longest side that any encoder's picture is resized to.
    pub fn longest_resize(&self) -> u32 {
        let parts = self.parts.iter().map(|part| part.resize_to.longest());
        parts.max().unwrap_or(self.resize_to.longest())
    }

    pub(super) fn check(&self) -> Result<(), Violation> {
        ensure(
            self.size.is_within(Size::square(1), MAX_SIDE),
            "image.size",
            self.size.describe(),
            "must be from 1 to 4096 pixels",
        )?;
        for mean in self.mean {
            ensure(
                mean.is_finite() && mean.abs() <= 255.0,
                "image.mean",
                mean,
                "must be finite (of levels from 0 to 1)",
            )?;
        }
        for std in self.std {
            ensure(
                std.is_finite() && (1e-6..=255.0).contains(&std),
                "image.std",
                std,
                "must be from 1e-6 to 255 (of levels from 0 to 1)",
            )?;
        }
        if self.parts.is_empty() {
            return self.whole().check("image");
        }
        self.check_parts()
    }

    fn check_parts(&self) -> Result<(), Violation> {
        for (at, part) in self.parts.iter().enumerate() {
            let key = format!("image.parts[{at}]");
            ensure(
                part.size.is_within(Size::square(1), MAX_SIDE),
                &format!("{key}.size"),
                part.size.describe(),
                "must be from 1 to 4096 pixels",
            )?;
            part.check(&key)?;
        }
        ensure(
            self.parts.len() <= MAX_PARTS,
            "image.parts",
            self.parts.len(),
            "must be at most 4",
        )?;
        let height: u32 = self.parts.iter().map(|part| part.size.height).sum();
        let width = self.parts.iter().map(|part| part.size.width).max();
        ensure(
            self.size.height == height && Some(self.size.width) == width,
            "image.size",
            self.size.describe(),
            "must hold the parts one below the other",
        )
    }
}

impl PartSpec {
    fn check(&self, key: &str) -> Result<(), Violation> {
        ensure(
            self.resize_to.is_within(self.size, MAX_RESIZED_SIDE),
            &format!("{key}.resize_to"),
            self.resize_to.describe(),
            "must be from the size that the encoder takes to 8192 pixels",
        )?;
        ensure(
            self.resize == ResizeRule::Squash || self.resize_to.is_square(),
            &format!("{key}.resize_to"),
            self.resize_to.describe(),
            "must be one number where the shortest side is resized",
        )
    }
}
