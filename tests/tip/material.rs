//! Keys from views, and what is refused.

use tch::{Device, Kind, Tensor};
use tip_adapter::{
    error::TipError,
    make::{HeadRequest, make},
    material::{Material, build_keys},
};
use tip_spec::SearchGrid;

use crate::random::{Shape, fresh_seed, material, unit};

const OPTIONS: (Kind, Device) = (Kind::Float, Device::Cpu);

fn valid() -> Material {
    material(&Shape {
        shots: vec![2, 3],
        width: 6,
        text: true,
        views: Some(2),
        validation: 4,
    })
    .0
}

fn refused(material: &Material) -> String {
    make(material, &HeadRequest::default(), &|_| true)
        .unwrap_err()
        .to_string()
}

#[test]
fn keys_are_the_mean_of_raw_views_normalised_once() {
    fresh_seed();
    // Views of very different lengths: normalising each first would differ.
    let views = Tensor::randn([5, 3, 8], OPTIONS)
        * Tensor::from_slice(&[1f32, 10.0, 100.0]).reshape([1, 3, 1]);
    let keys = build_keys(&views).unwrap();
    let expected = unit(&views.to_kind(Kind::Double).mean_dim(
        Some([1i64].as_slice()),
        false,
        Kind::Double,
    ));
    assert!((keys - expected).abs().max().double_value(&[]) < 1e-6);
    let half = build_keys(&views.to_kind(Kind::Half)).unwrap();
    assert_eq!(half.kind(), Kind::Float);
}

#[test]
fn views_that_cancel_out_are_refused() {
    let one = Tensor::ones([1, 1, 4], OPTIONS);
    let views = Tensor::cat(&[one.shallow_clone(), -one], 1);
    assert!(matches!(
        build_keys(&views),
        Err(TipError::NoDirection { row: 0, .. })
    ));
    let bad = Tensor::full([1, 2, 4], f64::NAN, OPTIONS);
    assert!(matches!(
        build_keys(&bad),
        Err(TipError::NotFinite { row: 0, .. })
    ));
}

#[test]
fn errors_name_the_thing_the_value_and_the_limit() {
    fresh_seed();
    valid().check().unwrap();

    let mut m = valid();
    m.labels = m.labels.index_fill(0, &Tensor::from_slice(&[3i64]), 2);
    assert_eq!(
        refused(&m),
        "label of key 3 is 2, but there are 2 classes (0 to 2 exclusive)"
    );

    let mut m = valid();
    m.text = Some(unit(&Tensor::randn([2, 7], OPTIONS)));
    assert_eq!(
        refused(&m),
        "text weights has shape [2, 7], expected [2, 6]"
    );

    let mut m = valid();
    m.keys *= 2.0;
    assert!(
        refused(&m).starts_with("key 0 has length 2.0"),
        "{}",
        refused(&m)
    );

    let mut m = valid();
    m.keys = m
        .keys
        .index_fill(0, &Tensor::from_slice(&[1i64]), f64::INFINITY);
    assert_eq!(refused(&m), "key 1 holds a value that is not finite");

    let mut m = valid();
    m.views = Some(Tensor::randn([4, 2, 6], OPTIONS));
    assert_eq!(refused(&m), "views has shape [4, 2, 6], expected [5, R, 6]");

    let mut m = valid();
    m.classes = 0;
    assert_eq!(refused(&m), "there are no classes");

    let mut m = valid();
    m.logit_scale = f64::NAN;
    assert!(refused(&m).starts_with("logit_scale is NaN"));

    let m = Material {
        keys: Tensor::zeros([0, 6], OPTIONS),
        labels: Tensor::zeros([0], (Kind::Int64, Device::Cpu)),
        classes: 2,
        views: None,
        text: None,
        validation: None,
        logit_scale: 100.0,
        statistics: None,
        unlabelled: None,
    };
    assert_eq!(
        refused(&m),
        "there are no examples and no text weights: nothing to classify by"
    );

    let wrong = HeadRequest {
        alpha: Some(0.0),
        ..HeadRequest::default()
    };
    let error = make(&valid(), &wrong, &|_| true).unwrap_err().to_string();
    assert_eq!(error, "alpha is 0, expected a finite number over 0");
    let grid = SearchGrid::Official {
        beta_scale: 1e9,
        alpha_scale: 1.0,
    };
    let wrong = HeadRequest {
        grid,
        ..HeadRequest::default()
    };
    let error = make(&valid(), &wrong, &|_| true).unwrap_err().to_string();
    assert_eq!(
        error,
        "beta_scale is 1000000000, expected a number over 0 and at most 1000"
    );
}
