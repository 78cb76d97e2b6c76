//! All available stored features: real CLIP features of
//! `../shared/data/clip-vitb32`, and pictures through the demo bundle, which
//! `benches/tip/pictures.py` embeds.

use std::path::Path;

use anyhow::{Context, Result};
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tch::Tensor;
use tip_spec::SearchGrid;

use super::features::{NAMES, Npz, SHOTS, Task, folder, load, some_classes, unit};

/// The demo bundle's logit scale.
const DEMO_SCALE: f64 = 20.0;

/// The numbers of shots that are measured: those of the comma-separated
/// TIPSERVE_BENCH_SHOTS, else all.
pub fn shots() -> Vec<usize> {
    match std::env::var("TIPSERVE_BENCH_SHOTS") {
        Ok(list) => list
            .split(',')
            .filter_map(|part| part.parse().ok())
            .collect(),
        Err(_) => SHOTS.to_vec(),
    }
}

/// Whether a set is measured: if it is in the comma-separated
/// TIPSERVE_BENCH_SETS, or there is no such list.
fn wanted(name: &str) -> bool {
    std::env::var("TIPSERVE_BENCH_SETS")
        .map_or(true, |list| list.split(',').any(|part| part == name))
}

/// What shots are drawn from.
pub struct Set {
    pub name: String,
    /// With 16 shots, and no validation examples of its own.
    whole: Task,
    /// Indices into another set's classes, if it has some of these.
    classes: Option<Tensor>,
}

impl Set {
    /// All that it holds, as one task.
    pub fn whole(&self) -> &Task {
        &self.whole
    }

    /// Features of the pictures of the classes that another set, of some of
    /// these, leaves out.
    pub fn without(&self, some: &Self) -> Result<Tensor> {
        let all = &self.whole;
        let kept = some.classes.as_ref().context("a set of some classes")?;
        let out = all
            .keys
            .1
            .unsqueeze(1)
            .eq_tensor(&kept.unsqueeze(0))
            .any_dim(1, false);
        let rows = out.logical_not().nonzero().squeeze_dim(1);
        Ok(all.keys.0.index_select(0, &rows))
    }

    /// Only some of its classes; test pictures of the others are dropped.
    pub fn of_classes(&self, count: usize, seed: u64) -> Self {
        let all = &self.whole;
        let mut order: Vec<i64> = (0..all.classes as i64).collect();
        order.shuffle(&mut StdRng::seed_from_u64(seed));
        order.truncate(count);
        let order = Tensor::from_slice(&order);
        Self {
            name: format!("{} of {}", order.numel(), self.name),
            whole: some_classes(
                all,
                &order,
                all.text.as_ref().map(|t| t.index_select(0, &order)),
            ),
            classes: Some(order),
        }
    }
}

impl Task {
    /// The same, sharing memory.
    pub fn shallow_clone(&self) -> Self {
        let pair = |(a, b): &(Tensor, Tensor)| (a.shallow_clone(), b.shallow_clone());
        Self {
            keys: pair(&self.keys),
            text: self.text.as_ref().map(Tensor::shallow_clone),
            classes: self.classes,
            validation: pair(&self.validation),
            test: pair(&self.test),
            official: self.official,
            logit_scale: self.logit_scale,
        }
    }
}

/// All wanted sets that are there.
pub fn sets() -> Result<Vec<Set>> {
    let mut sets = Vec::new();
    if let Some(folder) = folder() {
        for name in NAMES.into_iter().filter(|name| wanted(name)) {
            sets.push(Set {
                name: name.to_owned(),
                whole: load(&folder, name, 16)?,
                classes: None,
            });
        }
    }
    sets.extend(pictures()?);
    Ok(sets)
}

/// Pictures through the demo bundle, if they were embedded.
fn pictures() -> Result<Vec<Set>> {
    let path =
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("target/bench/pictures.npz");
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let mut file = Npz::open(&path)?;
    let names: Vec<String> = (file.0.array_names())
        .filter_map(|name| name.strip_suffix(".features").map(str::to_owned))
        .filter(|name| wanted(name))
        .collect();
    names
        .into_iter()
        .map(|name| {
            let features = unit(&file.read::<f32>(&format!("{name}.features"))?);
            let labels = file.labels(&format!("{name}.labels"))?;
            let train = file.labels(&format!("{name}.train"))?;
            let text = unit(&file.read::<f32>(&format!("{name}.text"))?);
            let pick = |train_is: i64| {
                let rows = train.eq(train_is).nonzero().squeeze_dim(1);
                (
                    features.index_select(0, &rows),
                    labels.index_select(0, &rows),
                )
            };
            let classes = usize::try_from(text.size2()?.0)?;
            let keys = pick(1);
            Ok(Set {
                whole: Task {
                    validation: (keys.0.narrow(0, 0, 0), keys.1.narrow(0, 0, 0)),
                    keys,
                    text: Some(text),
                    classes,
                    test: pick(0),
                    official: SearchGrid::OFFICIAL,
                    logit_scale: DEMO_SCALE,
                },
                name,
                classes: None,
            })
        })
        .collect()
}
