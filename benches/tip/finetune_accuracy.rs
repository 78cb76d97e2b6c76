//! Tip-Adapter-F on real CLIP features (shared/data), against the figures of
//! an independent float64 reference. The recipe is that reference's: it trains
//! on the averaged keys as single views, α at the authors' initial value, and
//! chooses the epoch and, at the end, α and β on the validation examples.

use anyhow::{Context, Result};
use tch::{Device, Kind, Tensor};
use tip_adapter::{
    finetune::{Options, Progress, Trainer, TrainingSet, Tuned},
    head::Backend,
};
use tip_spec::SearchGrid;

use crate::{
    Row,
    features::{self, Task},
};

/// The figures of design/tip-adapter.md, and α in training.
const FIGURES: [(&str, usize, f64, f64); 7] = [
    ("Caltech101", 1, 76.67, 3.0),
    ("Caltech101", 4, 88.44, 3.0),
    ("Caltech101", 16, 93.43, 3.0),
    ("Caltech-39", 1, 97.45, 3.0),
    ("Caltech-39", 4, 98.97, 3.0),
    ("Caltech-39", 16, 98.49, 3.0),
    ("DTD", 16, 65.54, 2.0),
];

/// All rows; none, saying so, where shared/data is absent.
pub fn rows() -> Result<Vec<Row>> {
    let Some(folder) = features::folder() else {
        println!("# ../shared/data/clip-vitb32 is absent: no accuracy of fine-tuning");
        return Ok(Vec::new());
    };
    FIGURES
        .iter()
        .map(|&(name, shots, want, alpha)| {
            let task = features::load(&folder, name, shots)?;
            let value = accuracy(&task, alpha, 1)?;
            Ok(Row {
                row: format!("Tip-Adapter-F, {name}, {shots} shots, accuracy %"),
                value,
                goal: format!("{want:.2} +- 0.7"),
                ok: (value - want).abs() <= 0.7,
            })
        })
        .collect()
}

fn accuracy(task: &Task, alpha: f64, seed: u64) -> Result<f64> {
    let (keys, labels) = &task.keys;
    let views = keys.unsqueeze(1);
    let linear = task.text.as_ref().map(|text| text * 100.0);
    let set = TrainingSet {
        classes: task.classes,
        views: &views,
        keys,
        labels,
        linear: linear.as_ref(),
        bias: None,
        class_factor: None,
        validation: Some((&task.validation.0, &task.validation.1)),
    };
    let options = Options {
        alpha,
        seed,
        ..Options::default()
    };
    let mut trainer = Trainer::new(&set, &options, Device::Cpu, Backend::Automatic)?;
    while trainer.step()? != Progress::Finished {}
    let tuned = trainer.finish()?;
    let (alpha, beta) = searched(task, &linear, &tuned)?;
    let (features, labels) = &task.test;
    let logits = logits(task, &linear, &tuned.keys, features, alpha, beta);
    let accuracy = share(&logits, labels) * 100.0;
    println!(
        "#   epoch {} α {alpha:.3} β {beta:.3}: {accuracy:.2}",
        tuned.best_epoch
    );
    Ok(accuracy)
}

/// The official search on the validation examples; ties go to the lower
/// cross-entropy.
fn searched(task: &Task, linear: &Option<Tensor>, tuned: &Tuned) -> Result<(f64, f64)> {
    let SearchGrid::Official {
        beta_scale,
        alpha_scale,
    } = task.official
    else {
        anyhow::bail!("the official grid is meant");
    };
    let set = tuned.search_set.as_ref().context("validation examples")?;
    let cosines = set.features.matmul(&tuned.keys.tr());
    let one_hot = task
        .keys
        .1
        .one_hot(task.classes as i64)
        .to_kind(Kind::Float);
    let base = linear
        .as_ref()
        .map(|linear| set.features.matmul(&linear.tr()));
    let mut best = (-1.0, f64::INFINITY, 0.0, 0.0);
    // The training's own numbers are a candidate, too.
    let betas = (0..200).map(|i| 0.1 + f64::from(i) * (beta_scale - 0.1) / 200.0);
    for beta in std::iter::once(tuned.beta).chain(betas) {
        let cache = ((&cosines - 1.0) * beta).exp().matmul(&one_hot);
        let alphas = (0..20).map(|j| 0.1 + f64::from(j) * (alpha_scale - 0.1) / 20.0);
        for alpha in std::iter::once(tuned.alpha).chain(alphas) {
            let logits = match &base {
                Some(base) => base + &cache * alpha,
                None => &cache * alpha,
            };
            let right = share(&logits, &set.labels);
            if right < best.0 {
                continue;
            }
            let loss = logits
                .cross_entropy_for_logits(&set.labels)
                .double_value(&[]);
            if right > best.0 || loss < best.1 {
                best = (right, loss, alpha, beta);
            }
        }
    }
    Ok((best.2, best.3))
}

fn logits(
    task: &Task,
    linear: &Option<Tensor>,
    keys: &Tensor,
    features: &Tensor,
    alpha: f64,
    beta: f64,
) -> Tensor {
    let one_hot = task
        .keys
        .1
        .one_hot(task.classes as i64)
        .to_kind(Kind::Float);
    let cosines = features.matmul(&keys.tr());
    let cache = ((cosines - 1.0) * beta).exp().matmul(&one_hot) * alpha;
    match linear {
        Some(linear) => features.matmul(&linear.tr()) + cache,
        None => cache,
    }
}

fn share(logits: &Tensor, labels: &Tensor) -> f64 {
    let right = logits.argmax(1, false).eq_tensor(labels);
    right
        .to_kind(Kind::Double)
        .mean(Kind::Double)
        .double_value(&[])
}
