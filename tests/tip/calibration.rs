//! The temperatures of named methods.

use serde_json::json;
use tip_adapter::make::{HeadRequest, make};
use tip_spec::Method;

use crate::{
    random::{Shape, fresh_seed, material},
    reference::ask,
};

/// Made with these numbers, a head has the reference's temperature.
fn holds(shots: i64, text: bool, method: Method) {
    let shape = Shape {
        shots: vec![shots; 6],
        width: 24,
        text,
        views: None,
        validation: 0,
    };
    let (m, _) = material(&shape);
    let (alpha, beta, lambda) = match method {
        Method::TipAdapter => (Some(1.7), Some(4.2), None),
        Method::Proker => (Some(1.3), Some(1.5), Some(0.2)),
        _ => (Some(0.9), None, None),
    };
    let request = HeadRequest {
        method: Some(method),
        alpha,
        beta,
        lambda,
        ..HeadRequest::default()
    };
    let made = make(&m, &request, &|_| true).expect("a head");
    let mut numbers = json!({"alpha": alpha});
    for (name, value) in [("beta", beta), ("lam", lambda)] {
        if let Some(value) = value {
            numbers[name] = json!(value);
        }
    }
    let more = json!({"what": "calibration", "method": method, "numbers": numbers});
    let theirs = ask(&m, None, &more)["temperature"].as_f64().expect("T");
    // Without text α only scales: what is left of T is in α.
    let ours = made.spec.temperature;
    assert!(
        (ours / theirs - 1.0).abs() < 1e-3,
        "{method:?}, {shots} shots, text {text}: {ours} {theirs}"
    );
}

#[test]
fn text_and_term_each_have_their_temperature_and_noise_falls_with_the_shots() {
    fresh_seed();
    let methods = [
        Method::TipAdapter,
        Method::Gda,
        Method::Proker,
        Method::ClassMean,
    ];
    for method in methods {
        for text in [false, true] {
            for shots in [1, 3] {
                holds(shots, text, method);
            }
        }
    }
}
