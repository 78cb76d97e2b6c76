//! What a head does not know: scores of unseen examples, and how they tell.

use rand::Rng as _;
use serde_json::json;
use tch::{Device, Kind, Tensor};
use tip_adapter::{
    formula::plain_logits,
    make::{HeadRequest, make},
    material::Material,
    spec::Method,
    unknown::UnknownScores,
};

use super::{
    analysis::request,
    random::{Shape, fresh_seed, material},
    reference::{ask, logits, matrix},
};

fn shape(shots: i64, validation: i64) -> Shape {
    Shape {
        shots: vec![shots; 6],
        width: 24,
        text: false,
        views: None,
        validation,
    }
}

/// log Σ exp, and the probability of each row's class, in ascending order.
fn sorted_scores(logits: &Tensor, labels: &Tensor) -> (Vec<f64>, Vec<f64>) {
    let known = logits.logsumexp([1i64].as_slice(), false);
    let own = logits
        .softmax(1, Kind::Double)
        .gather(1, &labels.unsqueeze(1), false);
    let values = |t: &Tensor| {
        Vec::<f64>::try_from(t.flatten(0, -1).to_kind(Kind::Double).sort(0, false).0).expect("it")
    };
    (values(&known), values(&own))
}

fn holds(percentiles: &[f64], values: &[f64], below_all: f64) {
    assert_eq!(percentiles.len(), 101);
    for (percent, value) in percentiles.iter().enumerate() {
        let rank = percent * (values.len() + 1) / 100;
        let expected = match rank {
            0 => below_all,
            rank => values[(rank - 1).min(values.len() - 1)],
        };
        assert!(
            (value - expected).abs() < 2e-3 * expected.abs().max(1.0),
            "{percent}: {value}"
        );
    }
}

#[test]
fn scores_of_unseen_examples_are_the_references() {
    for method in [
        None,
        Some(Method::Proker),
        Some(Method::Gda),
        Some(Method::ClassMean),
    ] {
        fresh_seed();
        let (m, queries) = material(&shape(5, 0));
        let asked = HeadRequest {
            method,
            ..HeadRequest::default()
        };
        let made = make(&m, &asked, &|_| true).expect("a head");
        let unseen = made.spec.unseen.as_ref().expect("scores");
        let theirs = ask(&m, Some(&queries), &request("left_out", &made.spec));
        let keys: Vec<i64> = serde_json::from_value(theirs["keys"].clone()).expect("keys");
        let labels = m.labels.index_select(0, &Tensor::from_slice(&keys));
        // AUTO's are those of new pictures.
        let scored = match method {
            None => matrix(&theirs["as_new"]),
            Some(_) => logits(&theirs),
        };
        let (known, own) = sorted_scores(&scored, &labels);
        assert_eq!(unseen.count, keys.len());
        holds(&unseen.known, &known, f64::MIN);
        holds(&unseen.own, &own, 0.0);
    }
}

#[test]
fn validation_examples_are_scored_where_there_are_some() {
    fresh_seed();
    let (m, _) = material(&shape(4, 80));
    let made = make(&m, &HeadRequest::default(), &|_| true).expect("a head");
    let (features, labels) = m.validation.as_ref().expect("validation");
    let logits = plain_logits(&made.spec, &made.tensors, features).expect("logits");
    let (known, own) = sorted_scores(&(logits / made.spec.temperature), labels);
    let unseen = made.spec.unseen.as_ref().expect("scores");
    assert_eq!(unseen.count, 80);
    holds(&unseen.known, &known, f64::MIN);
    holds(&unseen.own, &own, 0.0);
}

#[test]
fn a_share_of_what_is_known_is_accepted_and_sets_cover_over_draws() {
    // New pictures of known classes, over draws of the shots.
    let (mut accepted, mut covered, mut all) = (0.0, 0.0, 0.0);
    for _ in 0..36 {
        fresh_seed();
        let (pool, _) = material(&Shape {
            width: 10,
            ..shape(40, 0)
        });
        let rank = |row: i64| Tensor::arange(row, (Kind::Int64, Device::Cpu));
        let pick = |rows: Tensor| Material {
            keys: pool.keys.index_select(0, &rows),
            labels: pool.labels.index_select(0, &rows),
            classes: pool.classes,
            views: None,
            text: None,
            validation: None,
            logit_scale: pool.logit_scale,
            statistics: None,
            unlabelled: None,
        };
        let (train, test) = (pick(rank(90)), pick(rank(150) + 90));
        let made = make(&train, &HeadRequest::default(), &|_| true).expect("a head");
        let unseen = made.spec.unseen.as_ref().expect("scores");
        let threshold = unseen.threshold(0.9).expect("a threshold");
        let least = unseen.least_probability(0.9).expect("a probability");
        let logits = plain_logits(&made.spec, &made.tensors, &test.keys).expect("logits");
        let known = logits.logsumexp([1i64].as_slice(), false);
        let own = logits
            .softmax(1, Kind::Double)
            .gather(1, &test.labels.unsqueeze(1), false);
        let count = |t: Tensor| t.to_kind(Kind::Double).sum(Kind::Double).double_value(&[]);
        accepted += count(known.ge(threshold));
        covered += count(own.ge(least));
        all += test.labels.numel() as f64;
    }
    // Six standard deviations of such means about 0.914 and 0.897.
    for share in [accepted / all, covered / all] {
        assert!((0.85..0.96).contains(&share), "{share}");
    }
}

#[test]
fn two_shots_suffice_for_a_threshold() {
    let (mut accepted, mut known, mut rejected, mut strange) = (0.0, 0.0, 0.0, 0.0);
    for _ in 0..30 {
        fresh_seed();
        // Twelve classes with two shots each, and six unknown ones.
        let (pool, _) = material(&Shape {
            shots: vec![32; 18],
            width: 64,
            ..shape(0, 0)
        });
        let labels = Vec::<i64>::try_from(&pool.labels).expect("labels");
        let (mut keys, mut own, mut others) = (Vec::new(), Vec::new(), Vec::new());
        let mut taken = [0; 12];
        for (row, &label) in labels.iter().enumerate() {
            match taken.get_mut(label as usize) {
                Some(taken) if *taken < 2 => {
                    *taken += 1;
                    keys.push(row as i64);
                }
                Some(_) => own.push(row as i64),
                None => others.push(row as i64),
            }
        }
        let rows = |rows: &[i64]| pool.keys.index_select(0, &Tensor::from_slice(rows));
        let train = Material {
            keys: rows(&keys),
            labels: pool.labels.index_select(0, &Tensor::from_slice(&keys)),
            classes: 12,
            views: None,
            text: None,
            validation: None,
            logit_scale: pool.logit_scale,
            statistics: None,
            unlabelled: None,
        };
        let made = make(&train, &HeadRequest::default(), &|_| true).expect("a head");
        let unseen = made.spec.unseen.as_ref().expect("scores");
        let threshold = unseen.threshold(0.9).expect("a threshold");
        let over = |features: &Tensor| {
            let logits = plain_logits(&made.spec, &made.tensors, features).expect("logits");
            let energy = (logits / made.spec.temperature).logsumexp([1i64].as_slice(), false);
            let passed = energy.ge(threshold).to_kind(Kind::Double);
            passed.sum(Kind::Double).double_value(&[])
        };
        accepted += over(&rows(&own));
        known += own.len() as f64;
        rejected += others.len() as f64 - over(&rows(&others));
        strange += others.len() as f64;
    }
    let (accepted, rejected) = (accepted / known, rejected / strange);
    // Asked for: 0.9. Shares of 30 draws differ by 0.012 and 0.05; before the scores
    // were those of new pictures, nothing was rejected.
    println!("{accepted} {rejected}");
    assert!(accepted > 0.87 && rejected > 0.1, "{accepted} {rejected}");
}

#[test]
fn figures_are_those_of_all_pairs() {
    let seed = fresh_seed();
    let mut rng = rand::rng();
    let mut scores = UnknownScores::default();
    assert_eq!(scores.figures(), None);
    // Coarse, so that there are ties.
    let mut draw = |shift: i32| f64::from(rng.random_range(0..40) + shift);
    let known: Vec<f64> = (0..200).map(|_| draw(8)).collect();
    let unknown: Vec<f64> = (0..120).map(|_| draw(0)).collect();
    for (at, &score) in known.iter().enumerate() {
        scores.known(score, at % 4 != 0);
    }
    for &score in &unknown {
        scores.unknown(score);
    }
    let found = scores.figures().expect("figures");
    let mut higher = 0.0;
    for k in &known {
        for u in &unknown {
            higher += if k > u {
                1.0
            } else if k == u {
                0.5
            } else {
                0.0
            };
        }
    }
    assert!(
        (found.auroc - higher / 24_000.0).abs() < 1e-12,
        "{} {seed}",
        json!(found.auroc)
    );
    let mut sorted = known.clone();
    sorted.sort_by(f64::total_cmp);
    let reach = sorted[200 - 190];
    let taken = unknown.iter().filter(|score| **score >= reach).count();
    assert_eq!(found.false_positive_rate, taken as f64 / 120.0);
    let at = scores.at(20.0);
    let accepted = known.iter().filter(|score| **score >= 20.0).count();
    assert_eq!(at.accepted, accepted as f64 / 200.0);
    assert_eq!(
        at.rejected,
        unknown.iter().filter(|score| **score < 20.0).count() as f64 / 120.0
    );
}
