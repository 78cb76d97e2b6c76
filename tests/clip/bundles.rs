//! Bundles: what is refused, and that the refusal names it.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use tipserve_clip::bundle::{Bundle, BundleError};

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
        error.contains("2") && error.contains("newer tipserve"),
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
