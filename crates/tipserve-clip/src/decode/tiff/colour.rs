//! How the samples of a pixel become a colour.

use super::{
    errors::{undecodable, unsupported},
    lab::{Axes, Lab},
    tags::Tags,
    ycbcr::YCbCr,
};
use crate::{
    decode::samples::{cmyk, grey, to_rgb, unmultiply},
    picture::PictureError,
};

/// How the samples of a pixel become a colour.
#[derive(Debug)]
pub(super) enum Colour {
    /// Black is 0, or white is. A second sample is kept if the grey was
    /// multiplied by it.
    Grey {
        white_is_zero: bool,
        associated_alpha: bool,
    },
    /// Three samples; a fourth is kept if they were multiplied by it.
    Rgb {
        associated_alpha: bool,
    },
    /// One sample, an index into this table of RGB colours.
    Palette(Vec<[u8; 3]>),
    /// Four inks, 255 is full.
    Cmyk,
    /// Three samples that JPEG turns into RGB.
    JpegYCbCr,
    YCbCr(Box<YCbCr>),
    Lab(Lab),
}

impl Colour {
    /// What the tags say. `jpeg` turns YCbCr into RGB itself.
    pub(super) fn read(
        tags: &Tags,
        photometric: usize,
        bits: usize,
        jpeg: bool,
    ) -> Result<Self, PictureError> {
        const ASSOCIATED: usize = 1;
        const CMYK: usize = 1;
        let extra = tags.all(338)?.unwrap_or_default();
        let associated_alpha = extra.first() == Some(&ASSOCIATED);
        let colour = match photometric {
            0 | 1 => Self::Grey {
                white_is_zero: photometric == 0,
                associated_alpha,
            },
            2 => Self::Rgb { associated_alpha },
            3 => Self::Palette(palette(tags, bits)?),
            5 if tags.or(332, CMYK)? != CMYK => {
                return Err(unsupported("in other inks than CMYK"));
            }
            5 => Self::Cmyk,
            6 if jpeg => Self::JpegYCbCr,
            6 => Self::YCbCr(Box::new(YCbCr::read(tags)?)),
            8 => Self::Lab(Lab::new(Axes::Signed)),
            9 => Self::Lab(Lab::new(Axes::Offset)),
            other => return Err(unsupported(name(other))),
        };
        if associated_alpha && !matches!(colour, Self::Grey { .. } | Self::Rgb { .. }) {
            return Err(unsupported(
                "with associated alpha beside other than grey or RGB",
            ));
        }
        Ok(colour)
    }

    /// How many of a pixel's samples are kept until the picture is complete.
    pub(super) fn channels(&self) -> usize {
        match self {
            Self::Palette(_) => 1,
            Self::Grey {
                associated_alpha, ..
            } => 1 + usize::from(*associated_alpha),
            Self::Rgb { associated_alpha } => 3 + usize::from(*associated_alpha),
            Self::JpegYCbCr | Self::YCbCr(_) | Self::Lab(_) => 3,
            Self::Cmyk => 4,
        }
    }

    /// RGB of the samples that were kept.
    pub(super) fn rgb(&self, mut samples: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Grey {
                white_is_zero,
                associated_alpha,
            } => {
                if *associated_alpha {
                    for [level, alpha] in samples.as_chunks_mut::<2>().0 {
                        let [divided, ..] = unmultiply(&[*level, 0, 0, *alpha]);
                        *level = divided;
                    }
                }
                let mut rgb = grey(&samples, self.channels());
                if *white_is_zero {
                    for level in &mut rgb {
                        *level = 255 - *level;
                    }
                }
                return rgb;
            }
            Self::Palette(entries) => {
                let mut rgb = grey(&samples, 1);
                for pixel in rgb.as_chunks_mut::<3>().0 {
                    let [index, ..] = *pixel;
                    *pixel = entries.get(usize::from(index)).copied().unwrap_or_default();
                }
                return rgb;
            }
            Self::Rgb {
                associated_alpha: false,
            }
            | Self::JpegYCbCr => {}
            Self::Rgb {
                associated_alpha: true,
            } => to_rgb(&mut samples, unmultiply),
            Self::YCbCr(tables) => to_rgb(&mut samples, |pixel| tables.rgb(pixel)),
            Self::Lab(lab) => to_rgb(&mut samples, |pixel| lab.rgb(pixel)),
            Self::Cmyk => to_rgb(&mut samples, cmyk),
        }
        samples
    }
}

/// A kind of colour that is not read, by its number.
fn name(photometric: usize) -> String {
    match photometric {
        4 => "that is the mask of another picture".into(),
        10 => "in ITU L*a*b* colour".into(),
        32803 | 34892 => "of a camera's raw data".into(),
        32844 | 32845 => "in LogLuv, whose white nothing tells".into(),
        other => format!("in photometric interpretation {other}"),
    }
}

/// The palette's high bytes, as Pillow takes them.
fn palette(tags: &Tags, bits: usize) -> Result<Vec<[u8; 3]>, PictureError> {
    if !matches!(bits, 1..=8) {
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
