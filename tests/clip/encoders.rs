//! The encoders: open_clip's features, on fresh random weights.

use std::path::Path;

use tch::{Device, Kind, Tensor};
use tipserve_clip::{
    DtypeChoice, Fusing, Precision,
    bundle::Bundle,
    cuda,
    decode::decode,
    device::{DeviceChoice, DeviceError},
    encoder::{EncodeError, ImageEncoder, TextEncoder},
    picture::PictureLimits,
    precision::has_int8_products,
    prompts::classifier,
    stream_pool::StreamPool,
    tokenize::Tokenizer,
    views::prepare,
};

use crate::reference;

fn least_cosine(ours: &Tensor, theirs: &Tensor) -> f64 {
    let cosine = Tensor::cosine_similarity(
        &ours.to_kind(Kind::Double),
        &theirs.to_kind(Kind::Double),
        1,
        1e-12,
    );
    cosine.min().double_value(&[])
}

/// Decoded, prepared and stacked: u8 [n, S, S, 3].
fn prepared(bundle: &Bundle, files: &[std::path::PathBuf]) -> Tensor {
    let spec = bundle.image.as_ref().expect("an image encoder");
    let pixels: Vec<u8> = files
        .iter()
        .flat_map(|file| {
            let bytes = std::fs::read(file).expect("a picture");
            let picture = decode(&bytes, &PictureLimits::default()).expect("a picture");
            prepare(&picture, spec)
        })
        .collect();
    Tensor::from_slice(&pixels).view(spec.size.batch_shape(files.len()))
}

fn features_are_open_clips(model: &str) {
    let seed = reference::seed();
    let folder = reference::run("clip_features.py", &[&seed.to_string(), model]);
    let read = |name: &str| Tensor::read_npy(folder.path().join(name)).expect("features");
    let (image, text) = (read("image.npy"), read("text.npy"));
    let bundle = Bundle::open(&folder.path().join("bundle")).expect("a bundle");
    let files: Vec<_> = (0..image.size()[0])
        .map(|number| folder.path().join(format!("{number}.png")))
        .collect();
    let pixels = prepared(&bundle, &files);
    let texts = std::fs::read(folder.path().join("texts.json")).expect("texts");
    let texts: Vec<String> = serde_json::from_slice(&texts).expect("texts");
    let tokenizer = Tokenizer::load(&bundle).expect("a tokenizer");
    let ids: Vec<_> = texts
        .iter()
        .map(|text| tokenizer.encode(text, true).expect("ids"))
        .collect();
    for (kind, least) in [(Kind::Float, 0.99999), (Kind::BFloat16, 0.999)] {
        let encoder = ImageEncoder::load(&bundle, Device::Cpu, kind).expect("an encoder");
        println!("{}", encoder.loaded());
        encoder.warm(&[1, 2]).expect("warm");
        let ours = encoder.encode(&pixels).expect("features");
        assert_eq!(ours.kind(), Kind::Float);
        let cosine = least_cosine(&ours, &image);
        println!("{model} image {kind:?}: cosine {cosine:.7}");
        assert!(cosine >= least, "{model} image {kind:?}: {cosine}");
        check_threads(&encoder, &pixels, &ours, kind);
        let again = ImageEncoder::load(&bundle, Device::Cpu, kind).expect("an encoder");
        check_streams(vec![encoder, again], &pixels, &ours, kind);

        let encoder = TextEncoder::load(&bundle, Device::Cpu, kind).expect("an encoder");
        println!("{}", encoder.loaded());
        let ours = encoder.encode(&ids).expect("features");
        let cosine = least_cosine(&ours, &text);
        println!("{model} text {kind:?}: cosine {cosine:.7}");
        assert!(cosine >= least, "{model} text {kind:?}: {cosine}");
        assert_eq!(encoder.encode(&[]).expect("none").size()[0], 0);
    }
    check_fused(&bundle, &pixels, &image);
    check_int8(&bundle, (&pixels, &image), (&ids, &text));
}

/// Whatever came of fusing, the features are open_clip's.
fn check_fused(bundle: &Bundle, pixels: &Tensor, expected: &Tensor) {
    for (kind, least) in [(Kind::Float, 0.99999), (Kind::BFloat16, 0.999)] {
        let mut encoder = ImageEncoder::load(bundle, Device::Cpu, kind).expect("an encoder");
        let verdict = encoder.fuse(1);
        println!("fused {kind:?}: {verdict}");
        // Every architecture that is exported can be.
        assert!(
            matches!(verdict, Fusing::Used { .. } | Fusing::NoQuicker { .. }),
            "{verdict}"
        );
        for rows in [1, pixels.size()[0]] {
            let ours = encoder
                .encode(&pixels.narrow(0, 0, rows))
                .expect("features");
            let cosine = least_cosine(&ours, &expected.narrow(0, 0, rows));
            assert!(cosine >= least, "fused {kind:?}, {rows}: {cosine}");
        }
    }
}

/// The 8-bit archives, where the export wrote some and this CPU runs them.
fn check_int8(
    bundle: &Bundle,
    (pixels, image): (&Tensor, &Tensor),
    (ids, text): (&[Vec<i64>], &Tensor),
) {
    if bundle.int8.is_none() || !has_int8_products() {
        println!("no 8-bit archive here");
        return;
    }
    let precision = DtypeChoice::Auto.of(bundle, Device::Cpu).expect("a format");
    assert_eq!(precision, Precision::Int8);
    let mut encoder = ImageEncoder::load(bundle, Device::Cpu, precision).expect("an encoder");
    println!("{}", encoder.loaded());
    assert!(encoder.loaded().to_string().contains("as int8 on cpu"));
    // It has nothing that could be fused, and says so.
    assert!(matches!(encoder.fuse(1), Fusing::Refused { .. }));
    let ours = encoder.encode(pixels).expect("features");
    let cosine = least_cosine(&ours, image);
    println!("int8 image: cosine {cosine:.7}");
    assert!(cosine >= 0.998, "{cosine}");
    check_threads(&encoder, pixels, &ours, Kind::Float);

    // The export keeps a text archive only if it agrees.
    let precision = DtypeChoice::Auto.of_text(bundle, Device::Cpu, precision);
    let encoder = TextEncoder::load(bundle, Device::Cpu, precision).expect("an encoder");
    println!("{}", encoder.loaded());
    let cosine = least_cosine(&encoder.encode(ids).expect("features"), text);
    println!("int8 text: cosine {cosine:.7}");
    assert!(cosine >= 0.99, "{cosine}");
}

/// Several threads on one encoder get what one thread gets.
fn check_threads(encoder: &ImageEncoder, pixels: &Tensor, expected: &Tensor, kind: Kind) {
    let all = (0..3).map(|_| pixels.shallow_clone()).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        let threads: Vec<_> = all
            .into_iter()
            .map(|pixels| scope.spawn(move || encoder.encode(&pixels).expect("features")))
            .collect();
        for thread in threads {
            let cosine = least_cosine(&thread.join().expect("a thread"), expected);
            assert!(cosine > 0.99999, "{kind:?} in a thread: {cosine}");
        }
    });
}

/// Two encoders in four stream slots, asked by more threads than there are.
fn check_streams(encoders: Vec<ImageEncoder>, pixels: &Tensor, expected: &Tensor, kind: Kind) {
    let pool = StreamPool::new(encoders, 2, 4).expect("a pool");
    // On the CPU there is nothing to record; the pool goes on as it is.
    let refusal = pool.record().expect_err("no CUDA device");
    assert!(refusal.contains("no CUDA device"), "{refusal}");
    let bytes = Vec::<u8>::try_from(pixels.flatten(0, -1)).expect("bytes");
    let count = pixels.size()[0] as usize;
    let pictures: Vec<&[u8]> = bytes.chunks(bytes.len() / count).collect();
    let (pool, pictures) = (&pool, &pictures);
    let rows: Vec<Tensor> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(move || pool.encode(pictures).expect("features")))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread"))
            .collect()
    });
    for row in rows {
        let cosine = least_cosine(&row, expected);
        assert!(cosine > 0.99999, "{kind:?} in a stream slot: {cosine}");
    }
    let short = bytes.get(1..11).expect("bytes");
    let error = pool.encode(&[short]).expect_err("ten bytes are no picture");
    assert!(matches!(error, EncodeError::Input { .. }), "{error}");
    // A failure takes no slot away.
    for _ in 0..8 {
        let _ = pool.encode(pictures).expect("features");
    }
}

/// What a device may be called, and what a machine without a driver says.
#[test]
fn devices_are_named_and_missed_plainly() {
    let parse = |text: &str| text.parse::<DeviceChoice>();
    for (text, choice) in [
        ("auto", DeviceChoice::Auto),
        ("CPU", DeviceChoice::Cpu),
        ("cuda", DeviceChoice::Cuda(vec![0])),
        ("cuda:3", DeviceChoice::Cuda(vec![3])),
        ("cuda:1,0", DeviceChoice::Cuda(vec![1, 0])),
        ("cuda:all", DeviceChoice::EveryCuda),
    ] {
        assert_eq!(parse(text), Ok(choice.clone()), "{text}");
        assert_eq!(parse(&choice.to_string()), Ok(choice));
    }
    for text in [
        "", "gpu", "cuda:", "cuda:x", "cuda:0,0", "cuda:-1", "cuda:0,",
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.to_string().contains("cuda:N"), "{error}");
    }
    assert_eq!(DeviceChoice::Cpu.open(), Ok(vec![Device::Cpu]));
    match DeviceChoice::EveryCuda.open() {
        // A machine with a GPU.
        Ok(devices) => {
            assert_eq!(DeviceChoice::Auto.open(), Ok(vec![Device::Cuda(0)]));
            let beyond = DeviceChoice::Cuda(vec![devices.len()]).open();
            assert!(
                matches!(beyond, Err(DeviceError::NoSuchCuda { .. })),
                "{beyond:?}"
            );
        }
        Err(error) => {
            println!("{error}");
            assert!(matches!(error, DeviceError::NoCuda { .. }), "{error}");
            assert_eq!(DeviceChoice::Auto.open(), Ok(vec![Device::Cpu]));
            let named = DeviceChoice::Cuda(vec![0]).open().expect_err("no CUDA");
            assert_eq!(named, error);
            // Nor streams or memory, and no exception of C++ gets out.
            assert!(cuda::memory(Device::Cuda(0)).is_err());
            assert!(cuda::release_memory().is_err());
            assert!(cuda::Stream::new(Device::Cuda(0)).is_err());
        }
    }
}

#[test]
fn vit_b_32_features_are_open_clips() {
    features_are_open_clips("ViT-B-32-quickgelu");
}

#[test]
fn rn50_features_are_open_clips() {
    features_are_open_clips("RN50");
}

#[test]
fn a_classifier_is_the_normalised_mean_of_normalised_prompts() {
    let seed = reference::seed();
    tch::manual_seed(seed as i64);
    let features = Tensor::randn([6, 5], (Kind::Double, Device::Cpu)) * 7.0;
    let weights = classifier(&features, &[1, 3, 2]).expect("a classifier");
    let rows: Vec<Vec<f64>> = Vec::try_from(&features).expect("rows");
    let unit = |row: &[f64]| {
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        row.iter().map(|x| x / norm).collect::<Vec<_>>()
    };
    for (class, range) in [(0, 0..1), (1, 1..4), (2, 4..6)] {
        let members: Vec<_> = rows[range].iter().map(|row| unit(row)).collect();
        let mean: Vec<f64> = (0..5)
            .map(|d| members.iter().map(|row| row[d]).sum::<f64>() / members.len() as f64)
            .collect();
        for (d, expected) in unit(&mean).into_iter().enumerate() {
            let found = weights.double_value(&[class, d as i64]);
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }
    assert!(classifier(&features, &[6, 0]).is_err());
    assert!(classifier(&features, &[1, 2]).is_err());
}

#[test]
fn an_encoder_that_is_not_there_or_not_torchscript_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("written");
    };
    write("image.pt", "not TorchScript");
    write(
        "bundle.toml",
        &crate::bundles::manifest(folder.path(), &["image.pt"]),
    );
    let bundle = Bundle::open(folder.path()).expect("a bundle");
    let error = ImageEncoder::load(&bundle, Device::Cpu, Kind::Float).expect_err("no archive");
    assert!(matches!(&error, EncodeError::Unloadable { path, .. } if path.ends_with("image.pt")));
    assert!(error.to_string().len() < 1000, "{error}");
    let error = TextEncoder::load(&bundle, Device::Cpu, Kind::Float).expect_err("no text");
    assert!(matches!(
        error,
        EncodeError::Absent {
            encoder: "text",
            ..
        }
    ));
    let _: &Path = folder.path();
}
