//! Today's families: each held against its own library on random weights of
//! its real architecture (tests/reference/families.py).

use std::path::Path;

use tch::{Device, Kind, Tensor};
use tipserve_clip::{Bundle, ImageEncoder, PictureLimits, TextEncoder, Tokenizer, decode, prepare};

use crate::reference;

/// What every feature agrees to with its library's, in float32.
const LEAST_COSINE: f64 = 0.99999;

fn least_cosine(ours: &Tensor, theirs: &Tensor) -> f64 {
    let double = |rows: &Tensor| rows.to_kind(Kind::Double);
    let cosine = Tensor::cosine_similarity(&double(ours), &double(theirs), 1, 1e-12);
    cosine.min().double_value(&[])
}

fn npy(folder: &Path, name: &str) -> Tensor {
    Tensor::read_npy(folder.join(name)).expect("an npy file")
}

/// u8 [n, H, W, 3]: the pictures 0.png, 1.png and so on as the bundle wants them.
fn prepared(bundle: &Bundle, folder: &Path, count: usize) -> Tensor {
    let spec = bundle.image.as_ref().expect("an image encoder");
    let pixels: Vec<u8> = (0..count)
        .flat_map(|number| {
            let file = std::fs::read(folder.join(format!("{number}.png"))).expect("a picture");
            let picture = decode(&file, &PictureLimits::default()).expect("a picture");
            prepare(&picture, spec)
        })
        .collect();
    Tensor::from_slice(&pixels).view(spec.size.batch_shape(count))
}

/// Fused, it holds its weights once, whether they were laid out anew or not.
fn check_fused(family: &str, mut encoder: ImageEncoder) {
    assert_eq!(encoder.fused_bytes().expect("a graph"), 0, "{family}");
    let verdict = encoder.fuse(1);
    let (held, file) = (
        encoder.fused_bytes().expect("a graph"),
        encoder.loaded().file_bytes,
    );
    println!("{family}: {held} bytes of a file of {file}, {verdict}");
    assert!(
        held <= file,
        "{family}: {held} bytes of a file of {file}, {verdict}"
    );
}

fn check_pictures(family: &str, bundle: &Bundle, root: &Path, folder: &Path) {
    let (pixels, theirs) = (npy(folder, "pixels.npy"), npy(folder, "image.npy"));
    let ours = prepared(bundle, root, pixels.size()[0] as usize);
    let spec = bundle.image.as_ref().expect("an image encoder");
    let channels = |values: [f64; 3]| Tensor::from_slice(&values).view([1, 3, 1, 1]);
    let levels = ours.permute([0, 3, 1, 2]).to_kind(Kind::Double) / 255.0;
    let normalised = (levels - channels(spec.mean)) / channels(spec.std);
    let most = (normalised - pixels).abs().max().double_value(&[]);
    // The same bytes: what is left is the library's float32.
    assert!(most < 1e-5, "{family}: pixels differ by {most}");
    let encoder = ImageEncoder::load(bundle, Device::Cpu, Kind::Float).expect("an encoder");
    assert!(encoder.loaded().mapped, "{family}: copied, not mapped");
    let features = encoder.encode(&ours).expect("features");
    let cosine = least_cosine(&features, &theirs);
    println!("{family}: pictures {cosine:.7}");
    assert!(cosine >= LEAST_COSINE, "{family}: pictures {cosine}");
    // Random weights may give all pictures nearly one direction, and any encoder
    // would be right there: what tells them apart agrees too.
    let apart = |features: &Tensor| features - features.mean_dim([0].as_slice(), true, None);
    let cosine = least_cosine(&apart(&features), &apart(&theirs));
    println!("{family}: pictures less their mean {cosine:.7}");
    assert!(cosine >= 0.999, "{family}: less their mean {cosine}");
    check_fused(family, encoder);
    let encoder = ImageEncoder::load(bundle, Device::Cpu, Kind::BFloat16).expect("an encoder");
    let features = encoder.encode(&ours).expect("features");
    println!("{family}: bfloat16 {:.5}", least_cosine(&features, &theirs));
}

fn check_texts(family: &str, bundle: &Bundle, folder: &Path) {
    let texts = std::fs::read(folder.join("texts.json")).expect("texts");
    let texts: Vec<String> = serde_json::from_slice(&texts).expect("texts");
    let (ids, theirs) = (npy(folder, "ids.npy"), npy(folder, "text.npy"));
    let tokenizer = Tokenizer::load(bundle).expect("a tokenizer");
    let theirs_ids: Vec<Vec<i64>> = Vec::try_from(&ids).expect("ids");
    let mut failures = Vec::new();
    let ours: Vec<Vec<i64>> = texts
        .iter()
        .map(|text| tokenizer.encode(text, true).expect("ids"))
        .collect();
    for ((text, ours), theirs) in texts.iter().zip(&ours).zip(&theirs_ids) {
        if names_a_special_token(text) || (family.starts_with("siglip-") && stacks_marks(text)) {
            continue;
        }
        if ours != theirs {
            failures.push(format!("{text:?}: {ours:?}, its library: {theirs:?}"));
        }
    }
    assert!(failures.is_empty(), "{family}:\n{}", failures.join("\n"));
    let encoder = TextEncoder::load(bundle, Device::Cpu, Kind::Float).expect("an encoder");
    let features = encoder.encode(&theirs_ids).expect("features");
    let cosine = least_cosine(&features, &theirs);
    println!("{family}: {} texts {cosine:.7}", texts.len());
    assert!(cosine >= LEAST_COSINE, "{family}: texts {cosine}");
}

/// In such texts some libraries read the token itself, which is documented as
/// text here.
fn names_a_special_token(text: &str) -> bool {
    ["<|", "<start_of_text>", "&lt;|"]
        .iter()
        .any(|name| text.contains(name))
}

/// Two combining marks and more on one letter. SentencePiece composes the first
/// with it, `tokenizers` takes the cluster as a whole: the documented limit of a
/// converted model.
fn stacks_marks(text: &str) -> bool {
    let mark = |c: char| ('\u{300}'..='\u{36f}').contains(&c);
    let pairs = text.chars().zip(text.chars().skip(1));
    pairs
        .filter(|(first, second)| mark(*first) && mark(*second))
        .count()
        > 0
}

#[test]
fn every_family_is_its_own_librarys() {
    let seed = reference::seed();
    let folder = reference::run("clip_families.py", &[&seed.to_string()]);
    let read = |name: &str| std::fs::read(folder.path().join(name)).expect("a list");
    let families: Vec<String> = serde_json::from_slice(&read("families.json")).expect("families");
    let skipped: serde_json::Value = serde_json::from_slice(&read("skipped.json")).expect("a list");
    println!("skipped, for want of a package: {skipped}");
    assert!(families.len() >= 8, "{families:?}");
    for family in &families {
        let of = folder.path().join(family);
        let bundle = Bundle::open(&of.join("bundle")).expect("a bundle");
        check_pictures(family, &bundle, folder.path(), &of);
        if bundle.text.is_some() {
            check_texts(family, &bundle, &of);
        }
    }
}
