//! The usual baselines of Tip-Adapter on the same stored features: a linear
//! probe and CLIP-Adapter. (CoOp trains through the text encoder, which stored
//! features do not have.)

use std::collections::VecDeque;

use anyhow::{Context, Result};
use tch::{
    Device, Kind, Tensor,
    nn::{self, Module, OptimizerConfig},
};

use super::features::Task;

/// Strengths that the linear probe's C is chosen from.
const STRENGTHS: [f64; 5] = [1.0, 10.0, 100.0, 1e3, 1e4];

/// C at one shot, if nothing can be held out to choose it.
const DEFAULT_STRENGTH: f64 = 100.0;

/// Logits of the test examples by multinomial logistic regression on the unit
/// features, ½‖W‖² + C·Σ loss. C is chosen on one shot of each class, held out.
pub fn linear_probe(task: &Task) -> Result<Tensor> {
    let (keys, labels) = &task.keys;
    let held = one_of_each(labels)?;
    let strength = match &held {
        None => DEFAULT_STRENGTH,
        Some(held) => {
            let rest = held.logical_not();
            let rows = |mask: &Tensor| mask.nonzero().squeeze_dim(1);
            let (train, judge) = (rows(&rest), rows(held));
            let pick = |rows: &Tensor| (keys.index_select(0, rows), labels.index_select(0, rows));
            let ((x, y), (f, truth)) = (pick(&train), pick(&judge));
            let mut best = (f64::INFINITY, DEFAULT_STRENGTH);
            for strength in STRENGTHS {
                let logits = logistic(&x, &y, task.classes, strength)?.logits(&f);
                let loss = logits.cross_entropy_for_logits(&truth).double_value(&[]);
                if loss < best.0 {
                    best = (loss, strength);
                }
            }
            best.1
        }
    };
    Ok(logistic(keys, labels, task.classes, strength)?.logits(&task.test.0))
}

/// The last shot of each class, if every class has two or more.
fn one_of_each(labels: &Tensor) -> Result<Option<Tensor>> {
    let labels = Vec::<i64>::try_from(labels)?;
    let mut last = std::collections::BTreeMap::new();
    let mut counts = std::collections::BTreeMap::new();
    for (row, label) in labels.iter().enumerate() {
        last.insert(label, row);
        *counts.entry(label).or_insert(0) += 1;
    }
    if counts.values().any(|&count| count < 2) {
        return Ok(None);
    }
    let held: Vec<bool> = labels
        .iter()
        .enumerate()
        .map(|(row, label)| last.get(label) == Some(&row))
        .collect();
    Ok(Some(Tensor::from_slice(&held)))
}

/// x·Wᵀ + b.
struct Linear {
    /// [N, 1 + D], the first column b.
    weight: Tensor,
}

impl Linear {
    fn logits(&self, rows: &Tensor) -> Tensor {
        with_one(rows).matmul(&self.weight.tr())
    }
}

fn with_one(rows: &Tensor) -> Tensor {
    let rows = rows.to_kind(Kind::Double);
    Tensor::cat(&[rows.ones_like().narrow(1, 0, 1), rows], 1)
}

/// By L-BFGS (Nocedal and Wright, algorithm 7.4).
fn logistic(x: &Tensor, y: &Tensor, classes: usize, strength: f64) -> Result<Linear> {
    let x = with_one(x);
    let one_hot = y.one_hot(classes as i64).to_kind(Kind::Double);
    let at = |w: &Tensor| {
        let log_p = x.matmul(&w.tr()).log_softmax(1, Kind::Double);
        let loss = -(&log_p * &one_hot).sum(Kind::Double).double_value(&[]);
        let value = 0.5 * dot(w, w) + strength * loss;
        let gradient = w + (log_p.exp() - &one_hot).tr().matmul(&x) * strength;
        (value / strength, gradient / strength)
    };
    let width = x.size().get(1).copied().context("a width")?;
    let mut w = Tensor::zeros([classes as i64, width], (Kind::Double, Device::Cpu));
    let (mut value, mut gradient) = at(&w);
    let mut pairs: VecDeque<(Tensor, Tensor)> = VecDeque::new();
    for _ in 0..100 {
        let mut q = gradient.copy();
        let mut factors = Vec::new();
        for (s, t) in pairs.iter().rev() {
            let factor = dot(s, &q) / dot(s, t);
            q -= t * factor;
            factors.push(factor);
        }
        if let Some((s, t)) = pairs.back() {
            q *= dot(s, t) / dot(t, t);
        }
        for ((s, t), factor) in pairs.iter().zip(factors.iter().rev()) {
            q += s * (factor - dot(t, &q) / dot(s, t));
        }
        let slope = -dot(&q, &gradient);
        let mut step = if pairs.is_empty() {
            1.0 / dot(&gradient, &gradient).sqrt().max(1.0)
        } else {
            1.0
        };
        let found = (0..25).find_map(|_| {
            let next = &w - &q * step;
            let (new, next_gradient) = at(&next);
            let enough = new <= value + 1e-4 * step * slope;
            step /= 2.0;
            enough.then_some((next, new, next_gradient))
        });
        let Some((next, new, next_gradient)) = found else {
            break;
        };
        let pair = (&next - &w, &next_gradient - &gradient);
        if dot(&pair.0, &pair.1) > 0.0 {
            pairs.push_back(pair);
            if pairs.len() > 10 {
                pairs.pop_front();
            }
        }
        let done = value - new <= 1e-8 * value.abs();
        (w, value, gradient) = (next, new, next_gradient);
        if done {
            break;
        }
    }
    Ok(Linear { weight: w })
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    (a * b).sum(Kind::Double).double_value(&[])
}

/// Epochs of CoOp's schedule by shots.
fn epochs(shots: usize) -> usize {
    match shots {
        0..=1 => 50,
        2..=4 => 100,
        _ => 200,
    }
}

/// CLIP-Adapter (Gao et al., 2021): the unit feature is mixed with a two-layer
/// bottleneck of it (D/4, ReLU after both layers, no bias), one fifth to four,
/// and classified by the text weights. Trained as in its repository, with
/// CoOp's settings: SGD, learning rate 0.002, momentum 0.9, weight decay 5e-4,
/// cosine schedule by epochs after one epoch at 1e-5, batches of 32. `None`
/// without text.
pub fn clip_adapter(task: &Task, seed: i64) -> Result<Option<Tensor>> {
    const RATIO: f64 = 0.2;
    let Some(text) = &task.text else {
        return Ok(None);
    };
    let (keys, labels) = &task.keys;
    let (count, width) = keys.size2()?;
    let epochs = epochs(count as usize / task.classes.max(1));
    tch::manual_seed(seed);
    let store = nn::VarStore::new(Device::Cpu);
    let config = nn::LinearConfig {
        bias: false,
        ..nn::LinearConfig::default()
    };
    let down = nn::linear(store.root() / "down", width, width / 4, config);
    let up = nn::linear(store.root() / "up", width / 4, width, config);
    let scale = task.logit_scale;
    let forward = |f: &Tensor| {
        let adapted = up.forward(&down.forward(f).relu()).relu();
        let mixed = adapted * RATIO + f * (1.0 - RATIO);
        let norm = mixed.norm_scalaropt_dim(2, [1i64].as_slice(), true);
        (mixed / norm).matmul(&text.tr()) * scale
    };
    let sgd = nn::Sgd {
        momentum: 0.9,
        dampening: 0.0,
        wd: 5e-4,
        nesterov: false,
    };
    let mut optimiser = sgd.build(&store, 0.002)?;
    for epoch in 0..epochs {
        let rate = if epoch == 0 {
            1e-5
        } else {
            let part = epoch as f64 / epochs as f64;
            0.001 * (1.0 + (std::f64::consts::PI * part).cos())
        };
        optimiser.set_lr(rate);
        let order = Tensor::randperm(count, (Kind::Int64, Device::Cpu));
        for start in (0..count).step_by(32) {
            let rows = order.narrow(0, start, 32.min(count - start));
            let logits = forward(&keys.index_select(0, &rows));
            let loss = logits.cross_entropy_for_logits(&labels.index_select(0, &rows));
            optimiser.backward_step(&loss);
        }
    }
    Ok(Some(tch::no_grad(|| forward(&task.test.0))))
}
