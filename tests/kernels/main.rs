//! The kernels against the formulas in f64, without torch: small enough for
//! Miri (`make sanitize`), which checks every pointer.

// A test stops where something is not as it says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::Arc;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tip_kernels::{
    Isa,
    adamw::AdamW,
    packed::{CacheSource, Packed, Source},
    team,
    training::{Source as TrainingSource, Training},
};
use tip_spec::KeyDtype;

/// A seed of its own for each run, printed; `TIPSERVE_TEST_SEED` repeats one.
fn rng() -> StdRng {
    let given = std::env::var("TIPSERVE_TEST_SEED").ok();
    let seed = given
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| rand::rng().random_range(0..1_000_000_007));
    println!("seed {seed}: repeat with TIPSERVE_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Random unit vectors, [rows, width].
fn units(rng: &mut StdRng, rows: usize, width: usize) -> Vec<f32> {
    let mut values = Vec::new();
    for _ in 0..rows {
        let row: Vec<f32> = (0..width).map(|_| rng.random_range(-1.0..1.0)).collect();
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        values.extend(row.iter().map(|x| x / norm));
    }
    values
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum()
}

/// The tensors of a head, in host memory.
struct Parts {
    width: usize,
    keys: Vec<f32>,
    /// The class of each key.
    labels: Vec<u32>,
    order: Arc<[u32]>,
    linear: Vec<f32>,
    bias: Vec<f32>,
    weight: Vec<f32>,
    beta: f32,
}

impl Parts {
    fn draw(rng: &mut StdRng, classes: usize, keys: usize, width: usize) -> Self {
        let labels: Vec<u32> = (0..keys)
            .map(|_| rng.random_range(0..classes as u32))
            .collect();
        let mut order: Vec<u32> = (0..keys as u32).collect();
        order.sort_by_key(|&row| labels[row as usize]);
        Self {
            width,
            keys: units(rng, keys, width),
            labels,
            order: order.into(),
            linear: units(rng, classes, width),
            bias: (0..classes).map(|_| rng.random_range(-1.0..1.0)).collect(),
            weight: (0..classes).map(|_| rng.random_range(0.5..2.0)).collect(),
            beta: rng.random_range(1.0..8.0),
        }
    }

    fn sorted_labels(&self) -> Vec<u32> {
        self.order
            .iter()
            .map(|&row| self.labels[row as usize])
            .collect()
    }

    /// f·Lᵀ + b + exp(−β(1 − f·Kᵀ))·V, [B, N].
    fn logits(&self, features: &[f32], keys: &[f32]) -> Vec<f64> {
        let mut logits = Vec::new();
        for feature in features.chunks_exact(self.width) {
            let mut row: Vec<f64> = self
                .linear
                .chunks_exact(self.width)
                .zip(&self.bias)
                .map(|(l, b)| dot(feature, l) + f64::from(*b))
                .collect();
            for (key, &label) in keys.chunks_exact(self.width).zip(&self.labels) {
                let affinity = (f64::from(self.beta) * (dot(feature, key) - 1.0)).exp();
                row[label as usize] += affinity * f64::from(self.weight[label as usize]);
            }
            logits.extend(row);
        }
        logits
    }
}

fn assert_close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (a, b)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*a) - b).abs();
        assert!(
            error <= tolerance * b.abs().max(1.0),
            "{what}, {at}: {a}, not {b}"
        );
    }
}

/// Keys rounded as `dtype` stores them.
fn stored(keys: &[f32], dtype: KeyDtype) -> Vec<f32> {
    keys.iter()
        .map(|&key| match dtype {
            KeyDtype::F32 => key,
            KeyDtype::F16 => half::f16::from_f32(key).to_f32(),
            KeyDtype::Bf16 => half::bf16::from_f32(key).to_f32(),
        })
        .collect()
}

#[test]
fn a_heads_logits_and_neighbours_are_the_formulas() {
    let Some(isa) = Isa::detect() else { return };
    team::set_threads(|| 2);
    let mut rng = rng();
    // Panels that classes are cut by, widths that need padding, more rows than
    // a tile has.
    let shapes: &[_] = match cfg!(miri) {
        true => &[(3, 70, 5, 3), (2, 230, 3, 9)],
        false => &[(3, 70, 5, 3), (40, 130, 33, 9), (2, 500, 8, 17)],
    };
    for &(classes, keys, width, rows) in shapes {
        let parts = Parts::draw(&mut rng, classes, keys, width);
        let features = units(&mut rng, rows, width);
        for dtype in [KeyDtype::F32, KeyDtype::F16, KeyDtype::Bf16] {
            // Miri has no F16C.
            if cfg!(miri) && dtype == KeyDtype::F16 {
                continue;
            }
            let sorted = parts.sorted_labels();
            let head = Packed::new(
                isa,
                &Source {
                    classes,
                    width,
                    linear: Some(&parts.linear),
                    bias: Some(&parts.bias),
                    cache: Some(CacheSource {
                        keys: &parts.keys,
                        sorted_labels: &sorted,
                        order: Arc::clone(&parts.order),
                        weight: &parts.weight,
                        beta: parts.beta,
                    }),
                    dtype,
                },
            );
            let keys_stored = stored(&parts.keys, dtype);
            let expected = parts.logits(&features, &keys_stored);
            // bfloat16 products round the features too.
            let tolerance = if dtype == KeyDtype::Bf16 { 0.1 } else { 2e-4 };
            for alone in [true, false] {
                let mut logits = vec![0.0; rows * classes];
                head.logits(&features, &mut logits, alone);
                assert_close(&logits, &expected, tolerance, "logits");
            }

            let found = head.keys().expect("a cache");
            assert!(found.hold(&parts.keys) && found.count() == keys);
            let (indices, cosines) = found.nearest(&features, rows, 4);
            for ((indices, cosines), feature) in indices
                .chunks_exact(4)
                .zip(cosines.chunks_exact(4))
                .zip(features.chunks_exact(width))
            {
                let mut all: Vec<f64> = keys_stored
                    .chunks_exact(width)
                    .map(|key| dot(feature, key))
                    .collect();
                for (&index, &cosine) in indices.iter().zip(cosines) {
                    let truth = all[index as usize];
                    assert!(
                        (f64::from(cosine) - truth).abs() < 0.02,
                        "{cosine}, not {truth}"
                    );
                }
                all.sort_by(|a, b| b.total_cmp(a));
                assert!((f64::from(cosines[0]) - all[0]).abs() < 0.02);
                assert!(cosines.windows(2).all(|pair| pair[0] >= pair[1]));
            }
        }
    }
}

/// Where AdamW's first step takes each number of each key (rate 1e-3, decay
/// 1e-2, from zero moments: m̂ = g, v̂ = g²), in f64; and what share of its
/// gradient's terms is left once they have cancelled.
fn first_step(
    parts: &Parts,
    features: &[f32],
    gradient: &[f32],
    (classes, width): (usize, usize),
) -> (Vec<f64>, Vec<f64>) {
    let (mut expected, mut shares) = (Vec::new(), Vec::new());
    for (key, &label) in parts.keys.chunks_exact(width).zip(&parts.labels) {
        let class = label as usize;
        let mut slope = vec![0.0_f64; width];
        let mut size = vec![0.0_f64; width];
        let queries = features.chunks_exact(width);
        for (feature, gradient) in queries.zip(gradient.chunks_exact(classes)) {
            let beta = f64::from(parts.beta);
            let affinity = (beta * (dot(feature, key) - 1.0)).exp();
            let factor =
                affinity * beta * f64::from(parts.weight[class]) * f64::from(gradient[class]);
            for ((slope, size), x) in slope.iter_mut().zip(&mut size).zip(feature) {
                *slope += factor * f64::from(*x);
                *size += (factor * f64::from(*x)).abs();
            }
        }
        shares.extend((slope.iter().zip(&size)).map(|(slope, size)| slope.abs() / size));
        expected.extend(
            (key.iter().zip(&slope))
                .map(|(k, g)| f64::from(*k) * (1.0 - 1e-3 * 1e-2) - 1e-3 * g / (g.abs() + 1e-4)),
        );
    }
    (expected, shares)
}

#[test]
fn a_training_step_is_adamws() {
    let Some(isa) = Isa::detect() else { return };
    let mut rng = rng();
    let (classes, keys, width, rows) = (5, 60, 7, 6);
    let parts = Parts::draw(&mut rng, classes, keys, width);
    let features = units(&mut rng, rows, width);
    let gradient: Vec<f32> = (0..rows * classes)
        .map(|_| rng.random_range(-0.5..0.5))
        .collect();
    for mixed in [false, true] {
        let sorted = parts.sorted_labels();
        let mut training = Training::new(
            isa,
            mixed,
            &TrainingSource {
                classes,
                width,
                keys: &parts.keys,
                sorted_labels: &sorted,
                order: &parts.order,
                linear: Some(&parts.linear),
                bias: Some(&parts.bias),
                weight: &parts.weight,
                beta: parts.beta,
            },
        );
        training.begin(&features);
        while !training.forward(usize::MAX / 2) {}
        let tolerance = if mixed { 0.05 } else { 2e-4 };
        let expected = parts.logits(&features, &parts.keys);
        assert_close(training.logits(), &expected, tolerance, "logits");

        let adamw = AdamW::new(1e-3, 1e-2, 1);
        while !training.backward(&gradient, &adamw, usize::MAX / 2) {}
        let (expected, shares) = first_step(&parts, &features, &gradient, (classes, width));
        // The first step is ±1e-3 but for gradients as small as ε. In bfloat16 a
        // sum that all but cancels may have the other sign: it is left out.
        let (tolerance, least) = if mixed { (5e-4, 0.1) } else { (1e-5, 0.0) };
        let (found, expected): (Vec<f32>, Vec<f64>) = training
            .keys()
            .into_iter()
            .zip(expected)
            .zip(&shares)
            .filter(|(_, share)| **share >= least)
            .map(|(pair, _)| pair)
            .unzip();
        assert!(found.len() > keys * width / 10, "{}", found.len());
        assert_close(&found, &expected, tolerance, "keys");
        let mut scores = vec![0.0; rows * classes];
        training.score(&features, &mut scores);
        let expected = parts.logits(&features, &training.keys());
        assert_close(&scores, &expected, 2e-4, "scores");
    }
}
