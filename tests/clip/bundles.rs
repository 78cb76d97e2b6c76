//! Bundles: what is refused, and that the refusal names it.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use tch::Device;
use tipserve_clip::{
    DeviceError, DtypeChoice, EncodeError, ImageEncoder, Precision,
    bundle::{Bundle, BundleError},
    device::fastest_kind,
    precision::has_int8_products,
};

/// A bundle.toml with an image encoder, over files that lie in `folder`.
pub fn manifest(folder: &Path, files: &[&str]) -> String {
    let listed: String = files
        .iter()
        .map(|file| {
            let digest = Sha256::digest(std::fs::read(folder.join(file)).expect("a file"));
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{file:?} = \"{digest}\"\n")
        })
        .collect();
    format!(
        r#"format = 1
name = "test"
width = 8
logit_scale = 100.0
templates = ["a photo of a {{}}."]
[image]
file = "image.pt"
size = 32
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
resize = "shortest-side"
resize_to = 32
interpolation = "bicubic"
[files]
{listed}"#
    )
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("image.pt"), b"weights").expect("written");
    let text = manifest(folder.path(), &["image.pt"]);
    std::fs::write(folder.path().join("bundle.toml"), text).expect("written");
    folder
}

fn replaced(from: &str, to: &str) -> BundleError {
    let folder = folder();
    let path = folder.path().join("bundle.toml");
    let text = std::fs::read_to_string(&path).expect("text");
    assert!(text.contains(from), "{from}");
    std::fs::write(&path, text.replace(from, to)).expect("written");
    Bundle::open(folder.path()).expect_err(to)
}

#[test]
fn a_bundle_opens_and_its_fingerprint_is_of_its_manifest() {
    let folder = folder();
    let bundle = Bundle::open(folder.path()).expect("a bundle");
    assert_eq!((bundle.name.as_str(), bundle.width), ("test", 8));
    assert!(bundle.text.is_none() && bundle.image.is_some());
    let text = std::fs::read(folder.path().join("bundle.toml")).expect("text");
    let digest: String = Sha256::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(bundle.fingerprint, digest);
}

#[test]
fn a_changed_or_missing_file_is_named() {
    let folder = folder();
    let path = folder.path().join("image.pt");
    std::fs::write(&path, b"weightz").expect("written");
    let error = Bundle::open(folder.path()).expect_err("changed");
    assert!(matches!(&error, BundleError::Mismatch { path: named, .. } if *named == path));
    std::fs::remove_file(&path).expect("removed");
    let error = Bundle::open(folder.path()).expect_err("missing");
    assert!(matches!(&error, BundleError::Unreadable { path: named, .. } if *named == path));
    assert!(error.to_string().contains("image.pt"), "{error}");
}

#[test]
fn a_folder_without_a_bundle_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    for path in [folder.path().join("none"), folder.path().into()] {
        let error = Bundle::open(&path).expect_err("none");
        assert!(matches!(error, BundleError::Missing { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().expect("UTF-8")));
    }
}

#[test]
fn syntax_errors_say_the_line() {
    let error = replaced("width = 8", "width = ").to_string();
    assert!(
        error.contains("bundle.toml") && error.contains("line 3"),
        "{error}"
    );
    let error = replaced("width = 8", "width = \"wide\"").to_string();
    assert!(error.contains("line 3"), "{error}");
    let error = replaced("interpolation = \"bicubic\"", "interpolation = \"cubic\"").to_string();
    assert!(error.contains("bilinear"), "{error}");
}

#[test]
fn a_newer_format_says_so_whatever_else_it_has() {
    let error = replaced("format = 1", "format = 2").to_string();
    assert!(
        error.contains('2') && error.contains("newer tipserve"),
        "{error}"
    );
    let error = replaced("name = \"test\"", "format_note = 1");
    assert!(matches!(error, BundleError::Syntax { .. }), "{error}");
}

#[test]
fn nonsense_is_named() {
    for (from, to, key) in [
        ("width = 8", "width = 0", "width"),
        ("width = 8", "width = 100000000", "width"),
        ("logit_scale = 100.0", "logit_scale = nan", "logit_scale"),
        ("logit_scale = 100.0", "logit_scale = inf", "logit_scale"),
        ("logit_scale = 100.0", "logit_scale = 0.0", "logit_scale"),
        ("size = 32", "size = 0", "image.size"),
        ("\nsize = 32", "\nsize = 1000000", "image.size"),
        ("resize_to = 32", "resize_to = 31", "image.resize_to"),
        ("mean = [0.5", "mean = [nan", "image.mean"),
        ("std = [0.5", "std = [0.0", "image.std"),
        ("std = [0.5", "std = [-1.0", "image.std"),
        ("photo of a {}", "photo of a cat", "templates"),
        ("photo of a {}", "{} of a {}", "templates"),
        ("file = \"image.pt\"", "file = \"other.pt\"", "image.file"),
        ("\"image.pt\" = \"", "\"../image.pt\" = \"", "files"),
        ("\"image.pt\" = \"", "\"/etc/passwd\" = \"", "files"),
        ("\"image.pt\" = \"", "\"image.pt\" = \"zz", "files"),
    ] {
        let error = replaced(from, to);
        assert!(
            matches!(&error, BundleError::Value { key: named, .. } if named.starts_with(key)),
            "{to}: {error}"
        );
    }
}

/// Adds the table `[int8]`, over files of no meaning.
fn add_int8(folder: &Path, noise: &str) {
    std::fs::write(folder.join("image.int8.pt"), b"8 bits").expect("written");
    let path = folder.join("bundle.toml");
    let text = std::fs::read_to_string(&path).expect("text");
    let listed = manifest(folder, &["image.int8.pt"]);
    let (_, listed) = listed.split_once("[files]\n").expect("files");
    let int8 = format!(
        r#"[int8]
image = "image.int8.pt"
[int8.agreement]
source = "made up"
count = 96
cosine_least = 0.99
cosine_mean = 0.995
noise = {noise}
neighbour = 0.9
head = 0.95
[int8.files]
{listed}"#
    );
    std::fs::write(&path, text + &int8).expect("written");
}

#[test]
fn an_8_bit_archive_leaves_the_fingerprint_as_it_is() {
    let folder = folder();
    let before = Bundle::open(folder.path()).expect("a bundle");
    assert!(before.int8.is_none());
    add_int8(folder.path(), "0.005");
    let bundle = Bundle::open(folder.path()).expect("a bundle");
    assert_eq!(bundle.fingerprint, before.fingerprint);
    let int8 = bundle.int8.expect("8 bits");
    assert_eq!(int8.image.as_deref(), Some("image.int8.pt"));
    assert_eq!((int8.agreement.count, int8.agreement.noise), (96, 0.005));
    assert!(int8.agreement.is_enough());
}

#[test]
fn what_follows_int8_changes_nothing_that_the_fingerprint_stands_for() {
    let folder = folder();
    add_int8(folder.path(), "0.005");
    let path = folder.path().join("bundle.toml");
    let text = std::fs::read_to_string(&path).expect("text");
    std::fs::write(
        &path,
        text + "[statistics]\nfile = \"none\"\npictures = 9\n",
    )
    .expect("written");
    let bundle = Bundle::open(folder.path()).expect("a bundle");
    assert!(bundle.statistics.is_none());
}

#[test]
fn a_changed_or_unlisted_8_bit_archive_is_named() {
    let folder = folder();
    add_int8(folder.path(), "0.005");
    let file = folder.path().join("image.int8.pt");
    std::fs::write(&file, b"9 bits").expect("written");
    let error = Bundle::open(folder.path()).expect_err("changed");
    assert!(matches!(&error, BundleError::Mismatch { path, .. } if *path == file));

    std::fs::write(&file, b"8 bits").expect("written");
    let path = folder.path().join("bundle.toml");
    let text = std::fs::read_to_string(&path).expect("text");
    for (from, to, key) in [
        (
            "image = \"image.int8.pt\"",
            "image = \"image.pt\"",
            "int8.image",
        ),
        ("noise = 0.005", "noise = nan", "int8.agreement.noise"),
        ("head = 0.95", "head = 1.5", "int8.agreement.head"),
    ] {
        std::fs::write(&path, text.replace(from, to)).expect("written");
        let error = Bundle::open(folder.path()).expect_err(to);
        assert!(
            matches!(&error, BundleError::Value { key: named, .. } if named == key),
            "{error}"
        );
    }
}

#[test]
fn int8_is_chosen_where_it_agrees_and_refused_with_a_reason_where_it_is_not_there() {
    let folder = folder();
    let bundle = Bundle::open(folder.path()).expect("a bundle");
    let float = Precision::from(fastest_kind(Device::Cpu));
    assert_eq!(DtypeChoice::Auto.of(&bundle, Device::Cpu), Ok(float));
    let error = DtypeChoice::Int8
        .of(&bundle, Device::Cpu)
        .expect_err("none");
    let expected = if has_int8_products() {
        assert!(
            error
                .to_string()
                .contains("the bundle test has no int8 archive"),
            "{error}"
        );
        DeviceError::NoInt8Archive {
            bundle: "test".into(),
        }
    } else {
        DeviceError::NoInt8Products
    };
    assert_eq!(error, expected);
    assert_eq!(
        DtypeChoice::Int8.of(&bundle, Device::Cuda(0)),
        Err(DeviceError::Int8OnCuda)
    );

    add_int8(folder.path(), "0.005");
    let bundle = Bundle::open(folder.path()).expect("a bundle");
    let best = if has_int8_products() {
        Precision::Int8
    } else {
        float
    };
    assert_eq!(DtypeChoice::Auto.of(&bundle, Device::Cpu), Ok(best));
    // What is asked for overrules.
    assert_eq!(
        DtypeChoice::F32.of(&bundle, Device::Cpu),
        Ok(Precision::Float32)
    );
    assert_eq!(
        DtypeChoice::Auto.of(&bundle, Device::Cuda(0)),
        Ok(Precision::Float16)
    );
    // Too far from float: only if it is asked for.
    let far = self::folder();
    add_int8(far.path(), "0.5");
    let bundle = Bundle::open(far.path()).expect("a bundle");
    assert_eq!(DtypeChoice::Auto.of(&bundle, Device::Cpu), Ok(float));
    if has_int8_products() {
        assert_eq!(
            DtypeChoice::Int8.of(&bundle, Device::Cpu),
            Ok(Precision::Int8)
        );
    }
    // What is in the file is seen when it is loaded.
    let error = ImageEncoder::load(&bundle, Device::Cpu, Precision::Int8).expect_err("no archive");
    assert!(
        matches!(&error, EncodeError::Unloadable { path, .. } if path.ends_with("image.int8.pt")),
        "{error}"
    );
}
