//! Heads on standardised features.

use tch::{Device, Kind, Tensor};
use tip_adapter::{
    grouped::grouped_logits,
    head::{Backend, Head, HeadError, HeadTensors, StandardisedPart, Values},
    standardise::{Standardise, Statistics},
};
use tip_spec::{HeadSpec, KeyDtype, Method};

use crate::{
    exchange::{spec, unit},
    random::fresh_seed,
};

const WIDTH: i64 = 48;
const CLASSES: i64 = 7;
const KEYS: i64 = 60;
const BETA: f64 = 1.3;

/// A head of every part, and the examples' plain keys.
fn head(dense: bool) -> (HeadTensors, Tensor) {
    let float = (Kind::Float, Device::Cpu);
    let pictures = unit(200, WIDTH) + Tensor::rand([1, WIDTH], float);
    let by = Standardise::by(&Statistics::of(&pictures).expect("statistics"))
        .expect("torch")
        .expect("something varies");
    let plain = unit(KEYS, WIDTH);
    let keys = by.apply(&plain).expect("keys");
    let values = if dense {
        Values::Dense(Tensor::randn([KEYS, CLASSES], float))
    } else {
        Values::OneHot {
            labels: Tensor::randint(CLASSES, [KEYS], (Kind::Int64, Device::Cpu)),
            weight: Tensor::rand([CLASSES], float) + 0.5,
        }
    };
    let tensors = HeadTensors {
        classes: CLASSES as usize,
        linear: Some(Tensor::randn([CLASSES, WIDTH], float)),
        bias: Some(Tensor::randn([CLASSES], float)),
        cache: Some((keys, values)),
        standardised: Some(StandardisedPart {
            by,
            linear: Some(Tensor::randn([CLASSES, WIDTH], float) * 3.0),
        }),
    };
    (tensors, plain)
}

fn numbers(dtype: KeyDtype) -> HeadSpec {
    spec(Method::Stack, 0.0, BETA, dtype)
}

/// `f·Lᵀ + b + f′·L′ᵀ + exp(−β(1 − f′·Kᵀ))·V` in f64, written out.
fn expected(tensors: &HeadTensors, features: &Tensor) -> Tensor {
    let double = |t: &Tensor| t.to_kind(Kind::Double);
    let part = tensors.standardised.as_ref().expect("a part");
    let f = double(features);
    let seen = (&f - double(&part.by.shift)) * double(&part.by.scale);
    let length = seen
        .square()
        .sum_dim_intlist([1i64].as_slice(), true, Kind::Double);
    let seen = seen / length.sqrt();
    let (keys, values) = tensors.cache.as_ref().expect("keys");
    let values = match values {
        Values::Dense(values) => double(values),
        Values::OneHot { labels, weight } => double(&labels.one_hot(CLASSES)) * double(weight),
    };
    let linear = |l: &Option<Tensor>| double(l.as_ref().expect("L")).tr();
    f.matmul(&linear(&tensors.linear))
        + double(tensors.bias.as_ref().expect("b"))
        + seen.matmul(&linear(&part.linear))
        + ((seen.matmul(&double(keys).tr()) - 1.0) * BETA)
            .exp()
            .matmul(&values)
}

fn largest(t: &Tensor) -> f64 {
    t.abs().max().double_value(&[])
}

#[test]
fn logits_are_the_formulas() {
    fresh_seed();
    for dense in [false, true] {
        let (tensors, _) = head(dense);
        let features = unit(33, WIDTH);
        let want = expected(&tensors, &features);
        for (dtype, tolerance) in [(KeyDtype::F32, 1e-4), (KeyDtype::Bf16, 0.2)] {
            let head = Head::new(&numbers(dtype), &tensors, Device::Cpu).expect("a head");
            let off = largest(&(head.logits(&features).expect("logits") - &want));
            assert!(off < tolerance, "dense {dense}, {dtype:?}: {off}");
        }
    }
}

#[test]
fn neighbours_are_found_among_plain_keys() {
    fresh_seed();
    let (tensors, plain) = head(true);
    let head = Head::new(&numbers(KeyDtype::F32), &tensors, Device::Cpu).expect("a head");
    let none = head.neighbours(&plain, 1);
    assert!(matches!(none, Err(HeadError::NoExamples)));
    let bytes = head.size_bytes();
    let head = head.with_examples(&plain).expect("examples");
    assert!(head.size_bytes() >= bytes + (KEYS * WIDTH * 4) as usize);
    let (at, cosines) = head.neighbours(&plain, 1).expect("neighbours");
    let at = Vec::<i64>::try_from(at.flatten(0, -1)).expect("rows");
    assert_eq!(at, (0..KEYS).collect::<Vec<i64>>());
    assert!(largest(&(cosines - 1.0)) < 1e-5);
}

#[test]
fn it_is_served_beside_plain_heads() {
    fresh_seed();
    let (tensors, _) = head(true);
    let plain = HeadTensors {
        classes: 3,
        linear: Some(unit(3, WIDTH)),
        bias: None,
        cache: None,
        standardised: None,
    };
    let features = unit(9, WIDTH);
    for backend in [Backend::Automatic, Backend::Operators] {
        let a = Head::on(
            &numbers(KeyDtype::F32),
            &tensors,
            Device::Cpu,
            Backend::Automatic,
        )
        .expect("a head");
        let zero = spec(Method::ZeroShot, 0.0, 0.0, KeyDtype::F32);
        let b = Head::on(&zero, &plain, Device::Cpu, backend).expect("a head");
        let (rows, others) = ([0i64, 4, 8], [1i64, 4]);
        let groups = [(&a, &rows[..]), (&b, &others[..]), (&a, &others[..])];
        let got = grouped_logits(&features, &groups).expect("logits");
        for (logits, rows) in [(&got[0], &rows[..]), (&got[2], &others[..])] {
            let own = features.index_select(0, &Tensor::from_slice(rows));
            assert!(largest(&(logits - expected(&tensors, &own))) < 1e-4);
        }
        let own = features.index_select(0, &Tensor::from_slice(&others));
        let text = own.matmul(&plain.linear.as_ref().expect("L").tr());
        assert!(largest(&(&got[1] - text)) < 1e-5);
    }
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    fresh_seed();
    let (mut tensors, _) = head(true);
    if let Some(part) = &mut tensors.standardised {
        part.by.scale = Tensor::ones([WIDTH + 1], (Kind::Float, Device::Cpu));
    }
    let error = Head::new(&numbers(KeyDtype::F32), &tensors, Device::Cpu).expect_err("refused");
    assert!(
        error.to_string().contains("scale of the features"),
        "{error}"
    );
    let (tensors, _) = head(true);
    let packed = Head::on(
        &numbers(KeyDtype::F32),
        &tensors,
        Device::Cpu,
        Backend::Avx2,
    );
    assert!(matches!(packed, Err(HeadError::Backend(Backend::Avx2))));
}
