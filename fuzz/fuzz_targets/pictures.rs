//! Any bytes as a picture file: an error or a picture within the limits, with
//! no more memory than they grant, and then its prepared form.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use tipserve_clip::{ImageSpec, PictureLimits, decode, prepare, view, view_rng, ResizeRule, Size, resize::Interpolation};

/// Counts what Rust allocates; libjpeg-turbo has C's allocator.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What decoders may allocate besides, whatever the picture's size: tables, and
/// for WebP a partition of up to 16 MiB, before it is known to be there.
const BESIDES: usize = 18 << 20;
const SIDE: u32 = 32;

fuzz_target!(|bytes: &[u8]| {
    // Small, so that the time goes into the decoders and not into pixels.
    let limits = PictureLimits {
        pixels: 1 << 16,
        decoder_bytes: 4 << 20,
        ..PictureLimits::default()
    };
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let decoded = decode(bytes, &limits);
    let taken = MEMORY.peak_usage() - before;
    assert!(taken <= (4 << 20) + BESIDES, "{taken} bytes to decode");
    if let Ok(picture) = decoded {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        assert!(width * height <= 1 << 16);
        assert_eq!(picture.rgb().len(), width * height * 3);
        let spec = ImageSpec {
            file: String::new(),
            size: Size::square(SIDE),
            mean: [0.5; 3],
            std: [0.5; 3],
            resize: ResizeRule::ShortestSide,
            resize_to: Size::square(SIDE),
            interpolation: Interpolation::Bicubic,
            parts: Vec::new(),
        };
        let bytes = (SIDE * SIDE * 3) as usize;
        assert_eq!(prepare(&picture, &spec).len(), bytes);
        assert_eq!(view(&picture, &spec, &mut view_rng(7, 0, 0)).len(), bytes);
    }
});
