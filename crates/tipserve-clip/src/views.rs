//! From a picture to what the image encoder takes: the centre crop that CLIP
//! classifies, and the random crops that a cache is built from.

use rand::RngCore;
use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};

use super::{
    bundle::ImageSpec,
    picture::Picture,
    resize::{Window, resize},
};

/// CLIP's preprocessing up to bytes: resizes the shorter side to
/// `spec.resize_to` (the longer to `int(resize_to · long / short)`), then
/// takes the central `size` × `size` pixels.
///
/// Returns size × size × 3 bytes (rows, columns, RGB), those of torchvision's
/// `Resize` and `CenterCrop` on a Pillow (≤ 12) picture.
pub fn prepare(picture: &Picture, spec: &ImageSpec) -> Vec<u8> {
    // Of a picture decoded at a fraction: the sides that the whole one would
    // have been resized to.
    let (width, height) = picture.full_size();
    let (width, height) = (u64::from(width), u64::from(height));
    let to = u64::from(spec.resize_to);
    let (short, long) = (width.min(height), width.max(height));
    // Python's `int(size * long / short)`: one correctly rounded division.
    let new_long = ((to * long) as f64 / short as f64) as u64;
    let (new_width, new_height) = if width <= height {
        (to, new_long)
    } else {
        (new_long, to)
    };
    let size = spec.size as usize;
    let window = Window {
        x: centre_offset(new_width, size as u64),
        y: centre_offset(new_height, size as u64),
        width: size,
        height: size,
    };
    resize(
        picture,
        whole(picture),
        Some(picture.extent()),
        (new_width, new_height),
        window,
        spec.interpolation,
    )
}

/// `round((full − crop) / 2)`, half to even as Python rounds.
fn centre_offset(full: u64, crop: u64) -> u64 {
    let twice = full.saturating_sub(crop);
    let half = twice / 2;
    half + (twice & 1) * (half & 1)
}

fn whole(picture: &Picture) -> Window {
    Window {
        x: 0,
        y: 0,
        width: picture.width() as usize,
        height: picture.height() as usize,
    }
}

/// The generator for one view: ChaCha12 keyed by the seed and the example,
/// one stream a view. Its output is fixed by the algorithm: the same on every
/// machine and in every version.
pub fn view_rng(seed: u64, example: u64, view: u64) -> ChaCha12Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&example.to_le_bytes());
    let mut rng = ChaCha12Rng::from_seed(key);
    rng.set_stream(view);
    rng
}

/// One augmented view, as Tip-Adapter's recipe has it: torchvision's
/// RandomResizedCrop (scale 0.5–1, ratio 3/4–4/3), resized to size × size
/// with the spec's interpolation, then mirrored with probability ½.
///
/// Returns size × size × 3 bytes. Up to four numbers a try are drawn from
/// `rng` (see [`view_rng`]), and one for the mirror.
pub fn view(picture: &Picture, spec: &ImageSpec, rng: &mut impl RngCore) -> Vec<u8> {
    let region = random_region(picture.width(), picture.height(), rng);
    let size = spec.size as usize;
    let window = Window {
        x: 0,
        y: 0,
        width: size,
        height: size,
    };
    let target = (u64::from(spec.size), u64::from(spec.size));
    let mut pixels = resize(picture, region, None, target, window, spec.interpolation);
    if uniform(rng) < 0.5 {
        for row in pixels.chunks_exact_mut(size * 3) {
            mirror(row);
        }
    }
    pixels
}

fn mirror(row: &mut [u8]) {
    row.reverse();
    for pixel in row.chunks_exact_mut(3) {
        pixel.reverse();
    }
}

/// Uniform in [0, 1), 53 bits.
fn uniform(rng: &mut impl RngCore) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Uniform in 0..=last.
fn uniform_to(last: u32, rng: &mut impl RngCore) -> u64 {
    ((u128::from(rng.next_u64()) * (u128::from(last) + 1)) >> 64) as u64
}

/// RandomResizedCrop's rectangle: ten tries, then the largest central crop of
/// an allowed ratio.
fn random_region(width: u32, height: u32, rng: &mut impl RngCore) -> Window {
    const SCALE: (f64, f64) = (0.5, 1.0);
    const RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
    let (full_width, full_height) = (f64::from(width), f64::from(height));
    let area = full_width * full_height;
    for _ in 0..10 {
        let target = area * (SCALE.0 + (SCALE.1 - SCALE.0) * uniform(rng));
        let (low, high) = (RATIO.0.ln(), RATIO.1.ln());
        let ratio = (low + (high - low) * uniform(rng)).exp();
        let crop_width = (target * ratio).sqrt().round_ties_even() as u32;
        let crop_height = (target / ratio).sqrt().round_ties_even() as u32;
        if (1..=width).contains(&crop_width) && (1..=height).contains(&crop_height) {
            let y = uniform_to(height - crop_height, rng);
            let x = uniform_to(width - crop_width, rng);
            return Window {
                x,
                y,
                width: crop_width as usize,
                height: crop_height as usize,
            };
        }
    }
    let ratio = full_width / full_height;
    let (crop_width, crop_height) = if ratio < RATIO.0 {
        (width, (full_width / RATIO.0).round_ties_even() as u32)
    } else if ratio > RATIO.1 {
        ((full_height * RATIO.1).round_ties_even() as u32, height)
    } else {
        (width, height)
    };
    Window {
        x: u64::from((width - crop_width) / 2),
        y: u64::from((height - crop_height) / 2),
        width: crop_width as usize,
        height: crop_height as usize,
    }
}
