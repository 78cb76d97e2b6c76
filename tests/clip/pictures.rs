//! Decoding and preprocessing: the bytes that Pillow and torchvision give.

use serde::Deserialize;
use tipserve_clip::{
    decode::decode,
    image_spec::{ImageSpec, ResizeRule, Size},
    picture::{Picture, PictureError, PictureLimits},
    resize::Interpolation,
    views::prepare,
};

use crate::reference;

#[derive(Deserialize)]
struct Case {
    name: String,
    file: String,
    exact: bool,
    refusable: bool,
    rgb: String,
    crop: Option<String>,
    size: [u32; 2],
    resize_to: [u32; 2],
    resize: ResizeRule,
    interpolation: Interpolation,
}

pub fn spec(size: u32, resize_to: u32, interpolation: Interpolation) -> ImageSpec {
    ImageSpec {
        file: String::new(),
        size: Size::square(size),
        mean: [0.48145466, 0.4578275, 0.40821073],
        std: [0.26862954, 0.26130258, 0.27577711],
        resize: ResizeRule::ShortestSide,
        resize_to: Size::square(resize_to),
        interpolation,
        parts: Vec::new(),
    }
}

fn differences(ours: &[u8], theirs: &[u8]) -> (u8, f64) {
    let levels = ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b));
    let total: u64 = levels.clone().map(u64::from).sum();
    (levels.max().unwrap_or(0), total as f64 / ours.len() as f64)
}

#[test]
fn pictures_decode_and_crop_as_pillow_has_them() {
    let seed = reference::seed();
    let folder = reference::run("clip_pictures.py", &[&seed.to_string()]);
    let read = |name: &str| std::fs::read(folder.path().join(name)).expect("a file");
    let cases: Vec<Case> = serde_json::from_slice(&read("cases.json")).expect("cases");
    let limits = PictureLimits::default();
    let mut failures = Vec::new();
    for case in &cases {
        let name = &case.name;
        let (shape, rgb) = reference::bytes(&folder.path().join(&case.rgb));
        let (height, width) = (shape[0] as u32, shape[1] as u32);
        let picture = match decode(&read(&case.file), &limits) {
            Ok(picture) => picture,
            Err(PictureError::Unsupported { what }) if case.refusable => {
                println!("{name}: refused, {what}");
                continue;
            }
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        if (picture.width(), picture.height()) != (width, height) {
            failures.push(format!(
                "{name}: {}x{}, Pillow has {width}x{height}",
                picture.width(),
                picture.height()
            ));
            continue;
        }
        let (most, mean) = differences(picture.rgb(), &rgb);
        if !case.exact {
            println!("{name} {width}x{height}: max {most}, mean {mean:.3} levels");
        }
        if (case.exact && most > 0) || mean > 1.0 {
            failures.push(format!(
                "{name} {width}x{height}: max {most}, mean {mean:.3}"
            ));
        }

        // The crop is held on Pillow's own pixels, so that it is exact for
        // every format.
        let Some(crop) = &case.crop else { continue };
        let same = Picture::from_raw(width, height, &rgb, &limits).expect("raw");
        let sides = |[height, width]: [u32; 2]| Size { height, width };
        let spec = ImageSpec {
            size: sides(case.size),
            resize_to: sides(case.resize_to),
            resize: case.resize,
            ..spec(1, 1, case.interpolation)
        };
        let (_, theirs) = reference::bytes(&folder.path().join(crop));
        let ours = prepare(&same, &spec);
        if ours != theirs {
            let (most, mean) = differences(&ours, &theirs);
            failures.push(format!(
                "{name} {width}x{height} → {:?} of {:?} ({:?}): max {most}, mean {mean:.3}",
                case.size, case.resize_to, case.resize
            ));
        }
    }
    println!("{} cases", cases.len());
    assert!(failures.is_empty(), "seed {seed}:\n{}", failures.join("\n"));
}
