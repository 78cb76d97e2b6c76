//! Evaluation against the reference, batch by batch.

use serde_json::json;
use tch::{Device, Kind, Tensor};
use tip_adapter::evaluate::Evaluator;

use crate::{
    random::fresh_seed,
    reference::{ask_raw, rows},
};

#[test]
fn figures_are_the_references_however_the_items_arrive() {
    fresh_seed();
    for classes in [3i64, 9] {
        let logits = Tensor::randn([200, classes], (Kind::Double, Device::Cpu)) * 2.0;
        let labels = Tensor::randint(classes, [200], (Kind::Int64, Device::Cpu));
        let labels = labels.where_self(
            &Tensor::rand([200], (Kind::Double, Device::Cpu)).lt(0.4),
            &logits.argmax(1, false),
        );
        let temperature = 1.6;
        let mut evaluator = Evaluator::new(classes as usize);
        let mut start = 0;
        for length in [1, 50, 0, 149] {
            let part = logits.narrow(0, start, length);
            evaluator
                .add(&part, &labels.narrow(0, start, length), temperature)
                .unwrap();
            start += length;
        }
        let ours = evaluator.finish();
        let theirs = ask_raw(&json!({
            "what": "evaluate",
            "classes": classes,
            "features": rows(&(&logits / temperature)),
            "feature_labels": Vec::<i64>::try_from(&labels).unwrap(),
        }));
        let near = |value: f64, key: &str| {
            let expected = theirs[key].as_f64().unwrap();
            assert!(
                (value - expected).abs() < 1e-9,
                "{key}: {value} against {expected}"
            );
        };
        assert_eq!(ours.count, 200);
        near(ours.top1, "top1");
        near(ours.top5, "top5");
        near(ours.cross_entropy, "cross_entropy");
        near(
            ours.expected_calibration_error,
            "expected_calibration_error",
        );
        assert_eq!(json!(ours.confusion), theirs["confusion"]);
        let total: u64 = ours.per_class.iter().map(|class| class.count).sum();
        assert_eq!(total, 200);
    }
}

#[test]
fn a_bad_batch_is_refused_whole() {
    let mut evaluator = Evaluator::new(3);
    let logits = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
    assert!(
        evaluator
            .add(&logits, &Tensor::from_slice(&[0i64, 3]), 1.0)
            .is_err()
    );
    assert!(
        evaluator
            .add(&logits, &Tensor::from_slice(&[0i64]), 1.0)
            .is_err()
    );
    assert_eq!(evaluator.finish().count, 0);
    assert_eq!(evaluator.finish().top1, 0.0);
}
