//! Any text as `bundle.toml`, in a folder with one other file.

#![no_main]

use std::{fs, path::PathBuf, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tipserve_clip::Bundle;

/// In memory, where there is such a folder: a disk's file systems write a file that
/// replaces another out at once.
static FOLDER: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let folder = folder.expect("a folder");
    fs::write(folder.path().join("image.pt"), b"an archive").expect("a file");
    let manifest = folder.path().join("bundle.toml");
    (folder, manifest)
});

fuzz_target!(|text: &[u8]| {
    let (folder, manifest) = &*FOLDER;
    fs::write(manifest, text).expect("written");
    if let Ok(bundle) = Bundle::open(folder.path()) {
        assert!((1..=65_536).contains(&bundle.width));
        assert!(bundle.logit_scale.is_finite());
    }
});
