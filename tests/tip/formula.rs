//! The formula of the head itself, and the temperature.

use serde_json::json;
use tch::{Device, Kind, Tensor};
use tip_adapter::temperature::{cross_entropy, fit_temperature};

use crate::{
    random::fresh_seed,
    reference::{ask_raw, rows},
};

#[test]
fn temperature_has_the_least_cross_entropy() {
    fresh_seed();
    let logits = Tensor::randn([60, 7], (Kind::Double, Device::Cpu)) * 30.0;
    let labels = Tensor::randint(7, [60], (Kind::Int64, Device::Cpu));
    // Half of the labels right, so that there is something to fit.
    let labels = labels.where_self(
        &Tensor::rand([60], (Kind::Double, Device::Cpu)).lt(0.5),
        &logits.argmax(1, false),
    );
    let ours = fit_temperature(&logits, &labels).unwrap();
    let theirs = ask_raw(&json!({
        "what": "temperature",
        "features": rows(&logits),
        "feature_labels": Vec::<i64>::try_from(&labels).unwrap(),
    }));
    let (temperature, loss) = (
        theirs["temperature"].as_f64().unwrap(),
        theirs["cross_entropy"].as_f64().unwrap(),
    );
    assert!(
        (ours.temperature / temperature - 1.0).abs() < 1e-3,
        "{ours:?} {temperature}"
    );
    assert!((ours.cross_entropy - loss).abs() < 1e-6, "{ours:?} {loss}");
    assert!(ours.cross_entropy <= cross_entropy(&logits, &labels, 1.0).unwrap());
}

#[test]
fn temperature_is_finite_where_all_is_right_or_equal() {
    fresh_seed();
    let logits = Tensor::randn([20, 4], (Kind::Float, Device::Cpu));
    let right = fit_temperature(&logits, &logits.argmax(1, false)).unwrap();
    assert!(
        right.temperature.is_finite() && right.temperature > 1e-6,
        "{right:?}"
    );
    let equal = fit_temperature(&logits.zeros_like(), &logits.argmax(1, false)).unwrap();
    assert_eq!(equal.temperature, 1.0);
    let none = Tensor::zeros([0, 4], (Kind::Float, Device::Cpu));
    let labels = Tensor::zeros([0], (Kind::Int64, Device::Cpu));
    assert_eq!(fit_temperature(&none, &labels).unwrap().temperature, 1.0);
}
