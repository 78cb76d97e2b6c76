//! From a picture to what the image encoder takes: the centre crop that CLIP
//! classifies, and the random crops that a cache is built from.

use rand::RngCore;
use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};

use super::{
    image_spec::{ImageSpec, PartSpec, ResizeRule},
    picture::Picture,
    resize::{Window, resize},
};

/// The encoder's preprocessing up to bytes: resizes the picture to
/// `resize_to` by the spec's rule (where that is the shorter side, the longer
/// to `int(resize_to · long / short)`), then takes the central `size`.
///
/// Returns height × width × 3 bytes (rows, columns, RGB), those of torchvision's
/// `Resize` and `CenterCrop` on a Pillow (≤ 12) picture. Of a spec with parts,
/// every part's bytes, one below the other in rows of the spec's width.
pub fn prepare(picture: &Picture, spec: &ImageSpec) -> Vec<u8> {
    assemble(spec, |part| prepare_part(picture, part))
}

fn prepare_part(picture: &Picture, part: &PartSpec) -> Vec<u8> {
    // Of a picture decoded at a fraction: the sides that the whole one would
    // have been resized to.
    let (width, height) = resized(picture.full_size(), part);
    let window = Window {
        x: centre_offset(width, part.size.width.into()),
        y: centre_offset(height, part.size.height.into()),
        width: part.size.width as usize,
        height: part.size.height as usize,
    };
    resize(
        picture,
        whole(picture),
        Some(picture.extent()),
        (width, height),
        window,
        part.interpolation,
    )
}

/// Columns and rows that a picture of this size has after the resize, before
/// the crop.
fn resized((width, height): (u32, u32), part: &PartSpec) -> (u64, u64) {
    let to = part.resize_to;
    if part.resize == ResizeRule::Squash {
        return (to.width.into(), to.height.into());
    }
    let (width, height, to) = (u64::from(width), u64::from(height), u64::from(to.width));
    let (short, long) = (width.min(height), width.max(height));
    // Python's `int(size * long / short)`: one correctly rounded division.
    let new_long = ((to * long) as f64 / short as f64) as u64;
    if width <= height {
        (to, new_long)
    } else {
        (new_long, to)
    }
}

/// What an encoder of the whole spec takes, made of each part's pixels.
fn assemble(spec: &ImageSpec, mut pixels: impl FnMut(&PartSpec) -> Vec<u8>) -> Vec<u8> {
    let parts = spec.parts();
    if let [part] = parts.as_slice() {
        return pixels(part);
    }
    let pitch = spec.size.width as usize * 3;
    let mut canvas = Vec::with_capacity(spec.size.rgb_bytes());
    for part in &parts {
        for row in pixels(part).chunks_exact(part.size.width as usize * 3) {
            canvas.extend_from_slice(row);
            canvas.resize(canvas.len().next_multiple_of(pitch), 0);
        }
    }
    canvas
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
/// RandomResizedCrop (scale 0.5–1, ratio 3/4–4/3), resized to the encoder's
/// size with the spec's interpolation, then mirrored with probability ½. Every
/// part of a spec with several sees the same rectangle.
///
/// Returns bytes as [`prepare`] does. Up to four numbers a try are drawn from
/// `rng` (see [`view_rng`]), and one for the mirror.
pub fn view(picture: &Picture, spec: &ImageSpec, rng: &mut impl RngCore) -> Vec<u8> {
    let region = random_region(picture.width(), picture.height(), rng);
    let mirrored = uniform(rng) < 0.5;
    assemble(spec, |part| {
        let window = Window {
            x: 0,
            y: 0,
            width: part.size.width as usize,
            height: part.size.height as usize,
        };
        let target = (part.size.width.into(), part.size.height.into());
        let mut pixels = resize(picture, region, None, target, window, part.interpolation);
        if mirrored {
            for row in pixels.chunks_exact_mut(window.width * 3) {
                mirror(row);
            }
        }
        pixels
    })
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

/// A number drawn uniformly from 0..=last, by multiply and shift.
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
