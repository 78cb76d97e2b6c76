//! Thresholds for a precision that is named, class by class.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tch::{Device, Kind, Tensor};
use tip_adapter::{
    formula::plain_logits,
    make::{HeadRequest, make},
    material::Material,
    precision::PrecisionCurve,
};

use super::random::{Shape, fresh_seed, material};

#[test]
fn the_threshold_is_the_lowest_that_is_expected_to_hold() {
    let seed = fresh_seed();
    let mut rng = StdRng::seed_from_u64(seed as u64);
    // Right and claimed answers are twentieths: just over 0.8 none is at the border,
    // where the order of a sum decides.
    let asked = 0.8 + 1e-7;
    for _ in 0..50 {
        let answers: Vec<(f64, bool)> = (0..rng.random_range(1..30))
            .map(|_| {
                let p = f64::from(rng.random_range(1..20)) / 20.0;
                (p, rng.random_bool(p))
            })
            .collect();
        let positives = answers.iter().filter(|answer| answer.1).count() as u32 + 3;
        let curve = PrecisionCurve::of(answers.clone(), positives);
        let found = curve.threshold(asked);
        let expected = |threshold: f64| {
            let taken = answers.iter().filter(|answer| answer.0 >= threshold);
            let (n, k, claimed) = taken.fold((0.0, 0.0, 0.0), |(n, k, c), (p, right)| {
                (n + 1.0, k + f64::from(u8::from(*right)), c + p)
            });
            ((k + 20.0 * claimed / f64::max(n, 1.0)) / (n + 20.0), n, k)
        };
        let mut held: Vec<f64> = answers.iter().map(|answer| answer.0).collect();
        held.retain(|threshold| expected(*threshold).0 >= asked);
        match held.into_iter().min_by(f64::total_cmp) {
            Some(threshold) => {
                let (precision, taken, right) = expected(threshold);
                assert_eq!(found.threshold, threshold);
                assert!((found.precision - precision).abs() < 1e-12);
                assert_eq!(f64::from(found.taken), taken);
                assert!((found.recall - right / f64::from(positives)).abs() < 1e-12);
                assert!(found.low < found.precision.max(right / taken));
            }
            None => assert!(found.taken == 0 && found.low == 0.0 && !found.is_borne_out(asked)),
        }
    }
    // 59 right answers bear 0.95 out, 10 do not.
    let sure = |count: usize| PrecisionCurve::of(vec![(0.99, true); count], count as u32);
    assert!(sure(59).threshold(0.95).is_borne_out(0.95));
    assert!(!sure(10).threshold(0.95).is_borne_out(0.95));
    // The surest answers were wrong: nothing can be accepted.
    let wrong = PrecisionCurve::of(vec![(0.99, false); 40], 40).threshold(0.9);
    assert!(wrong.threshold > 1.0);
    // Nobody was taken for the class: what the head claims counts.
    assert_eq!(
        PrecisionCurve::of(Vec::new(), 5).threshold(0.9).threshold,
        0.9
    );
}

#[test]
fn accepted_answers_have_the_precision_over_draws() {
    let (mut right, mut accepted, mut all, mut all_right) = (0.0, 0.0, 0.0, 0.0);
    for _ in 0..96 {
        fresh_seed();
        let (pool, _) = material(&Shape {
            shots: vec![60; 6],
            width: 8,
            text: false,
            views: None,
            validation: 0,
        });
        let rows = |from: i64, count: i64| Tensor::arange(count, (Kind::Int64, Device::Cpu)) + from;
        let (test, labels) = (
            pool.keys.index_select(0, &rows(120, 240)),
            pool.labels.index_select(0, &rows(120, 240)),
        );
        let train = Material {
            keys: pool.keys.index_select(0, &rows(0, 120)),
            labels: pool.labels.index_select(0, &rows(0, 120)),
            ..pool
        };
        let head = make(&train, &HeadRequest::default(), &|_| true).expect("a head");
        let curves = head
            .unseen
            .as_ref()
            .expect("answers")
            .curves(6)
            .expect("curves");
        let thresholds: Vec<f64> = curves.iter().map(|c| c.threshold(0.9).threshold).collect();
        let logits = plain_logits(&head.spec, &head.tensors, &test).expect("logits");
        let (probability, predicted) = (logits / head.spec.temperature)
            .softmax(1, Kind::Double)
            .max_dim(1, false);
        for row in 0..240 {
            let class = predicted.int64_value(&[row]);
            let is_right = f64::from(u8::from(class == labels.int64_value(&[row])));
            all += 1.0;
            all_right += is_right;
            if probability.double_value(&[row]) >= thresholds[class as usize] {
                accepted += 1.0;
                right += is_right;
            }
        }
    }
    let (plain, precision, share) = (all_right / all, right / accepted, accepted / all);
    println!("{plain} {precision} {share}");
    assert!(plain < 0.9, "else there is nothing to show: {plain}");
    assert!(
        // 0.875 on average; six standard deviations of such a mean are 0.043.
        precision > 0.83 && precision > plain + 0.1,
        "{precision} of {share}"
    );
    assert!(share > 0.14, "{share}");
}
