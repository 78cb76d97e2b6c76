//! Files as cameras, scanners and other programs write them: the pixels that
//! Pillow (with libtiff) reads, turned upright if asked for.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tipserve_clip::{
    DecodeOptions, ExifOrientation, decode, decode_with,
    picture::{Picture, PictureError, PictureLimits},
};

use crate::reference;

const UPRIGHT: DecodeOptions = DecodeOptions {
    exif_orientation: ExifOrientation::Apply,
    shortest_side: None,
};

#[derive(Deserialize)]
struct Case {
    name: String,
    file: String,
    rgb: String,
    upright: String,
}

/// Why the picture is not the one in `truth`, a u8 array [H, W, 3].
fn difference(picture: Result<Picture, PictureError>, truth: &Path) -> Option<String> {
    let (shape, rgb) = reference::bytes(truth);
    let picture = match picture {
        Ok(picture) => picture,
        Err(error) => return Some(error.to_string()),
    };
    let size = (u64::from(picture.height()), u64::from(picture.width()));
    if size != (shape[0], shape[1]) {
        return Some(format!("{size:?}, Pillow has {shape:?}"));
    }
    let wrong = picture.rgb().iter().zip(&rgb).filter(|(a, b)| a != b);
    match wrong.count() {
        0 => None,
        count => Some(format!("{count} of {} levels differ", rgb.len())),
    }
}

#[test]
fn files_of_many_programs_decode_as_pillow_has_them() {
    let seed = reference::seed();
    let folder = reference::run("clip_files.py", &[&seed.to_string()]);
    let read = |name: &str| std::fs::read(folder.path().join(name)).expect("a file");
    let cases: Vec<Case> = serde_json::from_slice(&read("cases.json")).expect("cases");
    let limits = PictureLimits::default();
    let mut failures = Vec::new();
    for case in &cases {
        let bytes = read(&case.file);
        for (options, truth) in [
            (DecodeOptions::default(), &case.rgb),
            (UPRIGHT, &case.upright),
        ] {
            let picture = decode_with(&bytes, &limits, &options);
            if let Some(difference) = difference(picture, &folder.path().join(truth)) {
                failures.push(format!(
                    "{}, {:?}: {difference}",
                    case.name, options.exif_orientation
                ));
            }
        }
    }
    println!("{} files", cases.len());
    assert!(failures.is_empty(), "seed {seed}:\n{}", failures.join("\n"));
}

/// The folder of files that failed once, if it is beside the project.
fn kept_files() -> Option<PathBuf> {
    let folder = reference::root().join("../shared/cases/pictures");
    folder.is_dir().then_some(folder)
}

#[test]
fn files_that_failed_once_decode_as_pillow_has_them() {
    let Some(folder) = kept_files() else {
        println!("skipped: there is no folder of kept files");
        return;
    };
    let truths = reference::run("clip_kept.py", &[folder.to_str().expect("UTF-8")]);
    let limits = PictureLimits::default();
    let read = |name: &str| std::fs::read(folder.join(name)).expect(name);
    for name in [
        "jpg-noeoi.jpg",
        "png-noiend.png",
        "tif-zlib-predictor-4samples.tif",
        "tif-lzw-tiles32.tif",
        "tif-planar-tiled.tif",
        "tif-big.tif",
        "tif-la.tif",
        "tif-pal.tif",
        "bmp16-565.bmp",
        "jpg-exif6.jpg",
    ] {
        let bytes = read(name);
        for (options, truth) in [(DecodeOptions::default(), "rgb"), (UPRIGHT, "upright")] {
            let truth = truths.path().join(format!("{name}.{truth}.npy"));
            let picture = decode_with(&bytes, &limits, &options);
            if let Ok(picture) = &picture {
                let expected = name.contains("noeoi") || name.contains("noiend");
                assert_eq!(picture.lacks_end_mark(), expected, "{name}");
            }
            let difference = difference(picture, &truth);
            assert_eq!(difference, None, "{name}, {options:?}");
        }
    }
    for (name, needle) in [
        ("png-l16.png", "16-bit grey"),
        ("jpg-half-with-eoi.jpg", "premature end"),
        ("png-idat-missing-row.png", "PNG"),
        ("heic.heic", "HEIC (convert it"),
        ("avif.avif", "AVIF (convert it"),
    ] {
        let error = decode(&read(name), &limits).expect_err(name).to_string();
        assert!(error.contains(needle), "{name}: {error}");
    }
}

#[test]
fn a_jpeg_without_its_end_mark_is_taken_if_every_pixel_is_there() {
    let seed = reference::seed();
    let folder = reference::run("clip_ends.py", &[&seed.to_string()]);
    let limits = PictureLimits::default();
    for name in ["baseline.jpg", "progressive.jpg", "grey.jpg"] {
        let bytes = std::fs::read(folder.path().join(name)).expect(name);
        let whole = decode(&bytes, &limits).expect(name);
        assert!(!whole.lacks_end_mark(), "{name}");
        for cut in [1, 2] {
            let part = decode(&bytes[..bytes.len() - cut], &limits).expect(name);
            assert!(part.lacks_end_mark(), "{name}, {cut} bytes fewer");
            assert_eq!(part.rgb(), whole.rgb(), "{name}, {cut} bytes fewer");
        }
        // Of the last bits some are padding; what is taken is the picture.
        for cut in 3..bytes.len() - 2 {
            match decode(&bytes[..bytes.len() - cut], &limits) {
                Ok(part) => {
                    assert_eq!(part.rgb(), whole.rgb(), "{name}, {cut} bytes fewer");
                    assert!(cut < 6, "{name} without its last {cut} bytes is taken");
                }
                Err(PictureError::Truncated { .. }) => {}
                Err(other) => panic!("{name}, {cut} bytes fewer: {other}"),
            }
        }
    }
}

#[test]
fn a_png_without_its_end_mark_is_taken_if_every_pixel_is_there() {
    let seed = reference::seed();
    let folder = reference::run("clip_ends.py", &[&seed.to_string()]);
    let limits = PictureLimits::default();
    let bytes = std::fs::read(folder.path().join("plain.png")).expect("a PNG");
    let whole = decode(&bytes, &limits).expect("a PNG");
    assert!(!whole.lacks_end_mark());
    for cut in 1..=12 {
        let part = decode(&bytes[..bytes.len() - cut], &limits).expect("every pixel is there");
        assert!(part.lacks_end_mark(), "{cut} bytes fewer");
        assert_eq!(part.rgb(), whole.rgb());
    }
    for cut in 13..bytes.len() - 8 {
        let error = decode(&bytes[..bytes.len() - cut], &limits).expect_err("cut off");
        assert!(
            matches!(
                error,
                PictureError::Truncated { .. } | PictureError::Undecodable { .. }
            ),
            "{cut}: {error}"
        );
    }
}

#[test]
fn the_scans_of_a_jpeg_are_bounded_by_its_size() {
    let folder = reference::run("clip_ends.py", &[&reference::seed().to_string()]);
    let bytes = std::fs::read(folder.path().join("progressive.jpg")).expect("a JPEG");
    // The last scan again and again: a few bytes of file, a pass each.
    let last = bytes
        .windows(2)
        .rposition(|pair| pair == [0xFF, 0xDA])
        .expect("a scan");
    let scan = &bytes[last..bytes.len() - 2];
    let with_scans = |more: usize| {
        let mut file = bytes[..bytes.len() - 2].to_vec();
        file.extend(scan.repeat(more));
        file.extend([0xFF, 0xD9]);
        file
    };
    let pixels = 24 * 19;
    let limits = |pixels| PictureLimits {
        pixels,
        ..PictureLimits::default()
    };
    let refusal = |more, limits: &PictureLimits| {
        decode_with(&with_scans(more), limits, &DecodeOptions::default())
            .map_err(|error| error.to_string())
    };
    assert!(refusal(0, &limits(pixels)).is_ok());
    let error = refusal(20, &limits(pixels)).expect_err("30 scans of the largest picture");
    assert!(
        error.contains("scans, the limit for 456 pixels") && error.ends_with("is 20"),
        "{error}"
    );
    // A small picture may have more, but not any number.
    let error = refusal(200, &limits(pixels * 100)).expect_err("200 scans");
    assert!(error.ends_with("is 100"), "{error}");
}
