//! Runs a Python reference and reads what it wrote.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use tempfile::TempDir;

/// The root of the repository, where `.venv` is.
pub fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A fresh seed; `TIPSERVE_TEST_SEED` repeats one. Printed, so that a failure
/// can be repeated.
pub fn seed() -> u64 {
    let seed = std::env::var("TIPSERVE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.map_or(0, |now| now.as_nanos() as u64) % 1_000_000_007
        });
    println!("seed {seed}: repeat with TIPSERVE_TEST_SEED={seed}");
    seed
}

/// Runs `tests/reference/NAME` with a fresh folder and `arguments`.
pub fn run(name: &str, arguments: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    check(name, folder.path(), arguments);
    folder
}

/// Runs `tests/reference/NAME` with `folder` and `arguments`; it must succeed.
pub fn check(name: &str, folder: &Path, arguments: &[&str]) {
    let output = Command::new("python3")
        .arg(root().join("tests/reference").join(name))
        .arg(folder)
        .args(arguments)
        .env("PYTHONPATH", root().join("export"))
        .output()
        .expect("python3 on PATH");
    assert!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    print!("{}", String::from_utf8_lossy(&output.stdout));
}

/// A u8 array: shape and values.
pub fn bytes(path: &Path) -> (Vec<u64>, Vec<u8>) {
    let file = std::fs::read(path).expect("an npy file");
    let array = npyz::NpyFile::new(file.as_slice()).expect("an npy header");
    (array.shape().to_vec(), array.into_vec().expect("u8 values"))
}
