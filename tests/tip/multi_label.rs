//! Examples with any number of classes: independent probabilities.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tch::{Device, Kind, Tensor};
use tip_adapter::{
    error::TipError,
    evaluate_labels::{LabelEvaluator, sigmoid},
    formula::plain_logits,
    head::{Head, Values},
    make::HeadRequest,
    multi_label::{MultiLabelMade, MultiLabelMaterial, label_rows, make},
    spec::{SelectionSource, Standardised},
};

use super::{
    random::{fresh_seed, unit},
    reference::{ask_raw, rows},
};

const CLASSES: usize = 5;

/// Examples of random sets of classes: the sum of the classes' directions, noise
/// beside it.
fn draw(centres: &Tensor, count: usize, rng: &mut StdRng) -> (Tensor, Vec<Vec<usize>>) {
    let width = centres.size()[1];
    let sets: Vec<Vec<usize>> = (0..count)
        .map(|_| (0..CLASSES).filter(|_| rng.random_bool(0.3)).collect())
        .collect();
    let labels = label_rows(CLASSES, &sets).expect("rows");
    let noise = Tensor::randn([count as i64, width], (Kind::Float, Device::Cpu));
    let features = labels.matmul(centres) + noise * (0.9 / (width as f64).sqrt());
    (unit(&(features + 1e-3)), sets)
}

fn drawn(count: usize, held: usize) -> (MultiLabelMaterial, Tensor, Vec<Vec<usize>>) {
    let seed = fresh_seed();
    let mut rng = StdRng::seed_from_u64(seed as u64);
    let centres = unit(&Tensor::randn(
        [CLASSES as i64, 24],
        (Kind::Float, Device::Cpu),
    ));
    let (keys, sets) = draw(&centres, count, &mut rng);
    let validation = (held > 0).then(|| {
        let (features, sets) = draw(&centres, held, &mut rng);
        (features, label_rows(CLASSES, &sets).expect("rows"))
    });
    let (queries, truth) = draw(&centres, 300, &mut rng);
    let material = MultiLabelMaterial {
        labels: label_rows(CLASSES, &sets).expect("rows"),
        keys,
        validation,
        logit_scale: 100.0,
        statistics: None,
    };
    (material, queries, truth)
}

fn made(m: &MultiLabelMaterial) -> MultiLabelMade {
    make(m, &HeadRequest::default(), &|_| true).expect("a head")
}

fn holds(m: &MultiLabelMaterial, queries: &Tensor) -> MultiLabelMade {
    let made = made(m);
    let theirs = ask_raw(&json!({
        "what": "multi_label",
        "keys": rows(&m.keys),
        "targets": rows(&m.labels),
        "held": m.validation.as_ref().map(|(f, y)| (rows(f), rows(y))),
        "standardised": made.spec.standardised == Some(Standardised::Own),
        "features": rows(queries),
    }));
    let expected: Vec<Vec<f64>> = serde_json::from_value(theirs["logits"].clone()).expect("it");
    let logits = plain_logits(&made.spec, &made.tensors, queries).expect("logits");
    for (row, expected) in expected.iter().enumerate() {
        for (class, expected) in expected.iter().enumerate() {
            let ours = logits.double_value(&[row as i64, class as i64]);
            assert!(
                (ours - expected).abs() < 2e-2 * expected.abs().max(1.0),
                "{row} {class}: {ours} {expected}"
            );
        }
    }
    let expected: Vec<f64> = serde_json::from_value(theirs["thresholds"].clone()).expect("it");
    for (ours, expected) in made.thresholds.iter().zip(&expected) {
        assert!((ours - expected).abs() < 5e-3, "{ours} {expected}");
    }
    made
}

#[test]
fn logits_and_thresholds_are_the_references() {
    let (m, queries, _) = drawn(60, 0);
    let head = holds(&m, &queries);
    assert_eq!(head.spec.selection.source, SelectionSource::LeaveOneOut);
    assert_eq!(head.thresholds.len(), CLASSES);
    let (m, queries, _) = drawn(40, 50);
    let head = holds(&m, &queries);
    assert_eq!(head.spec.selection.source, SelectionSource::Validation);
    assert_eq!(head.spec.selection.example_count, 50);
}

#[test]
fn the_head_serves_what_the_formula_says() {
    let (m, queries, _) = drawn(60, 0);
    let made = made(&m);
    assert!(matches!(made.tensors.cache, Some((_, Values::Dense(_)))));
    let head = Head::new(&made.spec, &made.tensors, Device::Cpu).expect("a head");
    let served = head.logits(&queries).expect("logits").to_kind(Kind::Double);
    let formula = plain_logits(&made.spec, &made.tensors, &queries).expect("logits");
    let worst = (served - formula).abs().max().double_value(&[]);
    assert!(worst < 1e-3, "{worst}");
}

#[test]
fn probabilities_are_calibrated_and_labels_found_over_draws() {
    // Claimed and true shares of all decisions, and the F1 that was expected.
    let (mut claimed, mut true_share, mut f1, mut chance, mut map) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for _ in 0..6 {
        let (m, queries, truth) = drawn(80, 0);
        let made = made(&m);
        let logits = plain_logits(&made.spec, &made.tensors, &queries).expect("logits");
        let mut card = LabelEvaluator::new(made.thresholds.clone());
        let mut all = LabelEvaluator::new(vec![0.0; CLASSES]);
        for (row, labels) in truth.iter().enumerate() {
            let row = Vec::<f64>::try_from(logits.get(row as i64)).expect("a row");
            let row: Vec<f32> = row.into_iter().map(|logit| logit as f32).collect();
            claimed += row.iter().map(|&logit| sigmoid(logit)).sum::<f64>();
            true_share += labels.len() as f64;
            card.add(&row, labels);
            all.add(&row, labels);
        }
        f1 += card.finish().micro.f1 / 6.0;
        chance += all.finish().micro.f1 / 6.0;
        map += card.finish().mean_average_precision / 6.0;
    }
    assert!(
        (claimed / true_share - 1.0).abs() < 0.1,
        "{claimed} {true_share}"
    );
    assert!(f1 > chance + 0.2, "{f1} {chance}");
    assert!(map > 0.8, "{map}");
}

#[test]
fn classes_without_or_with_one_example_and_copies_are_taken() {
    let (m, queries, _) = drawn(30, 0);
    // Class 0 of no example, class 1 of one, all keys twice.
    let labels = m.labels.copy();
    let _ = labels.narrow(1, 0, 2).zero_();
    let _ = labels.get(3).narrow(0, 1, 1).fill_(1.0);
    let twice = |t: &Tensor| Tensor::cat(&[t, t], 0);
    let m = MultiLabelMaterial {
        keys: twice(&m.keys),
        labels: twice(&labels),
        ..m
    };
    let made = made(&m);
    let logits = plain_logits(&made.spec, &made.tensors, &queries).expect("logits");
    assert!(bool::try_from(logits.isfinite().all()).expect("it"));
    assert_eq!(made.spec.selection.example_count, 0, "every key has a copy");
    assert!(made.curves.is_empty());
    let single = MultiLabelMaterial {
        keys: m.keys.narrow(0, 0, 30),
        labels: m.labels.narrow(0, 0, 30),
        ..m
    };
    let made = self::made(&single);
    assert_eq!(made.spec.selection.example_count, 30);
    let logits = plain_logits(&made.spec, &made.tensors, &queries).expect("logits");
    let first = logits.select(1, 0).sigmoid().max().double_value(&[]);
    assert!(
        first < 0.2,
        "a class without examples is improbable: {first}"
    );
}

#[test]
fn what_cannot_be_is_refused() {
    let (m, ..) = drawn(20, 0);
    let halves = MultiLabelMaterial {
        labels: &m.labels * 0.5,
        keys: m.keys.copy(),
        validation: None,
        logit_scale: 1.0,
        statistics: None,
    };
    assert!(make(&halves, &HeadRequest::default(), &|_| true).is_err());
    let cancelled = make(&m, &HeadRequest::default(), &|_| false);
    assert!(matches!(cancelled, Err(TipError::Cancelled)));
    assert!(label_rows(3, &[vec![1], vec![3]]).is_err());
}

/// Σ (R_k − R_{k−1})·P_k over thresholds at the distinct scores.
fn average_precision(scores: &[f32], labels: &[bool]) -> f64 {
    let positives = labels.iter().filter(|l| **l).count() as f64;
    let mut distinct = scores.to_vec();
    distinct.sort_by(|a, b| b.total_cmp(a));
    distinct.dedup();
    let (mut recall, mut area) = (0.0, 0.0);
    for threshold in distinct {
        let taken = scores.iter().zip(labels).filter(|(s, _)| **s >= threshold);
        let (taken, right) = taken.fold((0.0, 0.0), |(n, k), (_, l)| {
            (n + 1.0, k + f64::from(u8::from(*l)))
        });
        area += (right / positives - recall) * right / taken;
        recall = right / positives;
    }
    area
}

#[test]
fn figures_are_those_by_hand() {
    let seed = fresh_seed();
    let mut rng = StdRng::seed_from_u64(seed as u64);
    let mut card = LabelEvaluator::new(vec![0.4, 0.6, 0.5]);
    let (mut scores, mut truth) = (vec![Vec::new(); 3], vec![Vec::new(); 3]);
    let mut entropy = 0.0;
    for _ in 0..200 {
        // Coarse, so that there are ties; class 2 has no item.
        let logits: Vec<f32> = (0..3)
            .map(|_| rng.random_range(-6..6) as f32 / 2.0)
            .collect();
        let labels: Vec<usize> = (0..2).filter(|_| rng.random_bool(0.3)).collect();
        for class in 0..3 {
            let is_of = labels.contains(&class);
            scores[class].push(logits[class]);
            truth[class].push(is_of);
            let own = if is_of { logits[class] } else { -logits[class] };
            entropy += (1.0 + (-f64::from(own)).exp()).ln() / 600.0;
        }
        card.add(&logits, &labels);
    }
    let found = card.finish();
    assert_eq!(found.count, 200);
    assert!((found.cross_entropy - entropy).abs() < 1e-9);
    let mut precisions = Vec::new();
    for class in 0..2 {
        let expected = average_precision(&scores[class], &truth[class]);
        assert!((found.classes[class].average_precision - expected).abs() < 1e-9);
        precisions.push(expected);
    }
    let mean = precisions.iter().sum::<f64>() / 2.0;
    assert!(
        (found.mean_average_precision - mean).abs() < 1e-9,
        "class 2 does not count"
    );
    let threshold = [0.4, 0.6, 0.5];
    let (mut right, mut taken, mut positives) = (0.0, 0.0, 0.0);
    for class in 0..3 {
        for (score, is_of) in scores[class].iter().zip(&truth[class]) {
            let answered = sigmoid(*score) >= threshold[class];
            taken += f64::from(u8::from(answered));
            positives += f64::from(u8::from(*is_of));
            right += f64::from(u8::from(answered && *is_of));
        }
    }
    assert!((found.micro.f1 - 2.0 * right / (taken + positives)).abs() < 1e-12);
    assert!((found.micro.precision - right / taken).abs() < 1e-12);
}
