//! The real CLIP features of `../shared/data/clip-vitb32`, as data sets to
//! judge heads on.

use std::{
    collections::BTreeMap,
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use npyz::npz::NpzArchive;
use tch::{Kind, Tensor};
use tip_adapter::material::Material;
use tip_spec::SearchGrid;

/// The shots that every data set is drawn at.
pub const SHOTS: [usize; 5] = [1, 2, 4, 8, 16];

/// Names of the data sets.
pub const NAMES: [&str; 3] = ["Caltech101", "Caltech-39", "DTD"];

/// One data set at one number of shots.
pub struct Task {
    pub keys: (Tensor, Tensor),
    pub text: Option<Tensor>,
    pub classes: usize,
    pub validation: (Tensor, Tensor),
    pub test: (Tensor, Tensor),
    /// s_β and s_α of the official search.
    pub official: SearchGrid,
    pub logit_scale: f64,
}

impl Task {
    /// What a head is made from, with or without the validation examples.
    pub fn material(&self, with_validation: bool) -> Material {
        let pair = |(a, b): &(Tensor, Tensor)| (a.shallow_clone(), b.shallow_clone());
        let (keys, labels) = pair(&self.keys);
        Material {
            keys,
            labels,
            classes: self.classes,
            views: None,
            text: self.text.as_ref().map(Tensor::shallow_clone),
            validation: with_validation.then(|| pair(&self.validation)),
            logit_scale: self.logit_scale,
            statistics: None,
            unlabelled: None,
        }
    }
}

/// The classes at `classes` (i64) of a task, renumbered in that order.
pub(crate) fn some_classes(all: &Task, classes: &Tensor, text: Option<Tensor>) -> Task {
    let count = classes.numel() as i64;
    let options = (Kind::Int64, tch::Device::Cpu);
    let new_index = Tensor::full([all.classes as i64], -1, options).index_put(
        &[Some(classes)],
        &Tensor::arange(count, options),
        false,
    );
    let pick = |(features, labels): &(Tensor, Tensor)| {
        let labels = new_index.index_select(0, labels);
        let rows = labels.ge(0).nonzero().squeeze_dim(1);
        (
            features.index_select(0, &rows),
            labels.index_select(0, &rows),
        )
    };
    Task {
        keys: pick(&all.keys),
        text,
        classes: classes.numel(),
        validation: pick(&all.validation),
        test: pick(&all.test),
        official: all.official,
        logit_scale: all.logit_scale,
    }
}

/// The folder of features, or none (then say so and skip).
pub fn folder() -> Option<PathBuf> {
    let path =
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("../shared/data/clip-vitb32");
    let found = path.join("caltech101.npz").is_file() && path.join("dtd.npz").is_file();
    found.then_some(path)
}

/// A data set by its name.
pub fn load(folder: &Path, name: &'static str, shots: usize) -> Result<Task> {
    match name {
        "Caltech101" => caltech(folder, shots),
        "Caltech-39" => caltech39(folder, shots),
        _ => dtd(folder, shots),
    }
}

fn caltech(folder: &Path, shots: usize) -> Result<Task> {
    let mut file = Npz::open(&folder.join("caltech101.npz"))?;
    Ok(Task {
        keys: (
            file.features(&format!("keys_{shots}"))?,
            file.labels(&format!("key_labels_{shots}"))?,
        ),
        text: None,
        classes: 100,
        validation: (file.features("val_features")?, file.labels("val_labels")?),
        test: (file.features("test_features")?, file.labels("test_labels")?),
        official: SearchGrid::Official {
            beta_scale: 12.0,
            alpha_scale: 5.0,
        },
        logit_scale: 100.0,
    })
}

/// The 39 classes of Caltech101 that have text weights.
fn caltech39(folder: &Path, shots: usize) -> Result<Task> {
    let all = caltech(folder, shots)?;
    let mut file = Npz::open(&folder.join("caltech101.npz"))?;
    let classes = file.labels("text_class_index")?;
    let text = unit(&file.read::<f32>("text_features")?);
    Ok(some_classes(&all, &classes, Some(text)))
}

/// Keys drawn from the validation split; the examples not drawn are the
/// validation examples (for fewer than 16 shots: those not drawn at 16).
fn dtd(folder: &Path, shots: usize) -> Result<Task> {
    let mut file = Npz::open(&folder.join("dtd.npz"))?;
    let (features, labels) = (file.features("val_features")?, file.labels("val_labels")?);
    let draws: BTreeMap<usize, Vec<i64>> =
        serde_json::from_str(include_str!("../../tests/reference/dtd_draw.json"))?;
    let rows = |shots: usize| draws.get(&shots).context("no such draw");
    let drawn = Tensor::from_slice(rows(shots)?);
    let of_16 = rows(16)?;
    let rest: Vec<i64> = (0..labels.size1()?)
        .filter(|row| !of_16.contains(row) && !rows(shots).is_ok_and(|r| r.contains(row)))
        .collect();
    let rest = Tensor::from_slice(&rest);
    let pick = |rows: &Tensor| (features.index_select(0, rows), labels.index_select(0, rows));
    Ok(Task {
        keys: pick(&drawn),
        text: None,
        classes: 47,
        validation: pick(&rest),
        test: (file.features("test_features")?, file.labels("test_labels")?),
        official: SearchGrid::Official {
            beta_scale: 13.0,
            alpha_scale: 13.0,
        },
        logit_scale: 100.0,
    })
}

pub(crate) struct Npz(pub NpzArchive<BufReader<File>>);

impl Npz {
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self(
            NpzArchive::open(path).with_context(|| path.display().to_string())?,
        ))
    }

    /// f16 features as unit rows in f32: half precision leaves them a little
    /// off.
    pub fn features(&mut self, name: &str) -> Result<Tensor> {
        Ok(unit(&self.read::<half::f16>(name)?))
    }

    pub fn labels(&mut self, name: &str) -> Result<Tensor> {
        self.read::<i64>(name)
    }

    pub fn read<T: npyz::Deserialize + tch::kind::Element>(
        &mut self,
        name: &str,
    ) -> Result<Tensor> {
        let array = self
            .0
            .by_name(name)?
            .with_context(|| format!("no array {name}"))?;
        let shape: Vec<i64> = array
            .shape()
            .iter()
            .map(|&n| i64::try_from(n))
            .collect::<Result<_, _>>()?;
        Ok(Tensor::from_slice(&array.into_vec::<T>()?).reshape(shape))
    }
}

pub(crate) fn unit(rows: &Tensor) -> Tensor {
    let rows = rows.to_kind(Kind::Double);
    let norm = rows.norm_scalaropt_dim(2, [1i64].as_slice(), true);
    (rows / norm).to_kind(Kind::Float)
}
