//! Any bytes as a picture file: an error or a picture within the limits, and
//! then its prepared form.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tipserve::clip::{
    ImageSpec, PictureLimits,
    bundle::{Interpolation, ResizeRule},
    decode, prepare, view, view_rng,
};

const SIDE: u32 = 32;

fuzz_target!(|bytes: &[u8]| {
    // Small, so that the time goes into the decoders and not into pixels.
    let limits = PictureLimits {
        pixels: 1 << 16,
        ..PictureLimits::default()
    };
    if let Ok(picture) = decode(bytes, &limits) {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        assert!(width * height <= 1 << 16);
        assert_eq!(picture.rgb().len(), width * height * 3);
        let spec = ImageSpec {
            file: String::new(),
            size: SIDE,
            mean: [0.5; 3],
            std: [0.5; 3],
            resize: ResizeRule::ShortestSide,
            resize_to: SIDE,
            interpolation: Interpolation::Bicubic,
        };
        let bytes = (SIDE * SIDE * 3) as usize;
        assert_eq!(prepare(&picture, &spec).len(), bytes);
        assert_eq!(view(&picture, &spec, &mut view_rng(7, 0, 0)).len(), bytes);
    }
});
