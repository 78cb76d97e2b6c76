//! Pictures for several encoders at once.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tipserve_clip::{
    ImageSpec, PartSpec, Picture, PictureLimits, ResizeRule, Size, prepare, resize::Interpolation,
    view, view_rng,
};

use crate::{pictures::spec, reference};

fn part(size: Size, resize: ResizeRule, to: Size, interpolation: Interpolation) -> PartSpec {
    PartSpec {
        size,
        resize,
        resize_to: to,
        interpolation,
        share: None,
    }
}

/// A spec with one encoder, which sees what the part says.
fn alone(part: &PartSpec) -> ImageSpec {
    ImageSpec {
        size: part.size,
        resize: part.resize,
        resize_to: part.resize_to,
        ..spec(1, 1, part.interpolation)
    }
}

/// The rows of a canvas of `width` columns from `top` on, `size` of them.
fn cut(canvas: &[u8], width: u32, top: u32, size: Size) -> Vec<u8> {
    let pitch = width as usize * 3;
    canvas
        .chunks(pitch)
        .skip(top as usize)
        .take(size.height as usize)
        .flat_map(|row| row[..size.width as usize * 3].to_vec())
        .collect()
}

#[test]
fn each_encoder_gets_the_pixels_that_it_would_get_alone() {
    let mut rng = StdRng::seed_from_u64(reference::seed());
    let tall = Size {
        height: 40,
        width: 28,
    };
    let parts = vec![
        part(
            Size::square(32),
            ResizeRule::ShortestSide,
            Size::square(36),
            Interpolation::Bicubic,
        ),
        part(tall, ResizeRule::Squash, tall, Interpolation::Bilinear),
    ];
    let both = ImageSpec {
        size: Size {
            height: 72,
            width: 32,
        },
        parts: parts.clone(),
        ..spec(1, 1, Interpolation::Bicubic)
    };
    assert_eq!(both.longest_resize(), 40);
    for (width, height) in [(90, 50), (33, 200), (1, 1)] {
        let bytes: Vec<u8> = (0..width * height * 3).map(|_| rng.random()).collect();
        let limits = PictureLimits::default();
        let picture = Picture::from_raw(width, height, &bytes, &limits).expect("a picture");
        let prepared = prepare(&picture, &both);
        let seen = view(&picture, &both, &mut view_rng(3, 1, 2));
        assert_eq!(prepared.len(), both.size.rgb_bytes());
        let mut top = 0;
        for part in &parts {
            let own = alone(part);
            assert_eq!(cut(&prepared, 32, top, part.size), prepare(&picture, &own));
            // The same rectangle, mirrored or not, for both.
            let own = view(&picture, &own, &mut view_rng(3, 1, 2));
            assert_eq!(cut(&seen, 32, top, part.size), own);
            top += part.size.height;
        }
    }
}
