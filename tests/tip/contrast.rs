//! Examples of no class: their part in the score of unknown pictures.

use tch::{Device, Kind, Tensor};
use tip_adapter::{
    contrast::{Contrast, sharpen},
    formula::plain_logits,
    make::{HeadRequest, Made, make},
    material::Material,
    spec::{ContrastSpec, Method},
    standardise::{Standardise, Statistics},
    unknown::UnknownScores,
};

use super::random::{Shape, fresh_seed, material, unit};

fn shape(shots: i64) -> Shape {
    Shape {
        shots: vec![shots; 6],
        width: 24,
        text: false,
        views: None,
        validation: 0,
    }
}

/// Points around `count` centres of their own.
fn cloud(count: i64, each: i64, width: i64) -> Tensor {
    let options = (Kind::Float, Device::Cpu);
    let centres = unit(&Tensor::randn([count, 1, width], options));
    let noise = Tensor::randn([count, each, width], options) / (width as f64).sqrt();
    unit(&(centres + noise)).view([-1, width])
}

fn made(m: &Material, method: Option<Method>) -> Made {
    let asked = HeadRequest {
        method,
        ..HeadRequest::default()
    };
    make(m, &asked, &|_| true).expect("a head")
}

/// c, term by term in float64.
fn by_formula(
    m: &Material,
    negatives: &Tensor,
    by: Option<&Standardise>,
    beta: f64,
    f: &Tensor,
) -> Tensor {
    let seen = |rows: &Tensor| {
        let rows = rows.to_kind(Kind::Double);
        match by {
            Some(by) => by.apply(&rows).expect("rows"),
            None => rows,
        }
    };
    let density = |rows: &Tensor| {
        let cosines = seen(f).matmul(&seen(rows).tr());
        ((cosines - 1.0) * beta).logsumexp([1i64].as_slice(), false)
    };
    density(negatives) - density(&m.keys)
}

fn of_rows(contrast: &Contrast, rows: &Tensor) -> Vec<f64> {
    (0..rows.size()[0])
        .map(|row| contrast.of(&Vec::<f32>::try_from(rows.get(row)).expect("a row")))
        .collect()
}

fn standardised(m: &Material, made: &Made, spec: &ContrastSpec) -> Option<Standardise> {
    match &made.tensors.standardised {
        Some(part) => Some(part.by.shallow_clone()),
        None if spec.own_scale => {
            Standardise::by(&Statistics::of(&m.keys).expect("it")).expect("it")
        }
        None => None,
    }
}

#[test]
fn the_ratio_is_that_of_the_densities() {
    for method in [None, Some(Method::Proker), Some(Method::Gda)] {
        fresh_seed();
        let (m, queries) = material(&shape(5));
        let negatives = cloud(3, 7, 24);
        let mut head = made(&m, method);
        let spec = sharpen(&m, &mut head, &negatives)
            .expect("it")
            .expect("a contrast");
        assert_eq!(spec.count, 21);
        assert!(spec.weight > 0.0 && spec.beta > 0.0, "{spec:?}");
        let by = head.tensors.standardised.as_ref().map(|part| &part.by);
        let contrast = Contrast::new(&m.keys, &negatives, by, &spec).expect("it");
        let by = standardised(&m, &head, &spec);
        let expected = by_formula(&m, &negatives, by.as_ref(), spec.beta, &queries);
        let expected = Vec::<f64>::try_from(expected).expect("it");
        for (ours, theirs) in of_rows(&contrast, &queries).iter().zip(&expected) {
            assert!(
                (ours - theirs).abs() < 1e-3 * theirs.abs().max(1.0),
                "{ours} {theirs}"
            );
        }
    }
}

#[test]
fn the_threshold_is_that_of_the_sharpened_scores_over_draws() {
    let (mut accepted, mut all) = (0.0, 0.0);
    for _ in 0..12 {
        fresh_seed();
        let (pool, _) = material(&Shape {
            width: 10,
            ..shape(40)
        });
        let rows = |from: i64, count: i64| Tensor::arange(count, (Kind::Int64, Device::Cpu)) + from;
        let train = Material {
            keys: pool.keys.index_select(0, &rows(0, 90)),
            labels: pool.labels.index_select(0, &rows(0, 90)),
            ..pool
        };
        let test = pool.keys.index_select(0, &rows(90, 150));
        let negatives = cloud(2, 8, 10);
        let mut head = made(&train, None);
        let spec = sharpen(&train, &mut head, &negatives)
            .expect("it")
            .expect("a contrast");
        let threshold = head
            .spec
            .unseen
            .as_ref()
            .and_then(|s| s.threshold(0.9))
            .expect("it");
        let by = head.tensors.standardised.as_ref().map(|part| &part.by);
        let contrast = Contrast::new(&train.keys, &negatives, by, &spec).expect("it");
        let logits = plain_logits(&head.spec, &head.tensors, &test).expect("it");
        let energies = (logits / head.spec.temperature).logsumexp([1i64].as_slice(), false);
        let energies = Vec::<f64>::try_from(energies).expect("it");
        for (energy, ratio) in energies.iter().zip(of_rows(&contrast, &test)) {
            accepted += f64::from(u8::from(
                energy - spec.weight * (ratio - spec.centre) >= threshold,
            ));
            all += 1.0;
        }
    }
    let share = accepted / all;
    assert!((0.85..0.97).contains(&share), "{share}");
}

#[test]
fn examples_of_no_class_tell_what_is_like_them() {
    let (mut with, mut without) = (0.0, 0.0);
    for _ in 0..6 {
        fresh_seed();
        let (m, _) = material(&shape(6));
        let pool = cloud(4, 40, 24);
        let rows =
            |offset: i64| Tensor::arange_start_step(offset, 160, 2, (Kind::Int64, Device::Cpu));
        let (negatives, others) = (
            pool.index_select(0, &rows(0)),
            pool.index_select(0, &rows(1)),
        );
        let mut head = made(&m, None);
        let unseen = head.unseen.as_ref().expect("left-out answers");
        let (known, energies) = (
            unseen.features.shallow_clone(),
            Vec::<f64>::try_from(&unseen.known).expect("it"),
        );
        let spec = sharpen(&m, &mut head, &negatives)
            .expect("it")
            .expect("a contrast");
        let by = head.tensors.standardised.as_ref().map(|part| &part.by);
        let contrast = Contrast::new(&m.keys, &negatives, by, &spec).expect("it");
        let logits = plain_logits(&head.spec, &head.tensors, &others).expect("it");
        let of_others = (logits / head.spec.temperature).logsumexp([1i64].as_slice(), false);
        let of_others = Vec::<f64>::try_from(of_others).expect("it");
        let auroc = |weight: f64| {
            let mut scores = UnknownScores::default();
            for (energy, ratio) in energies.iter().zip(of_rows(&contrast, &known)) {
                scores.known(energy - weight * ratio, true);
            }
            for (energy, ratio) in of_others.iter().zip(of_rows(&contrast, &others)) {
                scores.unknown(energy - weight * ratio);
            }
            scores.figures().expect("figures").auroc
        };
        with += auroc(spec.weight) / 6.0;
        without += auroc(0.0) / 6.0;
    }
    assert!(with > without, "{with} {without}");
}

#[test]
fn one_shot_a_class_is_sharpened_without_a_threshold() {
    fresh_seed();
    let (m, _) = material(&shape(1));
    let mut head = made(&m, None);
    let spec = sharpen(&m, &mut head, &cloud(1, 1, 24))
        .expect("it")
        .expect("a contrast");
    assert!(
        spec.weight.is_finite() && head.spec.unseen.is_none(),
        "{spec:?}"
    );
    assert!(
        sharpen(&m, &mut head, &cloud(1, 4, 12)).is_err(),
        "another width"
    );
    let none = Tensor::zeros([0, 24], (Kind::Float, Device::Cpu));
    assert!(sharpen(&m, &mut head, &none).expect("it").is_none());
}
