//! What decoding and preparing a picture costs on one core.
//!
//! `cargo run --release --example picture_speed -- FILE...` prints, for each
//! file, the least and the median milliseconds of 51 runs of `decode`,
//! `prepare` (CLIP's 224-pixel centre crop) and one augmented `view`.

use std::{env, error::Error, fs, hint::black_box, time::Instant};

use tipserve_clip::{
    decode::decode,
    image_spec::{ImageSpec, ResizeRule, Size},
    picture::PictureLimits,
    resize::Interpolation,
    views::{prepare, view, view_rng},
};

const RUNS: usize = 51;

fn main() -> Result<(), Box<dyn Error>> {
    let spec = ImageSpec {
        file: String::new(),
        size: Size::square(224),
        mean: [0.5; 3],
        std: [0.5; 3],
        resize: ResizeRule::ShortestSide,
        resize_to: Size::square(224),
        interpolation: Interpolation::Bicubic,
        parts: Vec::new(),
    };
    let limits = PictureLimits::default();
    println!("milliseconds: least (median) of {RUNS}");
    for file in env::args().skip(1) {
        let bytes = fs::read(&file)?;
        let picture = decode(&bytes, &limits)?;
        println!(
            "{file} {}×{}: decode {}, prepare {}, view {}",
            picture.width(),
            picture.height(),
            time(|| decode(&bytes, &limits)),
            time(|| prepare(&picture, &spec)),
            time(|| view(&picture, &spec, &mut view_rng(1, 2, 3))),
        );
    }
    Ok(())
}

fn time<T>(work: impl Fn() -> T) -> String {
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            black_box(work());
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    match (times.first(), times.get(RUNS / 2)) {
        (Some(least), Some(median)) => format!("{least:.2} ({median:.2})"),
        _ => "nothing".into(),
    }
}
