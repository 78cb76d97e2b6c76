//! The memory limit is true for each kind of picture: what a decoder is
//! counted with is no less than what it comes to allocate. A program of its
//! own, as it replaces `malloc`.

// A test stops where something is not as it says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(all(target_os = "linux", target_env = "gnu"))]
// A program's own malloc cannot be written without.
#![allow(unsafe_code)]

mod counted;

use std::{path::Path, process::Command};

use tipserve_clip::{
    DecodeOptions, ExifOrientation, decode_with,
    picture::{PictureError, PictureLimits},
};

/// Columns and rows of the pictures.
const SIDE: u32 = 2200;

/// What decoders' tables and buffers of some rows take beside what is counted.
const SLACK: u64 = 1 << 20;

const UPRIGHT: DecodeOptions = DecodeOptions {
    exif_orientation: ExifOrientation::Apply,
    shortest_side: None,
};

/// The least limit, in bytes, that lets the picture be decoded: each refusal
/// names what is needed.
fn needed(bytes: &[u8], name: &str) -> u64 {
    let mut limits = PictureLimits {
        decoder_bytes: 1,
        ..PictureLimits::default()
    };
    loop {
        match decode_with(bytes, &limits, &UPRIGHT) {
            Ok(_) => return limits.decoder_bytes,
            Err(PictureError::TooLarge { value, setting, .. }) => {
                assert_eq!(setting, "max_decoder_bytes", "{name}");
                assert!(value > limits.decoder_bytes, "{name}");
                limits.decoder_bytes = value;
            }
            // Decoders that are told of the limit refuse in words of theirs.
            Err(other) => {
                assert!(limits.decoder_bytes < 1 << 30, "{name}: {other}");
                limits.decoder_bytes += 1 << 20;
            }
        }
    }
}

fn write_pictures(folder: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new("python3")
        .arg(root.join("tests/reference/clip_large.py"))
        .arg(folder)
        .arg("1")
        .output()
        .expect("python3 on PATH");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
}

#[test]
fn no_decoder_holds_more_than_it_is_counted_with() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_pictures(folder.path());
    let mut files: Vec<_> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let mut failures = Vec::new();
    for path in &files {
        let name = path.file_name().expect("a name").to_string_lossy();
        let bytes = std::fs::read(path).expect("a file");
        let limits = PictureLimits {
            decoder_bytes: needed(&bytes, &name),
            ..PictureLimits::default()
        };
        let (picture, held) = counted::peak_of(|| decode_with(&bytes, &limits, &UPRIGHT));
        let picture = picture.expect("within its limit");
        assert!(held >= picture.rgb().len(), "{name}: nothing is counted");
        let pixels = f64::from(SIDE * SIDE);
        println!(
            "{name}: {:.2} bytes a pixel counted, {:.2} held",
            limits.decoder_bytes as f64 / pixels,
            held as f64 / pixels
        );
        if held as u64 > limits.decoder_bytes + SLACK {
            let counted = limits.decoder_bytes;
            failures.push(format!("{name}: {held} bytes held, {counted} counted"));
        }
    }
    assert!(files.len() > 30, "{} pictures", files.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
