//! The resident head against the formula in float64: every backend, number
//! format and odd shape.

use std::sync::Arc;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tch::{Device, Kind, Tensor};
use tip_adapter::{
    grouped::grouped_logits,
    head::{Backend, Head, HeadError, HeadTensors, Values},
};
use tip_spec::{KeyDtype, Method};

use crate::exchange::{
    Exchange, argmax_differs, largest_difference, normalised, run, seed, spec, unit,
};

/// A head's tensors made at random: labels in any order, unequal shots,
/// classes without any.
struct Random {
    tensors: HeadTensors,
    alpha: f64,
    beta: f64,
}

#[derive(Clone, Copy)]
struct Parts {
    linear: bool,
    bias: bool,
    keys: bool,
    dense: bool,
}

const ALL: Parts = Parts {
    linear: true,
    bias: true,
    keys: true,
    dense: false,
};

impl Random {
    fn new(rng: &mut StdRng, classes: i64, keys: i64, width: i64, parts: Parts) -> Self {
        let alpha = rng.random_range(0.5..3.0);
        // As keys would lie: around a centre per class.
        let labels: Vec<i64> = (0..keys)
            .map(|_| {
                // Some classes many, the last quarter none.
                let x: f64 = rng.random();
                ((x * x * classes as f64 * 0.75) as i64).min(classes - 1)
            })
            .collect();
        let labels = Tensor::from_slice(&labels);
        let centres = unit(classes, width);
        let k = normalised(&(centres.index_select(0, &labels) + unit(keys, width) * 0.7));
        let weight = Tensor::rand([classes], (Kind::Float, Device::Cpu)) + alpha;
        let values = if parts.dense {
            Values::Dense(Tensor::randn([keys, classes], (Kind::Float, Device::Cpu)))
        } else {
            Values::OneHot { labels, weight }
        };
        Self {
            tensors: HeadTensors {
                classes: classes as usize,
                linear: parts.linear.then(|| unit(classes, width) * 100.0),
                bias: parts
                    .bias
                    .then(|| Tensor::randn([classes], (Kind::Float, Device::Cpu))),
                cache: parts.keys.then_some((k, values)),
                standardised: None,
            },
            alpha,
            beta: rng.random_range(1.0..12.0),
        }
    }

    fn head(&self, dtype: KeyDtype, backend: Backend) -> Result<Head, HeadError> {
        let spec = spec(Method::TipAdapter, self.alpha, self.beta, dtype);
        Head::on(&spec, &self.tensors, Device::Cpu, backend)
    }

    /// The inputs that the Python reference reads.
    fn exchange(&self, features: &Tensor) -> Exchange {
        let t = &self.tensors;
        let mut exchange = Exchange::new();
        exchange.give("features", features);
        if let Some(linear) = &t.linear {
            exchange.give("linear", linear);
        }
        if let Some(bias) = &t.bias {
            exchange.give("bias", bias);
        }
        if let Some((keys, values)) = &t.cache {
            exchange.give("keys", keys);
            match values {
                Values::OneHot { labels, weight } => {
                    exchange.give("labels", labels);
                    exchange.give("weight", weight);
                }
                Values::Dense(values) => exchange.give("values", values),
            }
        }
        exchange.numbers(json!({"classes": t.classes, "beta": self.beta}));
        exchange
    }
}

/// A head, features for it, and both references in float64.
struct Case {
    random: Random,
    features: Tensor,
    /// The reference's logits, f64 [B, N].
    logits: Tensor,
    /// The reference's cosines, f64 [B, M].
    cosines: Tensor,
}

/// Runs the reference over all.
fn referenced(cases: Vec<(Random, Tensor)>) -> Vec<Case> {
    let exchanges: Vec<Exchange> = cases
        .iter()
        .map(|(random, features)| random.exchange(features))
        .collect();
    run("head_logits.py", &exchanges);
    cases
        .into_iter()
        .zip(&exchanges)
        .map(|((random, features), exchange)| {
            let rows = features.size()[0];
            let keys = random
                .tensors
                .cache
                .as_ref()
                .map_or(0, |(keys, _)| keys.size()[0]);
            let classes = random.tensors.classes as i64;
            Case {
                logits: exchange.take("logits.f64", &[rows, classes]),
                cosines: exchange.take("cosines.f64", &[rows, keys]),
                random,
                features,
            }
        })
        .collect()
}

/// The backends that this machine has.
fn backends(random: &Random) -> Vec<(Backend, Head)> {
    [Backend::Operators, Backend::Avx2, Backend::Avx512]
        .into_iter()
        .filter_map(|backend| match random.head(KeyDtype::F32, backend) {
            Ok(head) => Some((backend, head)),
            Err(HeadError::Backend(_)) => {
                println!("{backend:?}: not on this machine or for these values");
                None
            }
            Err(e) => panic!("{e}"),
        })
        .collect()
}

#[test]
fn logits_are_the_formulas_on_every_backend() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    tch::manual_seed(seed as i64);
    let parts = |linear, bias, keys, dense| Parts {
        linear,
        bias,
        keys,
        dense,
    };
    // Classes, keys, width, rows: tiles full and not, one of everything, an
    // odd width, more classes than keys, keys that many items share.
    let cases = [
        (10, 160, 512, 32, ALL),
        (1, 1, 1, 1, ALL),
        (7, 100, 33, 5, ALL),
        (1000, 3000, 512, 19, ALL),
        (300, 47, 64, 9, ALL),
        (2, 5000, 48, 70, ALL),
        (1, 2500, 20, 3, parts(false, false, true, false)),
        (5, 97, 31, 17, parts(false, true, true, false)),
        (50, 0, 16, 4, parts(true, false, true, false)),
        (33, 10, 40, 6, parts(true, true, false, false)),
        (20, 4100, 24, 6, parts(true, false, true, true)),
        (4, 30, 8, 0, ALL),
    ]
    .map(|(classes, keys, width, rows, parts)| {
        (
            Random::new(&mut rng, classes, keys, width, parts),
            unit(rows, width),
        )
    });
    for case in referenced(cases.into()) {
        let classes = case.random.tensors.classes;
        let width = case.features.size()[1];
        for (backend, head) in backends(&case.random) {
            let got = head.logits(&case.features).expect("logits");
            let difference = largest_difference(&got, &case.logits);
            let name = format!(
                "{backend:?} N={classes} D={width} B, M = {:?}",
                case.cosines.size()
            );
            assert!(difference <= 1e-3, "{name}: {difference:e}");
            assert_eq!(argmax_differs(&got, &case.logits, 1e-3), 0, "{name}");
            assert_eq!((head.classes(), head.width() as i64), (classes, width));
        }
    }
}

#[test]
fn sixteen_bit_keys_lose_little() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    tch::manual_seed(seed as i64);
    let cases = [(100, 1600, 512), (9, 130, 77)].map(|(classes, keys, width)| {
        let mut random = Random::new(&mut rng, classes, keys, width, ALL);
        random.beta = 5.5;
        if let Some((_, Values::OneHot { weight, .. })) = &mut random.tensors.cache {
            *weight = Tensor::ones([classes], (Kind::Float, Device::Cpu));
        }
        (random, unit(40, width))
    });
    for Case {
        random,
        features,
        logits: want,
        ..
    } in referenced(cases.into())
    {
        let width = features.size()[1];
        let exact = random
            .head(KeyDtype::F32, Backend::Automatic)
            .expect("a head");
        for dtype in [KeyDtype::Bf16, KeyDtype::F16] {
            for backend in [Backend::Automatic, Backend::Operators, Backend::Avx2] {
                let head = match random.head(dtype, backend) {
                    Err(HeadError::Backend(_)) => continue,
                    head => head.expect("a head"),
                };
                let got = head.logits(&features).expect("logits");
                let difference = largest_difference(&got, &want);
                println!("{dtype:?} {backend:?} D={width}: {difference:e}");
                let limit = if dtype == KeyDtype::Bf16 { 1e-2 } else { 2e-3 };
                assert!(difference <= limit, "{dtype:?} {backend:?}: {difference:e}");
                assert_eq!(argmax_differs(&got, &want, 1e-2), 0);
                assert!(head.size_bytes() < exact.size_bytes());
            }
        }
    }
}

#[test]
fn a_rows_logits_do_not_depend_on_its_batch() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    tch::manual_seed(seed as i64);
    let random = Random::new(&mut rng, 40, 3000, 128, ALL);
    let features = unit(75, 128);
    for dtype in [KeyDtype::F32, KeyDtype::Bf16, KeyDtype::F16] {
        for backend in [Backend::Avx2, Backend::Avx512] {
            let head = match random.head(dtype, backend) {
                Err(HeadError::Backend(_)) => continue,
                head => head.expect("a head"),
            };
            let together = head.logits(&features).expect("logits");
            for row in [0, 1, 8, 37, 74] {
                let alone = head.logits(&features.narrow(0, row, 1)).expect("logits");
                assert_eq!(
                    alone,
                    together.narrow(0, row, 1),
                    "{backend:?} {dtype:?} row {row}"
                );
            }
        }
    }
}

#[test]
fn neighbours_are_the_nearest_keys_in_their_own_order() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    tch::manual_seed(seed as i64);
    let cases = [(3000, 64, 11), (20, 17, 3), (1, 5, 2)].map(|(keys, width, rows)| {
        (
            Random::new(&mut rng, 12, keys, width, ALL),
            unit(rows, width),
        )
    });
    for Case {
        random,
        features,
        cosines,
        ..
    } in referenced(cases.into())
    {
        let [rows, keys] = cosines.size()[..] else {
            unreachable!()
        };
        for k in [1, 5, 40] {
            let (want, want_at) = cosines.topk(k.min(keys), 1, true, true);
            for (backend, head) in backends(&random) {
                let (at, got) = head.neighbours(&features, k as usize).expect("neighbours");
                assert_eq!(at.size(), [rows, k.min(keys)]);
                assert!(largest_difference(&got, &want) < 1e-5, "{backend:?}");
                // Where cosines tie to float32's last bits the order may differ.
                let of = cosines.gather(1, &at, false);
                assert!(largest_difference(&of, &want) < 1e-5, "{backend:?}");
                let same = at
                    .eq_tensor(&want_at)
                    .to_kind(Kind::Double)
                    .mean(Kind::Double);
                assert!(same.double_value(&[]) > 0.98, "{backend:?}");
            }
        }
    }
}

#[test]
fn example_keys_are_shared_where_they_are_the_formulas() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    tch::manual_seed(seed as i64);
    let random = Random::new(&mut rng, 8, 90, 32, ALL);
    let (keys, _) = random.tensors.cache.as_ref().expect("keys");
    let features = unit(4, 32);
    for backend in [Backend::Automatic, Backend::Operators] {
        let head = random.head(KeyDtype::F32, backend).expect("a head");
        let bytes = head.size_bytes();
        let head = head.with_examples(keys).expect("examples");
        assert_eq!(head.size_bytes(), bytes);

        // Others are kept beside them, and are the ones that are found.
        let others = unit(70, 32);
        let head = head.with_examples(&others).expect("examples");
        assert!(head.size_bytes() > bytes);
        let (at, _) = head
            .neighbours(&others.narrow(0, 5, 6), 1)
            .expect("neighbours");
        assert_eq!(
            Vec::<i64>::try_from(at.flatten(0, -1)).expect("rows"),
            [5, 6, 7, 8, 9, 10]
        );
    }

    // Trained keys are no one's picture; nor has a linear head any.
    let trained = spec(Method::TipAdapterF, 1.0, 5.5, KeyDtype::F32);
    let head = Head::new(&trained, &random.tensors, Device::Cpu).expect("a head");
    assert!(matches!(
        head.neighbours(&features, 3),
        Err(HeadError::NoExamples)
    ));
    let head = head.with_examples(keys).expect("examples");
    let (at, _) = head.neighbours(keys, 1).expect("neighbours");
    let at = Vec::<i64>::try_from(at.flatten(0, -1)).expect("rows");
    assert_eq!(at, (0..90).collect::<Vec<i64>>());
}

#[test]
fn a_nan_stays_in_its_row() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    tch::manual_seed(seed as i64);
    let random = Random::new(&mut rng, 8, 90, 32, ALL);
    let features = unit(10, 32);
    let _ = features.narrow(0, 3, 1).fill_(f64::NAN);
    for (backend, head) in backends(&random) {
        let logits = head.logits(&features).expect("logits");
        let bad = logits.isnan().any_dim(1, false);
        let bad = Vec::<bool>::try_from(bad).expect("flags");
        let want: Vec<bool> = (0..10).map(|row| row == 3).collect();
        assert_eq!(bad, want, "{backend:?}");
    }
}

#[test]
fn a_mixed_batch_gets_each_heads_own_logits() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    tch::manual_seed(seed as i64);
    for backend in [Backend::Automatic, Backend::Operators] {
        // Many small heads of different shapes, one large, one dense, one
        // without keys, one without a linear part.
        let mut heads = Vec::new();
        for i in 0..12 {
            let parts = Parts {
                linear: i != 3,
                bias: i % 2 == 0,
                keys: i != 5,
                dense: i == 7,
            };
            let keys = if i == 9 {
                6000
            } else {
                rng.random_range(1..200)
            };
            let random = Random::new(&mut rng, 2 + i, keys, 64, parts);
            let wanted = if i == 7 { Backend::Operators } else { backend };
            heads.push(Arc::new(
                random.head(KeyDtype::F32, wanted).expect("a head"),
            ));
        }
        let features = unit(40, 64);
        let mut rows: Vec<Vec<i64>> = vec![Vec::new(); heads.len()];
        for row in 0..40 {
            rows[rng.random_range(0..heads.len())].push(row);
        }
        let groups: Vec<(&Head, &[i64])> = heads
            .iter()
            .zip(&rows)
            .map(|(head, rows)| (&**head, &rows[..]))
            .collect();
        let got = grouped_logits(&features, &groups).expect("logits");
        assert_eq!(got.len(), groups.len());
        for ((head, rows), got) in groups.iter().zip(&got) {
            let own = features.index_select(0, &Tensor::from_slice(rows));
            let want = head.logits(&own).expect("logits");
            assert_eq!(got.size(), want.size());
            // Sums of thousands of affinities round in another order.
            let size = 1.0 + largest_difference(&want, &want.zeros_like());
            assert!(largest_difference(got, &want) <= 1e-5 * size, "{head:?}");
        }
        let outside = [40i64];
        let error = grouped_logits(&features, &[(&heads[0], &outside)]).expect_err("refused");
        assert!(error.to_string().contains("row 40"), "{error}");
    }
}
