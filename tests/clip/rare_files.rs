//! TIFFs and BMPs of the kinds that few programs make: what was written, or what libtiff
//! reads; and those whose levels or coding nothing tells are refused by name.

use serde::Deserialize;
use tipserve_clip::{
    decode::decode,
    picture::{PictureError, PictureLimits},
};

use crate::reference;

#[derive(Deserialize)]
struct Case {
    name: String,
    file: String,
    rgb: String,
    /// Levels that it may be off.
    most: u8,
}

#[derive(Deserialize)]
struct Refused {
    name: String,
    file: String,
    says: String,
}

#[test]
fn rare_tiffs_decode_to_what_is_in_them() {
    decode_to_what_is_in_them("clip_tiffs.py", 200);
}

#[test]
fn rare_bmps_decode_to_what_is_in_them() {
    decode_to_what_is_in_them("clip_bmps.py", 100);
}

/// Runs a script that writes at least so many files.
fn decode_to_what_is_in_them(script: &str, least: usize) {
    let seed = reference::seed();
    let folder = reference::run(script, &[&seed.to_string()]);
    let read = |name: &str| std::fs::read(folder.path().join(name)).expect("a file");
    let cases: Vec<Case> = serde_json::from_slice(&read("cases.json")).expect("cases");
    let limits = PictureLimits::default();
    let mut failures = Vec::new();
    for case in &cases {
        let (shape, rgb) = reference::bytes(&folder.path().join(&case.rgb));
        let picture = match decode(&read(&case.file), &limits) {
            Ok(picture) => picture,
            Err(error) => {
                failures.push(format!("{}: {error}", case.name));
                continue;
            }
        };
        let size = (u64::from(picture.height()), u64::from(picture.width()));
        let off = picture.rgb().iter().zip(&rgb).map(|(a, b)| a.abs_diff(*b));
        let off = off.max().unwrap_or(0);
        if size != (shape[0], shape[1]) || off > case.most {
            failures.push(format!("{}: {size:?} of {shape:?}, {off} off", case.name));
        }
    }
    assert!(cases.len() > least, "{} files", cases.len());

    let refused: Vec<Refused> = serde_json::from_slice(&read("refused.json")).expect("cases");
    for Refused { name, file, says } in &refused {
        match decode(&read(file), &limits) {
            Err(
                error @ (PictureError::Unsupported { .. }
                | PictureError::Undecodable { .. }
                | PictureError::Truncated { .. }),
            ) if error.to_string().contains(says) => {}
            Err(error) => failures.push(format!("{name} says: {error}")),
            Ok(_) => failures.push(format!("{name} is taken")),
        }
    }
    println!("{} files, {} refused", cases.len(), refused.len());
    assert!(failures.is_empty(), "seed {seed}:\n{}", failures.join("\n"));
}

/// Each cut of a file is an error or, where the cut only took what is not
/// looked at, the picture; and each changed byte is anything but a panic.
#[test]
fn rare_files_may_be_cut_and_damaged() {
    be_cut_and_damaged("clip_tiffs.py");
    be_cut_and_damaged("clip_bmps.py");
}

fn be_cut_and_damaged(script: &str) {
    let seed = reference::seed();
    let folder = reference::run(script, &[&seed.to_string()]);
    let read = |name: &str| std::fs::read(folder.path().join(name)).expect("a file");
    let cases: Vec<Case> = serde_json::from_slice(&read("cases.json")).expect("cases");
    let limits = PictureLimits::default();
    let mut state = seed | 1;
    let mut draw = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    for case in &cases {
        let bytes = read(&case.file);
        let whole = decode(&bytes, &limits).expect(&case.name);
        for _ in 0..4 {
            // The directory is at the end, and after it where the next one would be.
            let cut = draw(bytes.len());
            if let Ok(picture) = decode(&bytes[..cut], &limits) {
                let name = &case.name;
                assert!(picture == whole, "seed {seed}, {name}: {cut} bytes decode");
            }
        }
        for _ in 0..12 {
            let mut damaged = bytes.clone();
            for _ in 0..=draw(4) {
                let at = draw(damaged.len());
                damaged[at] = draw(256) as u8;
            }
            if let Err(error) = decode(&damaged, &limits) {
                let panic = error.to_string().contains("the decoder failed");
                assert!(!panic, "seed {seed}, {}: {error}", case.name);
            }
        }
    }
}
