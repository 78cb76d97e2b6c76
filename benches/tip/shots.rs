//! Writes the draws of the shots for `benches/tip/learners.py`, which measures
//! scikit-learn's classifiers on them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tch::Tensor;

use super::{
    comparison::DRAWS,
    draws::rows_of_draw,
    sets::{sets, shots},
};

/// `target/bench/NAME`.
pub fn path(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/bench")).join(name)
}

/// Writes `target/bench/shots.npz`.
pub fn write() -> Result<()> {
    let mut arrays: Vec<(String, Tensor)> = Vec::new();
    for set in &sets()? {
        let (name, whole) = (&set.name, set.whole());
        let mut add = |what: &str, tensor: Tensor| arrays.push((format!("{name}.{what}"), tensor));
        add("keys", whole.keys.0.shallow_clone());
        add("labels", whole.keys.1.shallow_clone());
        add("test", whole.test.0.shallow_clone());
        add("test_labels", whole.test.1.shallow_clone());
        for shots in shots() {
            for seed in 0..DRAWS {
                add(&format!("{shots}.{seed}"), rows_of_draw(set, shots, seed)?);
            }
        }
    }
    let path = path("shots.npz");
    let folder = path.parent().context("no folder")?;
    std::fs::create_dir_all(folder)?;
    Tensor::write_npz(&arrays, &path)?;
    println!("{} arrays in {}", arrays.len(), path.display());
    Ok(())
}
