//! Buffers of samples, and their conversion to RGB in place: what a decoder
//! holds beside its output decides which pictures fit the memory limit.

use crate::picture::{PictureError, PictureLimits};

/// A zeroed buffer of width × height × `channels` bytes, if it is within the
/// limits.
pub(super) fn buffer(
    width: u32,
    height: u32,
    channels: u64,
    limits: &PictureLimits,
) -> Result<Vec<u8>, PictureError> {
    let bytes = (u64::from(width) * u64::from(height)).saturating_mul(channels);
    limits.check_decoder(bytes)?;
    Ok(vec![0; bytes as usize])
}

/// Makes RGB of pixels of `N` bytes each, in place: `rgb` gives the three
/// levels of one pixel. `N` is 3 or more.
pub(super) fn to_rgb<const N: usize>(samples: &mut Vec<u8>, rgb: impl Fn(&[u8; N]) -> [u8; 3]) {
    const { assert!(N >= 3, "a pixel must not be narrower than its RGB") };
    let pixels = samples.len() / N;
    let (mut from, mut to) = (0, 0);
    for _ in 0..pixels {
        let Some(pixel) = samples.get(from..).and_then(<[u8]>::first_chunk::<N>) else {
            break;
        };
        let levels = rgb(pixel);
        if let Some(place) = samples.get_mut(to..to + 3) {
            place.copy_from_slice(&levels);
        }
        from += N;
        to += 3;
    }
    samples.truncate(to);
    samples.shrink_to_fit();
}

/// The first of each `stride` bytes, three times.
pub(super) fn grey(levels: &[u8], stride: usize) -> Vec<u8> {
    let mut rgb = vec![0; levels.len() / stride.max(1) * 3];
    for (pixel, level) in rgb
        .chunks_exact_mut(3)
        .zip(levels.iter().step_by(stride.max(1)))
    {
        pixel.fill(*level);
    }
    rgb
}

/// Pillow's CMYK to RGB, where 255 is full ink.
pub(super) fn cmyk(&[cyan, magenta, yellow, black]: &[u8; 4]) -> [u8; 3] {
    let paper = 255 - black;
    [cyan, magenta, yellow].map(|ink| paper.saturating_sub(scale(ink, paper)))
}

/// a·b/255, rounded as Pillow's MULDIV255.
fn scale(a: u8, b: u8) -> u8 {
    let product = u32::from(a) * u32::from(b) + 128;
    (((product >> 8) + product) >> 8) as u8
}

/// A colour that was multiplied by its alpha, as it was before; Pillow's
/// `RGBa` to `RGBA`.
pub(super) fn unmultiply(&[red, green, blue, alpha]: &[u8; 4]) -> [u8; 3] {
    [red, green, blue].map(|level| {
        (u32::from(level) * 255)
            .checked_div(u32::from(alpha))
            .map_or(0, |level| level.min(255) as u8)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_become_rgb_in_place() {
        let mut samples = vec![1, 2, 3, 4, 5, 6, 7, 8];
        to_rgb(&mut samples, |&[red, green, blue, _]: &[u8; 4]| {
            [red, green, blue]
        });
        assert_eq!(samples, [1, 2, 3, 5, 6, 7]);
        assert_eq!(samples.capacity(), 6);
        assert_eq!(grey(&[9, 0, 8, 0], 2), [9, 9, 9, 8, 8, 8]);
    }

    #[test]
    fn associated_alpha_is_divided_out() {
        assert_eq!(unmultiply(&[10, 20, 200, 0]), [0; 3]);
        assert_eq!(unmultiply(&[10, 20, 200, 255]), [10, 20, 200]);
        assert_eq!(unmultiply(&[10, 20, 200, 100]), [25, 51, 255]);
    }
}
