//! JPEGs decoded at a fraction of their size: close to the whole, and of its
//! shape.

use image::{ImageFormat, RgbImage, imageops::FilterType};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tipserve_clip::{
    DecodeOptions,
    decode::{decode, decode_with},
    picture::PictureLimits,
    resize::Interpolation,
    views::prepare,
};

use crate::{pictures::spec, reference};

fn at_least(side: u32) -> DecodeOptions {
    DecodeOptions {
        shortest_side: Some(side),
        ..DecodeOptions::default()
    }
}

/// A smooth picture with some grain, as a photograph is.
fn photograph(rng: &mut StdRng, width: u32, height: u32) -> Vec<u8> {
    let small = RgbImage::from_fn(10, 8, |_, _| image::Rgb(rng.random()));
    let mut picture = image::imageops::resize(&small, width, height, FilterType::CatmullRom);
    for pixel in picture.pixels_mut() {
        let grain = rng.random_range(-8..=8);
        pixel.0 = pixel
            .0
            .map(|level| (i16::from(level) + grain).clamp(0, 255) as u8);
    }
    let mut file = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut file, ImageFormat::Jpeg)
        .expect("a JPEG");
    file.into_inner()
}

#[test]
fn a_large_jpeg_at_a_fraction_is_close_to_the_whole() {
    let mut rng = StdRng::seed_from_u64(reference::seed());
    let limits = PictureLimits::default();
    let spec = spec(56, 64, Interpolation::Bicubic);
    // Sides on both sides of every threshold, odd ones among them.
    for (width, height) in [
        (127, 200),
        (128, 200),
        (255, 300),
        (257, 259),
        (513, 1025),
        (1999, 1024),
    ] {
        let file = photograph(&mut rng, width, height);
        let whole = decode(&file, &limits).expect("a picture");
        let part = decode_with(&file, &limits, &at_least(128)).expect("a picture");
        let short = width.min(height);
        let fraction = [8, 4, 2]
            .into_iter()
            .find(|n| short.div_ceil(*n) >= 128)
            .unwrap_or(1);
        assert_eq!(
            (part.width(), part.height()),
            (width.div_ceil(fraction), height.div_ceil(fraction)),
            "{width}x{height}"
        );
        assert_eq!(part.full_size(), (width, height));
        let (a, b) = (prepare(&whole, &spec), prepare(&part, &spec));
        assert_eq!(a.len(), b.len());
        let total: u64 = a
            .iter()
            .zip(&b)
            .map(|(x, y)| u64::from(x.abs_diff(*y)))
            .sum();
        let mean = total as f64 / a.len() as f64;
        println!("{width}x{height} at 1/{fraction}: mean difference {mean:.3} levels");
        if fraction == 1 {
            assert_eq!(a, b);
        } else {
            assert!(mean < 1.0, "{width}x{height}: {mean}");
        }
    }
}

#[test]
fn no_fraction_where_none_is_asked_for() {
    let mut rng = StdRng::seed_from_u64(reference::seed());
    let limits = PictureLimits::default();
    let file = photograph(&mut rng, 900, 700);
    let whole = decode(&file, &limits).expect("a picture");
    assert_eq!(
        decode_with(&file, &limits, &DecodeOptions::default()),
        Ok(whole.clone())
    );
    assert_eq!(decode_with(&file, &limits, &at_least(701)), Ok(whole));
    let least = decode_with(&file, &limits, &at_least(0)).expect("a picture");
    assert_eq!((least.width(), least.height()), (113, 88));
}
