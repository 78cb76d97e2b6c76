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

#[test]
fn without_text_beta_is_the_calmest_that_is_not_clearly_worse() {
    for shots in [vec![2; 5], vec![4; 12], vec![3, 8, 1, 5, 2, 6]] {
        fresh_seed();
        let shape = Shape {
            shots,
            width: 24,
            text: false,
            views: None,
            validation: 0,
        };
        let (m, _) = material(&shape);
        let request = HeadRequest {
            method: Some(Method::TipAdapter),
            ..HeadRequest::default()
        };
        let made = make(&m, &request, &|_| true).expect("a head");
        let theirs = ask(&m, None, &json!({"what": "calm_beta"}));
        let expected = theirs["beta"].as_f64().expect("β");
        assert_eq!(made.spec.beta, expected, "{theirs}");
    }
}

/// One of two shots of each class lies beside the other: what is left out is always
/// right, by far, and says nothing of pictures that lie less near.
#[test]
fn a_few_examples_that_are_all_right_make_no_boundless_logits() {
    for _ in 0..8 {
        fresh_seed();
        let (m, queries) = material(&Shape {
            shots: vec![2; 4],
            width: 48,
            text: false,
            views: None,
            validation: 0,
        });
        let noise = tch::Tensor::randn_like(&m.keys) * 0.02;
        let keys = m.keys.copy();
        let rows = Vec::<i64>::try_from(&m.labels).expect("labels");
        for (row, label) in rows.iter().enumerate() {
            let twin = rows.iter().position(|other| other == label).expect("a row");
            let near = keys.get(twin as i64) + noise.get(row as i64);
            keys.get(row as i64).copy_(&(&near / near.norm()));
        }
        let m = tip_adapter::material::Material { keys, ..m };
        let request = HeadRequest {
            method: Some(Method::TipAdapter),
            ..HeadRequest::default()
        };
        let made = make(&m, &request, &|_| true).expect("a head");
        let logits = tip_adapter::formula::plain_logits(&made.spec, &made.tensors, &queries);
        let logits = logits.expect("logits") / made.spec.temperature;
        let most = logits.abs().max().double_value(&[]);
        assert!(
            most < 1e3,
            "β {}, α {}: {most}",
            made.spec.beta,
            made.spec.alpha
        );
    }
}
