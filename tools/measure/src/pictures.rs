//! JPEG files, smooth as photographs are, so that they compress as these do.

use std::path::PathBuf;

use anyhow::Context as _;
use image::{ImageFormat, RgbImage, imageops::FilterType};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Folder to write them to.
    #[arg(long)]
    out: PathBuf,
    /// Number of files to write.
    #[arg(long, default_value_t = 64)]
    count: u32,
    #[arg(long, default_value_t = 500)]
    width: u32,
    #[arg(long, default_value_t = 375)]
    height: u32,
    /// Seed of the random colours.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub fn run(args: &Args) -> anyhow::Result<Value> {
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let mut rng = StdRng::seed_from_u64(args.seed);
    let mut bytes = 0;
    for number in 0..args.count {
        let small = RgbImage::from_fn(16, 12, |_, _| image::Rgb(rng.random()));
        let picture =
            image::imageops::resize(&small, args.width, args.height, FilterType::CatmullRom);
        let path = args.out.join(format!("{number:04}.jpg"));
        picture.save_with_format(&path, ImageFormat::Jpeg)?;
        bytes += std::fs::metadata(&path)?.len();
    }
    Ok(serde_json::json!({"count": args.count, "bytes": bytes}))
}

/// `count` random prepared pictures, `side` × `side` × 3 bytes each: half of
/// them smooth, as pictures are, half of them noise.
pub fn prepared(count: usize, side: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count)
        .map(|number| {
            if number % 2 == 0 {
                let small = RgbImage::from_fn(8, 8, |_, _| image::Rgb(rng.random()));
                let side = side as u32;
                image::imageops::resize(&small, side, side, FilterType::Triangle).into_raw()
            } else {
                (0..side * side * 3).map(|_| rng.random()).collect()
            }
        })
        .collect()
}
