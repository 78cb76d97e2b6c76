//! The memory limit is true for each kind of picture: what a decoder is
//! counted with is no less than what its process comes to hold.

use tipserve_clip::{
    DecodeOptions, ExifOrientation, decode_with,
    picture::{PictureError, PictureLimits},
};

use crate::{
    bad_pictures::{alone, peak},
    reference,
};

/// What the allocator and the decoders' tables take beside what is counted.
const SLACK: u64 = 3 << 20;

const UPRIGHT: DecodeOptions = DecodeOptions {
    exif_orientation: ExifOrientation::Apply,
    shortest_side: None,
};

/// The least limit, in bytes, that lets the picture be decoded: each refusal
/// names what is needed.
fn counted(bytes: &[u8], name: &str) -> u64 {
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

#[test]
fn no_decoder_holds_more_than_it_is_counted_with() {
    if !alone("memory::no_decoder_holds_more_than_it_is_counted_with") {
        return;
    }
    let folder = reference::run("clip_large.py", &[&reference::seed().to_string()]);
    let mut files: Vec<_> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let mut failures = Vec::new();
    for path in &files {
        let name = path.file_name().expect("a name").to_string_lossy();
        let bytes = std::fs::read(path).expect("a file");
        let counted = counted(&bytes, &name);
        let limits = PictureLimits {
            decoder_bytes: counted,
            ..PictureLimits::default()
        };
        // 5 resets the peak to what is held now.
        std::fs::write("/proc/self/clear_refs", "5").expect("Linux");
        let before = peak();
        let picture = decode_with(&bytes, &limits, &UPRIGHT).expect("within its limit");
        let held = peak().saturating_sub(before);
        let pixels = u64::from(picture.width()) * u64::from(picture.height());
        println!(
            "{name}: {:.2} bytes a pixel counted, {:.2} held",
            counted as f64 / pixels as f64,
            held as f64 / pixels as f64
        );
        if held > counted + SLACK {
            failures.push(format!("{name}: {held} bytes held, {counted} counted"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
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
