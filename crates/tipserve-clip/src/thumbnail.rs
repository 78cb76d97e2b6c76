//! Thumbnails: what is kept of a picture so that people can look at it.

use image::{RgbImage, imageops};

use crate::{
    decode::{DecodeOptions, ExifOrientation, decode_with},
    picture::{Picture, PictureError, PictureLimits},
};

/// Longest side of a thumbnail, pixels.
pub const THUMBNAIL_SIDE: u32 = 256;

/// Most bytes of a thumbnail.
pub const MAX_THUMBNAIL_BYTES: usize = 48 << 10;

/// The qualities tried, best first. The first suits almost every picture; noise
/// needs the others.
const QUALITIES: [i32; 4] = [82, 65, 45, 25];

/// A thumbnail of a picture file as a baseline JPEG: at most [`THUMBNAIL_SIDE`]
/// pixels a side and [`MAX_THUMBNAIL_BYTES`] bytes, upright as viewers show it.
/// It is made of pixels alone: what the file says beside them (place, camera,
/// date) is not taken over. A picture that is smaller keeps its size.
///
/// # Errors
/// As [`decode_with`].
pub fn thumbnail_of_file(bytes: &[u8], limits: &PictureLimits) -> Result<Vec<u8>, PictureError> {
    let options = DecodeOptions {
        exif_orientation: ExifOrientation::Apply,
        shortest_side: Some(THUMBNAIL_SIDE),
    };
    thumbnail(&decode_with(bytes, limits, &options)?)
}

/// The same of a decoded picture.
///
/// # Errors
/// [`PictureError::Undecodable`] if it cannot be encoded, which a whole picture
/// always can.
pub fn thumbnail(picture: &Picture) -> Result<Vec<u8>, PictureError> {
    let (width, height) = fit(picture.width(), picture.height());
    let whole = RgbImage::from_raw(picture.width(), picture.height(), picture.rgb().to_vec())
        .ok_or_else(|| unencodable("its bytes do not fit its size"))?;
    let mut small = if (width, height) == whole.dimensions() {
        whole
    } else {
        imageops::thumbnail(&whole, width, height)
    };
    loop {
        for quality in QUALITIES {
            let encoded = encode(&small, quality)?;
            if encoded.len() <= MAX_THUMBNAIL_BYTES {
                return Ok(encoded);
            }
        }
        // Not seen with any picture: 25 spends well under three bits a pixel.
        let (width, height) = small.dimensions();
        small = imageops::thumbnail(&small, (width / 2).max(1), (height / 2).max(1));
    }
}

/// Columns and rows of a picture whose longest side is brought down to
/// [`THUMBNAIL_SIDE`].
fn fit(width: u32, height: u32) -> (u32, u32) {
    let longest = width.max(height);
    if longest <= THUMBNAIL_SIDE {
        return (width, height);
    }
    let scaled = |side: u32| {
        let side = u64::from(side) * u64::from(THUMBNAIL_SIDE);
        let rounded = (side + u64::from(longest) / 2) / u64::from(longest);
        u32::try_from(rounded).unwrap_or(THUMBNAIL_SIDE).max(1)
    };
    (scaled(width), scaled(height))
}

fn encode(picture: &RgbImage, quality: i32) -> Result<Vec<u8>, PictureError> {
    let side = |pixels: u32| usize::try_from(pixels).map_err(unencodable);
    let (width, height) = (side(picture.width())?, side(picture.height())?);
    let image = turbojpeg::Image {
        pixels: picture.as_raw().as_slice(),
        width,
        pitch: 3 * width,
        height,
        format: turbojpeg::PixelFormat::RGB,
    };
    let encoded = turbojpeg::compress(image, quality, turbojpeg::Subsamp::Sub2x2);
    Ok(encoded.map_err(unencodable)?.to_vec())
}

fn unencodable(reason: impl ToString) -> PictureError {
    PictureError::Undecodable {
        format: "thumbnail",
        detail: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    fn limits() -> PictureLimits {
        PictureLimits::default()
    }

    #[test]
    fn the_longest_side_is_brought_down_and_the_shape_kept() {
        for (size, expected) in [
            ((512, 256), (256, 128)),
            ((256, 256), (256, 256)),
            ((90, 40), (90, 40)),
            ((3, 4000), (1, 256)),
            ((1000, 999), (256, 256)),
            ((4000, 3), (256, 1)),
        ] {
            assert_eq!(fit(size.0, size.1), expected, "{size:?}");
        }
    }

    #[test]
    fn even_noise_stays_within_its_bytes_and_reads_back() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        for (width, height) in [(700, 500), (256, 256), (1, 900), (31, 17)] {
            let pixels: Vec<u8> = (0..3 * width * height).map(|_| rng.random()).collect();
            let picture = Picture::from_raw(width, height, &pixels, &limits()).expect("a picture");
            let made = thumbnail(&picture).expect("a thumbnail");
            assert!(made.len() <= MAX_THUMBNAIL_BYTES, "{} bytes", made.len());
            assert!(made.starts_with(&[0xff, 0xd8, 0xff]));
            let back = decode_with(&made, &limits(), &DecodeOptions::default()).expect("reads");
            assert_eq!((back.width(), back.height()), fit(width, height));
        }
    }

    #[test]
    fn a_thumbnail_shows_what_the_picture_shows() {
        // Left half red, right half blue, 640 × 320.
        let pixels: Vec<u8> = (0..640 * 320)
            .flat_map(|at| match at % 640 < 320 {
                true => [220, 20, 20],
                false => [20, 20, 220],
            })
            .collect();
        let picture = Picture::from_raw(640, 320, &pixels, &limits()).expect("a picture");
        let made = thumbnail(&picture).expect("a thumbnail");
        let back = decode_with(&made, &limits(), &DecodeOptions::default()).expect("reads");
        for (at, pixel) in back.rgb().chunks(3).enumerate() {
            let column = at % back.width() as usize;
            let expected = match column {
                0..120 => [220, 20, 20],
                136.. => [20, 20, 220],
                _ => continue,
            };
            for (value, expected) in pixel.iter().zip(expected) {
                assert!(value.abs_diff(expected) < 16, "{pixel:?} at {at}");
            }
        }
        assert!(made.len() < 6000, "{} bytes", made.len());
    }
}
