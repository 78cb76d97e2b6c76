//! Tip-Adapter-F on real CLIP features (shared/data), against the figures of
//! an independent float64 reference. The recipe is that reference's: it trains
//! on the averaged keys as single views and, like the authors, keeps the best
//! epoch and searches α and β by the validation examples.

use std::{fs::File, path::PathBuf};

use npyz::npz::NpzArchive;
use tch::{Device, Kind, Tensor};
use tipserve::tip::{
    finetune::{Options, Progress, Trainer, TrainingSet},
    head::Backend,
};

use crate::Row;

/// All rows; none, saying so, where shared/data is absent.
pub fn rows() -> Vec<Row> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/clip-vitb32");
    if !folder.exists() {
        println!("# {} is absent: no fine-tuning accuracy", folder.display());
        return Vec::new();
    }
    let mut rows = Vec::new();
    let caltech = Features::read(&folder, "caltech101");
    for (shots, want) in [(1, 76.67), (4, 88.44), (16, 93.43)] {
        rows.push(row("Caltech101", shots, want, &caltech.shots(shots), 3.0, (12.0, 5.0)));
    }
    let named = Features::read(&folder, "caltech101").named();
    for (shots, want) in [(1, 97.45), (4, 98.97), (16, 98.49)] {
        rows.push(row("Caltech-39", shots, want, &named.shots(shots), 3.0, (12.0, 5.0)));
    }
    let dtd = Features::read(&folder, "dtd");
    rows.push(row("DTD", 16, 65.54, &dtd.drawn(16, 8), 2.0, (13.0, 13.0)));
    rows
}

struct Features {
    archive: NpzArchive<std::io::BufReader<File>>,
    classes: i64,
    /// Classes with text, and L's rows without the logit scale.
    text: Option<(Vec<i64>, Tensor)>,
}
