//! What AUTO learns from unlabelled pictures.

use serde_json::json;
use tch::{Device, Kind, Tensor};
use tip_adapter::{
    formula::plain_logits,
    make::{HeadRequest, Made, Pool, make},
    material::Material,
    spec::{Method, Standardised, UnlabelledUse},
};

use super::{
    random::{Shape, fresh_seed, material, unit},
    reference::{ask, logits, rows},
};

fn made(m: &Material, request: &HeadRequest) -> Made {
    make(m, request, &|_| true).expect("a head")
}

fn record(made: &Made) -> &UnlabelledUse {
    made.spec.unlabelled.as_ref().expect("a record")
}

fn shape(shots: Vec<i64>) -> Shape {
    Shape {
        shots,
        width: 30,
        text: false,
        views: None,
        validation: 0,
    }
}

#[test]
fn em_is_the_references() {
    for (shots, text, views) in [
        (vec![1; 9], false, None),
        (vec![3; 8], false, None),
        (vec![2; 6], true, Some(3)),
        (vec![3, 0, 2, 4, 2, 2], false, Some(2)),
    ] {
        fresh_seed();
        let (mut m, queries) = material(&Shape {
            text,
            views,
            ..shape(shots)
        });
        let (_, more) = material(&shape(vec![1; m.classes]));
        let pool = Tensor::cat(&[queries.shallow_clone(), more], 0);
        m.unlabelled = Some(pool.shallow_clone());
        let request = HeadRequest {
            pool: Pool::Use,
            ..HeadRequest::default()
        };
        let ours = made(&m, &request);
        assert!(record(&ours).used);
        let whose = ours.spec.standardised.map(|whose| match whose {
            Standardised::Own => "own",
            Standardised::Bundle => "bundle",
        });
        let theirs = ask(
            &m,
            Some(&queries),
            &json!({"what": "unlabelled", "pool": rows(&pool), "standardised": whose}),
        );
        let expected = logits(&theirs).softmax(1, Kind::Double);
        let ours = plain_logits(&ours.spec, &ours.tensors, &queries).expect("logits");
        let off = (ours.softmax(1, Kind::Double) - expected).abs().max();
        assert!(
            off.double_value(&[]) < 2e-3,
            "probabilities differ by {off}"
        );
    }
}

/// Clusters that overlap: one shot says little of where they are.
fn clusters(shots: i64, pool: i64) -> (Material, Tensor, Tensor) {
    clusters_of(5, shots, pool, 0.2)
}

fn clusters_of(classes: i64, shots: i64, pool: i64, noise: f64) -> (Material, Tensor, Tensor) {
    let float = (Kind::Float, Device::Cpu);
    let centres = unit(&Tensor::randn([classes, 30], float));
    let draw = |count: i64| {
        let labels = Tensor::arange(classes, (Kind::Int64, Device::Cpu))
            .repeat_interleave_self_int(count, 0, None);
        let noise = Tensor::randn([classes * count, 30], float) * noise;
        (unit(&(centres.index_select(0, &labels) + noise)), labels)
    };
    let (keys, labels) = draw(shots);
    let (test, truth) = draw(100);
    let (m, _) = material(&shape(vec![1; classes as usize]));
    let m = Material {
        keys,
        labels,
        unlabelled: Some(draw(pool).0),
        ..m
    };
    (m, test, truth)
}

fn accuracy(made: &Made, test: &Tensor, truth: &Tensor) -> f64 {
    let logits = plain_logits(&made.spec, &made.tensors, test).expect("logits");
    let right = logits.argmax(1, false).eq_tensor(truth);
    right
        .to_kind(Kind::Double)
        .mean(Kind::Double)
        .double_value(&[])
}

#[test]
fn a_pool_of_the_classes_own_pictures_helps_at_few_shots() {
    let (mut gain, mut used) = (0.0, 0);
    for _ in 0..5 {
        fresh_seed();
        let (mut m, test, truth) = clusters(2, 80);
        let with = made(&m, &HeadRequest::default());
        let pool = record(&with).clone();
        assert_eq!((pool.count, pool.example_count), (400, 10));
        assert_eq!(
            pool.used,
            pool.cross_entropy_after < pool.cross_entropy_before
        );
        used += i32::from(pool.used);
        m.unlabelled = None;
        let without = made(&m, &HeadRequest::default());
        assert_eq!(without.spec.unlabelled, None);
        gain += accuracy(&with, &test, &truth) - accuracy(&without, &test, &truth);
    }
    assert!(used > 0 && gain > 0.0, "used {used} times, gain {gain}");
}

/// Left-out examples are known to heads of one shot, which find pictures far more
/// familiar than the head that serves does.
#[test]
fn the_threshold_of_a_head_with_a_pool_accepts_what_it_says() {
    let (mut accepted, mut used) = (0.0, 0);
    for _ in 0..6 {
        fresh_seed();
        let (m, test, _) = clusters_of(12, 2, 20, 0.3);
        let with = made(&m, &HeadRequest::default());
        if !record(&with).used {
            continue;
        }
        used += 1;
        let logits = plain_logits(&with.spec, &with.tensors, &test).expect("logits");
        let energies = (logits / with.spec.temperature).logsumexp([1i64].as_slice(), false);
        let unseen = with.spec.unseen.as_ref().expect("scores");
        let share = energies.ge(unseen.threshold(0.9).expect("a threshold"));
        accepted += share
            .to_kind(Kind::Double)
            .mean(Kind::Double)
            .double_value(&[]);
    }
    let mean = accepted / f64::from(used);
    println!("{mean} in {used}");
    assert!(
        used > 2 && mean > 0.78,
        "{mean} accepted, used {used} times"
    );
}

#[test]
fn one_shot_uses_the_pool_unchecked_and_says_so() {
    fresh_seed();
    let (m, _, _) = clusters(1, 40);
    let with = made(&m, &HeadRequest::default());
    assert!(record(&with).used);
    assert_eq!(record(&with).example_count, 0);
    assert!(record(&with).reason.contains("could not be checked"));
}

#[test]
fn a_small_pool_is_not_used_unchecked() {
    fresh_seed();
    let (mut m, test, _) = clusters(1, 40);
    let pool = m.unlabelled.take().expect("a pool");
    let without = made(&m, &HeadRequest::default());
    let expected = plain_logits(&without.spec, &without.tensors, &test).expect("logits");
    // Copies of a picture are one.
    for pool in [pool.narrow(0, 0, 49), pool.narrow(0, 0, 30).repeat([4, 1])] {
        m.unlabelled = Some(pool);
        let with = made(&m, &HeadRequest::default());
        assert!(!record(&with).used);
        let reason = &record(&with).reason;
        assert!(reason.contains("fewer than 10 for each"), "{reason}");
        let same = plain_logits(&with.spec, &with.tensors, &test).expect("logits");
        assert_eq!(same, expected);
    }
    m.unlabelled = Some(pool.narrow(0, 0, 50));
    assert!(record(&made(&m, &HeadRequest::default())).used);
}

#[test]
fn fewer_pictures_than_classes_are_not_used() {
    fresh_seed();
    let (mut m, _, _) = clusters(4, 1);
    m.unlabelled = m.unlabelled.map(|pool| pool.narrow(0, 0, 4));
    let with = made(&m, &HeadRequest::default());
    let found = record(&with);
    assert!(!found.used && found.example_count == 0);
    assert!(
        found.reason.contains("fewer than the 5 classes"),
        "{}",
        found.reason
    );
}

/// A pool that contradicts the labels: each class's pictures are another's, so
/// that the left-out shots reject it.
#[test]
fn a_pool_that_misleads_is_not_used() {
    fresh_seed();
    let (mut m, test, truth) = clusters(6, 1);
    m.unlabelled = None;
    let without = made(&m, &HeadRequest::default());
    let swapped = (&m.labels + 1).remainder(5);
    let wrong = clusters_between(&m, &swapped);
    m.unlabelled = Some(wrong);
    let with = made(&m, &HeadRequest::default());
    if !record(&with).used {
        let same = plain_logits(&with.spec, &with.tensors, &test).expect("logits");
        let before = plain_logits(&without.spec, &without.tensors, &test).expect("logits");
        assert_eq!(same, before);
        assert!(record(&with).reason.contains("did not help"));
    }
    assert!(accuracy(&with, &test, &truth) >= accuracy(&without, &test, &truth) - 0.02);
}

/// Pictures halfway between the means of two classes.
fn clusters_between(m: &Material, other: &Tensor) -> Tensor {
    let one_hot = m.labels.one_hot(5).to_kind(Kind::Float);
    let means = unit(&one_hot.tr().matmul(&m.keys));
    let between = means.index_select(0, &m.labels) + means.index_select(0, other);
    unit(&between.repeat([20, 1]))
}

#[test]
fn a_method_asked_for_by_name_leaves_the_pool_alone() {
    fresh_seed();
    let (mut m, test, _) = clusters(3, 20);
    let request = HeadRequest {
        method: Some(Method::Gda),
        ..HeadRequest::default()
    };
    let with = made(&m, &request);
    assert!(!record(&with).used);
    assert!(record(&with).reason.contains("only AUTO"));
    m.unlabelled = None;
    let without = made(&m, &request);
    let of = |made: &Made| plain_logits(&made.spec, &made.tensors, &test).expect("logits");
    assert_eq!(of(&with), of(&without));
}

#[test]
fn a_pool_of_the_wrong_width_is_an_error() {
    fresh_seed();
    let (mut m, _, _) = clusters(2, 3);
    m.unlabelled = Some(unit(&Tensor::ones([4, 7], (Kind::Float, Device::Cpu))));
    let error = make(&m, &HeadRequest::default(), &|_| true).expect_err("an error");
    assert!(error.to_string().contains("unlabelled features"), "{error}");
}
