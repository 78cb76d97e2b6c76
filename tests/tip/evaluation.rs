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

#[test]
fn a_confusion_takes_no_memory_that_grows_with_the_square_of_many_classes() {
    // The square of the most classes that a server takes by default would be
    // 80 GB of counts.
    const CLASSES: usize = 100_000;
    let mut evaluator = Evaluator::new(CLASSES);
    let labels = [7_i64, 99_999];
    for label in labels {
        let logits = Tensor::zeros([1, CLASSES as i64], (Kind::Float, Device::Cpu));
        let _ = logits.get(0).get(99_999).fill_(1.0);
        let label = Tensor::from_slice(&[label]);
        evaluator.add(&logits, &label, 1.0).unwrap();
    }
    let found = evaluator.finish();
    assert_eq!((found.count, found.top1), (2, 0.5));
    assert_eq!(found.per_class[99_999].accuracy, 1.0);
    assert_eq!(found.per_class[7].count, 1);
    assert!(found.confusion.is_empty());
}
