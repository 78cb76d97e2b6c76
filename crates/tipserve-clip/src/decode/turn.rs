//! Turning a picture upright, as Pillow's `ImageOps.exif_transpose` does.

use crate::picture::{Picture, PictureError, PictureLimits};

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
}
