//! Heads whose tensors do not fit together, and classes of any number of keys.

use rand::{SeedableRng as _, rngs::StdRng};
use tch::{Device, Kind, Tensor};
use tip_adapter::head::{Backend, Head, HeadTensors, Values};
use tip_spec::{KeyDtype, Method};

use crate::exchange::{seed, spec, unit};

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let good = || HeadTensors {
        classes: 3,
        linear: Some(unit(3, 4)),
        bias: None,
        cache: Some((
            unit(5, 4),
            Values::OneHot {
                labels: Tensor::from_slice(&[0i64, 2, 2, 0, 1]),
                weight: Tensor::ones([3], (Kind::Float, Device::Cpu)),
            },
        )),
        standardised: None,
    };
    let refused = |tensors: &HeadTensors, beta: f64, words: &str| {
        let spec = spec(Method::TipAdapter, 1.0, beta, KeyDtype::F32);
        let error = Head::new(&spec, tensors, Device::Cpu).expect_err("refused");
        assert!(error.to_string().contains(words), "{error}");
    };
    refused(&good(), f64::NAN, "β is NaN");
    let mut bad = good();
    bad.linear = Some(unit(2, 4));
    refused(&bad, 5.5, "L has shape [2, 4], expected [3, 4]");
    bad = good();
    bad.bias = Some(unit(1, 2));
    refused(&bad, 5.5, "b has shape [1, 2]");
    bad = good();
    bad.classes = 0;
    refused(&bad, 5.5, "0 classes");
    bad = good();
    (bad.linear, bad.cache) = (None, None);
    refused(&bad, 5.5, "neither a linear part nor keys");
    bad = good();
    if let Some((_, Values::OneHot { labels, .. })) = &mut bad.cache {
        *labels = Tensor::from_slice(&[0i64, 2, 3, 0, 1]);
    }
    refused(&bad, 5.5, "label 3 of key 2 is outside 0..3");

    let spec = spec(Method::TipAdapter, 1.0, 5.5, KeyDtype::F32);
    let head = Head::new(&spec, &good(), Device::Cpu).expect("a head");
    let error = head.logits(&unit(2, 5)).expect_err("refused");
    assert!(
        error
            .to_string()
            .contains("features has shape [2, 5], expected [B, 4]"),
        "{error}"
    );
}

/// Classes of equally many keys are summed as rows of a matrix; a class of very
/// many in parts; and where all have different numbers, by one-hot products.
#[test]
fn operators_sum_any_numbers_of_keys() {
    let seed = seed();
    tch::manual_seed(seed as i64);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut one_large = vec![3; 40];
    one_large[7] = 5000;
    one_large[11] = 0;
    for counts in [vec![4; 30], one_large, (1..=260).collect::<Vec<usize>>()] {
        let classes = counts.len();
        let mut labels: Vec<i64> = counts
            .iter()
            .enumerate()
            .flat_map(|(class, &count)| std::iter::repeat_n(class as i64, count))
            .collect();
        rand::seq::SliceRandom::shuffle(labels.as_mut_slice(), &mut rng);
        let labels = Tensor::from_slice(&labels);
        let (keys, features) = (unit(labels.size()[0], 12), unit(5, 12));
        let weight = Tensor::rand([classes as i64], (Kind::Float, Device::Cpu)) + 0.5;
        let x = (features
            .to_kind(Kind::Double)
            .matmul(&keys.to_kind(Kind::Double).tr())
            - 1.0)
            * 5.5;
        let x = x.exp() * weight.to_kind(Kind::Double).index_select(0, &labels);
        let expected = Tensor::zeros([5, classes as i64], (Kind::Double, Device::Cpu))
            .index_add(1, &labels, &x);
        let tensors = HeadTensors {
            classes,
            linear: None,
            bias: None,
            cache: Some((keys, Values::OneHot { labels, weight })),
            standardised: None,
        };
        let spec = spec(Method::TipAdapter, 1.0, 5.5, KeyDtype::F32);
        let head = Head::on(&spec, &tensors, Device::Cpu, Backend::Operators).expect("a head");
        let logits = head
            .logits(&features)
            .expect("logits")
            .to_kind(Kind::Double);
        let error = (logits - &expected).abs() / (expected.abs() + 1.0);
        let error = error.max().double_value(&[]);
        assert!(error < 1e-5, "{classes} classes: {error}");
    }
}
