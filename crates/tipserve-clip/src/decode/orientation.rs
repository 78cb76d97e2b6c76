//! How a picture is to be turned (EXIF's orientation, 1 to 8), and the turning,
//! as Pillow's `ImageOps.exif_transpose` does both.

use super::{PictureError, PictureLimits, chunks, tiff::Directories};
use crate::picture::Picture;

/// What to do with a picture's EXIF orientation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ExifOrientation {
    /// Pixels stay as they are stored, which is what CLIP's own pipelines do.
    #[default]
    Ignore,
    /// The picture is turned upright, as viewers show it.
    Apply,
}

/// The tag, in EXIF and in TIFF.
const ORIENTATION: usize = 274;

/// The orientation in EXIF data, with or without its prefix.
pub(super) fn of_exif(exif: &[u8]) -> Option<u8> {
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let file = Directories::open(exif)?;
    let values = file.numbers(file.first()?, ORIENTATION).ok()??;
    known(values.first().and_then(|value| u8::try_from(*value).ok())?)
}

/// The orientation in an XMP packet, which Pillow takes if EXIF has none.
pub(super) fn of_xmp(xmp: &[u8]) -> Option<u8> {
    const TAG: &[u8] = b"tiff:Orientation";
    memchr::memmem::find_iter(xmp, TAG).find_map(|at| {
        let value = xmp.get(at + TAG.len()..)?;
        let value = value
            .strip_prefix(b"=\"")
            .or_else(|| value.strip_prefix(b">"))?;
        known(value.first()?.checked_sub(b'0')?)
    })
}

fn known(orientation: u8) -> Option<u8> {
    (1..=8).contains(&orientation).then_some(orientation)
}

/// The orientation of a PNG: its `eXIf` chunk, else its XMP text.
pub(super) fn of_png(bytes: &[u8]) -> Option<u8> {
    let find = |read: fn(&[u8; 4], &[u8]) -> Option<u8>| {
        chunks::png(bytes).find_map(|chunk| read(chunk.kind, chunk.data))
    };
    find(|kind, data| (kind == b"eXIf").then(|| of_exif(data)).flatten()).or_else(|| {
        find(|kind, data| {
            let text = (kind == b"iTXt").then_some(data)?;
            of_xmp(text.strip_prefix(b"XML:com.adobe.xmp\0\0")?)
        })
    })
}

/// The orientation of a WebP: its `EXIF` chunk, else its `XMP ` chunk.
pub(super) fn of_webp(bytes: &[u8]) -> Option<u8> {
    let find = |wanted: &[u8; 4]| chunks::riff(bytes).find(|chunk| chunk.kind == wanted);
    find(b"EXIF")
        .and_then(|chunk| of_exif(chunk.data))
        .or_else(|| of_xmp(find(b"XMP ")?.data))
}

/// Whether such a picture's columns become rows.
fn swaps_sides(orientation: u8) -> bool {
    matches!(orientation, 5..=8)
}

/// Turns a picture upright. Mirroring and half a turn are done in place; a
/// quarter turn holds the picture twice.
///
/// # Errors
/// [`PictureError::TooLarge`] if that passes the memory limit.
pub(super) fn turn(
    picture: Picture,
    orientation: u8,
    limits: &PictureLimits,
) -> Result<Picture, PictureError> {
    if !matches!(orientation, 2..=8) {
        return Ok(picture);
    }
    if swaps_sides(orientation) {
        limits.check_decoder(2 * picture.rgb().len() as u64)?;
    }
    Ok(
        picture.map_pixels(swaps_sides(orientation), |width, height, mut rgb| {
            let pitch = width as usize * 3;
            match orientation {
                2 => mirror_rows(&mut rgb, pitch),
                3 => mirror(&mut rgb),
                4 => {
                    mirror(&mut rgb);
                    mirror_rows(&mut rgb, pitch);
                }
                // Pillow's TRANSPOSE, ROTATE_270, TRANSVERSE and ROTATE_90.
                5 => rgb = transpose(&rgb, width, height, false, false),
                6 => rgb = transpose(&rgb, width, height, true, false),
                7 => rgb = transpose(&rgb, width, height, true, true),
                _ => rgb = transpose(&rgb, width, height, false, true),
            }
            rgb
        }),
    )
}

fn mirror_rows(rgb: &mut [u8], pitch: usize) {
    for row in rgb.chunks_exact_mut(pitch) {
        mirror(row);
    }
}

/// Pixels in the opposite order.
fn mirror(rgb: &mut [u8]) {
    rgb.reverse();
    for pixel in rgb.chunks_exact_mut(3) {
        pixel.reverse();
    }
}

/// Rows of the result that are written together, so that reads stay within a
/// cache line of a row.
const BLOCK: usize = 32;

/// Columns become rows. `from_below` reads rows from the last one on,
/// `from_right` columns.
fn transpose(rgb: &[u8], width: u32, height: u32, from_below: bool, from_right: bool) -> Vec<u8> {
    let (width, height) = (width as usize, height as usize);
    let mut turned = vec![0; rgb.len()];
    for (block, rows) in turned.chunks_mut(height * 3 * BLOCK).enumerate() {
        let first = block * BLOCK;
        for column in 0..height {
            let source = if from_below {
                height - 1 - column
            } else {
                column
            };
            let source = rgb.get(source * width * 3..).unwrap_or_default();
            for (number, row) in rows.chunks_exact_mut(height * 3).enumerate() {
                let at = first + number;
                let at = if from_right { width - 1 - at } else { at };
                if let (Some(to), Some(from)) = (
                    row.get_mut(column * 3..column * 3 + 3),
                    source.get(at * 3..at * 3 + 3),
                ) {
                    to.copy_from_slice(from);
                }
            }
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture of the numbers 0, 1, …, row by row.
    fn numbered(width: u32, height: u32) -> Picture {
        let rgb: Vec<u8> = (0..width * height).flat_map(|n| [n as u8; 3]).collect();
        Picture::from_raw(width, height, &rgb, &PictureLimits::default()).expect("a picture")
    }

    #[test]
    fn each_orientation_puts_the_corners_where_exif_says() {
        // Of 2 columns and 3 rows: 0 1 / 2 3 / 4 5.
        let cases = [
            (1, 2, [0, 1, 2, 3, 4, 5]),
            (2, 2, [1, 0, 3, 2, 5, 4]),
            (3, 2, [5, 4, 3, 2, 1, 0]),
            (4, 2, [4, 5, 2, 3, 0, 1]),
            (5, 3, [0, 2, 4, 1, 3, 5]),
            (6, 3, [4, 2, 0, 5, 3, 1]),
            (7, 3, [5, 3, 1, 4, 2, 0]),
            (8, 3, [1, 3, 5, 0, 2, 4]),
        ];
        for (orientation, width, expected) in cases {
            let turned = turn(numbered(2, 3), orientation, &PictureLimits::default());
            let turned = turned.expect("within the limits");
            let levels: Vec<u8> = turned.rgb().iter().step_by(3).copied().collect();
            assert_eq!(levels, expected, "orientation {orientation}");
            assert_eq!(turned.width(), width, "orientation {orientation}");
            assert_eq!(turned.full_size(), (turned.width(), turned.height()));
        }
    }

    #[test]
    fn a_quarter_turn_counts_twice_against_the_memory_limit() {
        let limits = PictureLimits {
            decoder_bytes: 30,
            ..PictureLimits::default()
        };
        assert!(turn(numbered(2, 3), 3, &limits).is_ok());
        assert!(matches!(
            turn(numbered(2, 3), 6, &limits),
            Err(PictureError::TooLarge { value: 36, .. })
        ));
    }

    #[test]
    fn xmp_names_the_orientation_in_two_ways() {
        assert_eq!(of_xmp(b"<x tiff:Orientation=\"6\"/>"), Some(6));
        assert_eq!(of_xmp(b"<tiff:Orientation>3</tiff:Orientation>"), Some(3));
        assert_eq!(of_xmp(b"<x tiff:Orientation=\"9\"/>"), None);
        assert_eq!(of_xmp(b"<x tiff:Orientation"), None);
    }
}
