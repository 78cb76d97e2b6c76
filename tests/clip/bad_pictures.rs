//! Hostile and broken pictures: clear errors, bounded memory.

use std::process::Command;

use tipserve_clip::{
    decode::decode,
    picture::{Picture, PictureError, PictureLimits},
    resize::Interpolation,
    views::{prepare, view, view_rng},
};

use crate::{pictures::spec, reference};

fn refusal(bytes: &[u8]) -> PictureError {
    decode(bytes, &PictureLimits::default()).expect_err("refused")
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut body = kind.to_vec();
    body.extend_from_slice(data);
    let mut chunk = (data.len() as u32).to_be_bytes().to_vec();
    chunk.extend_from_slice(&body);
    chunk.extend_from_slice(&crc(&body).to_be_bytes());
    chunk
}

fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = width.to_be_bytes().to_vec();
    header.extend_from_slice(&height.to_be_bytes());
    header.extend_from_slice(&[8, 2, 0, 0, 0]);
    png.extend(chunk(b"IHDR", &header));
    png
}

/// Whether this is a process of its own for the test `name`; if not, runs one
/// and demands that it succeeds. Peak memory is counted by process, and the
/// other tests load models.
fn alone(name: &str) -> bool {
    const VARIABLE: &str = "TIPSERVE_TEST_ALONE";
    if std::env::var_os(VARIABLE).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().expect("this test's path"))
        .args(["--exact", name, "--nocapture"])
        .env(VARIABLE, "1")
        .output()
        .expect("this test, again");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

/// This process's peak memory, bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .expect("VmHWM");
    let digits: String = line.chars().filter(char::is_ascii_digit).collect();
    digits.parse::<u64>().expect("a number") * 1024
}

#[test]
fn what_is_no_picture_says_so() {
    assert_eq!(refusal(b""), PictureError::Empty);
    let error = refusal(b"hello, I am a text file named cat.jpg");
    assert!(
        matches!(error, PictureError::Unrecognised { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("68 65 6c 6c"), "{error}");
}

#[test]
fn sizes_are_refused_from_the_header_alone() {
    if !alone("bad_pictures::sizes_are_refused_from_the_header_alone") {
        return;
    }
    let before = peak();
    for (width, height) in [
        (50_000, 50_000),
        (32_769, 1),
        (32_000, 32_000),
        (u32::MAX, 1),
    ] {
        let mut png = png_header(width, height);
        png.extend(chunk(b"IDAT", &[0x78, 0x9c]));
        let error = refusal(&png);
        assert!(
            matches!(
                error,
                PictureError::TooLarge { .. } | PictureError::Undecodable { .. }
            ),
            "{error}"
        );
    }
    let mut png = png_header(50_000, 50_000);
    png.extend(chunk(b"IDAT", &[0x78, 0x9c]));
    let error = refusal(&png).to_string();
    assert!(
        error.contains("50000") && error.contains("32768"),
        "{error}"
    );
    for bytes in [
        b"P6 50000 50000 255\n".to_vec(),
        b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\0;".to_vec(),
        b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x50\xc3\0\0\x50\xc3\0\0\x01\0\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
        b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x11\0\x02\x11\0\x03\x11\0\xff\xd9".to_vec(),
    ] {
        let error = refusal(&bytes);
        assert!(matches!(error, PictureError::TooLarge { .. }), "{error}");
    }
    assert!(peak() - before < 64 << 20, "{} bytes", peak() - before);
}

/// A PNG of one pixel, of colour 0, and a palette of this many bytes.
fn png_with_palette(bytes: usize) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    png.extend(chunk(b"IHDR", &[0, 0, 0, 1, 0, 0, 0, 1, 8, 3, 0, 0, 0]));
    png.extend(chunk(b"PLTE", &vec![7; bytes]));
    // The zlib stream of two zeros, stored.
    png.extend(chunk(
        b"IDAT",
        &[0x78, 1, 1, 2, 0, 0xfd, 0xff, 0, 0, 0, 2, 0, 1],
    ));
    png.extend(chunk(b"IEND", &[]));
    png
}

/// Found by fuzzing: the decoder panics over a part of an entry.
#[test]
fn a_palette_is_whole() {
    for bytes in [3, 48, 768] {
        let picture = decode(&png_with_palette(bytes), &PictureLimits::default());
        assert_eq!(picture.expect("a picture").rgb(), [7; 3]);
    }
    for bytes in [4, 49, 50, 767] {
        let error = refusal(&png_with_palette(bytes));
        assert!(
            matches!(error, PictureError::Undecodable { .. })
                && error.to_string().contains(&format!("{bytes} bytes")),
            "{error}"
        );
    }
    for bytes in [0, 1, 2, 769, 771, 3000] {
        let error = refusal(&png_with_palette(bytes));
        assert!(matches!(error, PictureError::Undecodable { .. }), "{error}");
    }
}

/// A grey TIFF of one pixel in one strip, its third tag with this many values.
fn tiff_claiming(values: u32) -> Vec<u8> {
    let mut file = b"II*\0\x08\0\0\0\x08\0".to_vec();
    let tags: [(u16, u16, u32, u32); 8] = [
        (256, 3, 1, 1),
        (257, 3, 1, 1),
        (258, 3, values, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 110),
        (278, 3, 1, 1),
        (279, 4, 1, 1),
    ];
    for (tag, kind, count, value) in tags {
        file.extend(tag.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend(count.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    file.extend([0, 0, 0, 0, 77]);
    file
}

/// Found by fuzzing: the decoder allocates what a tag claims.
#[test]
fn a_tiffs_tags_hold_what_they_claim() {
    if !alone("bad_pictures::a_tiffs_tags_hold_what_they_claim") {
        return;
    }
    let limits = PictureLimits {
        decoder_bytes: 4 << 20,
        ..PictureLimits::default()
    };
    let picture = decode(&tiff_claiming(1), &limits).expect("a picture");
    assert_eq!(picture.rgb(), [77; 3]);
    let before = peak();
    for values in [100, 327_681, 100_000_000, u32::MAX] {
        let error = decode(&tiff_claiming(values), &limits).expect_err("refused");
        assert!(
            matches!(error, PictureError::Undecodable { .. })
                && error.to_string().contains(&format!("258 claims {values}")),
            "{error}"
        );
    }
    // Claims that the file holds, but whose values are over the limit.
    let mut long = tiff_claiming(600_000);
    long.resize(1_300_000, 0);
    let error = decode(&long, &limits).expect_err("refused");
    assert!(matches!(error, PictureError::TooLarge { .. }), "{error}");
    assert!(peak() - before < 8 << 20, "{} bytes", peak() - before);
}

/// Each strip or tile costs a decoder, and a file of a few bytes may name
/// millions that are all the same bytes.
#[test]
fn a_tiffs_tiles_are_bounded_by_its_pixels() {
    const SIDE: u32 = 1000;
    let mut file = b"II*\0\x08\0\0\0\x09\0".to_vec();
    let tiles = SIDE * SIDE;
    let tags: [(u16, u16, u32, u32); 9] = [
        (256, 3, 1, SIDE),
        (257, 3, 1, SIDE),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (322, 3, 1, 1),
        (323, 3, 1, 1),
        (324, 4, tiles, 122),
        (325, 4, tiles, 122),
    ];
    for (tag, kind, count, value) in tags {
        file.extend(tag.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend(count.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    file.extend([0; 4]);
    file.extend(b"\x01\0\0\0".repeat(tiles as usize));
    let error = refusal(&file).to_string();
    assert!(
        error.contains("1000000 strips or tiles of 1×1 pixels"),
        "{error}"
    );
}

#[test]
fn encoded_bytes_have_a_limit() {
    let limits = PictureLimits {
        encoded_bytes: 100,
        ..PictureLimits::default()
    };
    let error = decode(&[0xff; 101], &limits)
        .expect_err("refused")
        .to_string();
    assert!(error.contains("101") && error.contains("100"), "{error}");
}

#[test]
fn text_bombs_in_a_png_are_not_unpacked() {
    if !alone("bad_pictures::text_bombs_in_a_png_are_not_unpacked") {
        return;
    }
    // The reference writes them: 1 GiB of text and of colour profile, packed.
    let folder = reference::run("clip_bombs.py", &[]);
    let before = peak();
    for name in ["ztxt.png", "itxt.png", "iccp.png"] {
        let bytes = std::fs::read(folder.path().join(name)).expect("a file");
        let picture = decode(&bytes, &PictureLimits::default()).expect(name);
        assert_eq!((picture.width(), picture.height()), (3, 2));
    }
    // Pixels that unpack to far more than the header's size hold no more
    // memory than the header's size.
    let bytes = std::fs::read(folder.path().join("idat.png")).expect("a file");
    let _ = decode(&bytes, &PictureLimits::default());
    assert!(peak() - before < 128 << 20, "{} bytes", peak() - before);
}

#[test]
fn a_cut_or_damaged_picture_is_an_error_or_a_picture_but_never_a_panic() {
    let seed = reference::seed();
    let folder = reference::run("clip_pictures.py", &[&seed.to_string()]);
    let cases = std::fs::read(folder.path().join("cases.json")).expect("cases");
    let cases: serde_json::Value = serde_json::from_slice(&cases).expect("cases");
    let mut state = seed;
    let mut draw = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    for case in cases.as_array().expect("a list") {
        let name = case["name"].as_str().expect("a name");
        let file = folder.path().join(case["file"].as_str().expect("a file"));
        let bytes = std::fs::read(file).expect("a file");
        if bytes.len() < 100 || bytes.len() > 300_000 {
            continue;
        }
        let cut = &bytes[..bytes.len() / 2];
        let cut = decode(cut, &PictureLimits::default());
        let format = name.split(' ').next().unwrap_or_default();
        if ["jpeg", "png", "webp", "gif"].contains(&format) && !name.contains("animated") {
            assert!(cut.is_err(), "{name}: half of it decodes");
        }
        if format == "webp" && !name.contains("animated") {
            // What follows the picture's own chunk means nothing to it.
            let whole = decode(&bytes, &PictureLimits::default());
            for short in 1..30 {
                let cut = decode(&bytes[..bytes.len() - short], &PictureLimits::default());
                assert!(
                    matches!(cut, Err(PictureError::Truncated { .. })) || cut == whole,
                    "{name}: {short} bytes fewer are {cut:?}"
                );
            }
        }
        if format == "jpeg" && !name.contains("tail") && !name.contains("stray") {
            // Without its end mark and more than padding.
            let most = decode(&bytes[..bytes.len() - 7], &PictureLimits::default());
            assert!(
                matches!(most, Err(PictureError::Truncated { .. })),
                "{name}: {most:?}"
            );
        }
        for _ in 0..6 {
            let mut damaged = bytes.clone();
            for _ in 0..=draw(8) {
                let at = draw(damaged.len());
                damaged[at] = draw(256) as u8;
            }
            let _ = decode(&damaged, &PictureLimits::default());
        }
    }
}

#[test]
fn extreme_aspect_ratios_cost_no_more_than_their_crop() {
    if !alone("bad_pictures::extreme_aspect_ratios_cost_no_more_than_their_crop") {
        return;
    }
    let before = peak();
    let picture = Picture::from_raw(32_768, 1, &vec![77; 32_768 * 3], &PictureLimits::default())
        .expect("raw");
    let crop = prepare(&picture, &spec(224, 224, Interpolation::Bicubic));
    assert_eq!(crop, vec![77; 224 * 224 * 3]);
    assert!(peak() - before < 64 << 20);
    assert!(Picture::from_raw(2, 2, &[0; 11], &PictureLimits::default()).is_err());
    assert!(Picture::from_raw(0, 2, &[], &PictureLimits::default()).is_err());
}

#[test]
fn views_repeat_with_their_seed_and_are_pillows() {
    let seed = reference::seed();
    let folder = reference::run("clip_views.py", &[&seed.to_string()]);
    let (shape, rgb) = reference::bytes(&folder.path().join("picture.npy"));
    let limits = PictureLimits::default();
    let picture = Picture::from_raw(shape[1] as u32, shape[0] as u32, &rgb, &limits).expect("raw");
    let spec = spec(64, 64, Interpolation::Bicubic);
    let draw = |example, number| view(&picture, &spec, &mut view_rng(seed, example, number));
    // A very long picture has two views only, one the other's mirror image: any
    // two draws may be equal, but not twenty.
    let twenty = |example| -> Vec<_> { (0..20).map(|number| draw(example, number)).collect() };
    let views = twenty(1);
    assert!(views == twenty(1), "the same seed gives the same views");
    assert!(views != twenty(2), "two examples have the same views");
    assert!(
        views.iter().any(|other| *other != views[0]),
        "all views are the same"
    );
    // Every view is one of Pillow's: the reference is told the numbers drawn.
    for number in 0..20 {
        let name = format!("{number}.bin");
        std::fs::write(folder.path().join(name), draw(9, number)).expect("written");
    }
    reference::check(
        "clip_views.py",
        folder.path(),
        &[&seed.to_string(), "check"],
    );
}
