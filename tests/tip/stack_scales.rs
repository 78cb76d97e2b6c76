//! Which scale AUTO's features are on: as they are, or standardised.

use serde_json::json;
use tch::{Device, Kind, Tensor};
use tip_adapter::{
    spec::{Candidate, Method, Standardised},
    standardise::Statistics,
};

use super::{
    random::{Shape, fresh_seed, material, unit},
    stack::{auto, holds, shape},
};

#[test]
fn the_bundles_statistics_standardise_features() {
    fresh_seed();
    let (mut m, queries) = material(&shape(vec![3; 8], true));
    let pictures = unit(&(Tensor::randn([200, 40], (Kind::Float, Device::Cpu)) + 0.7));
    let statistics = Statistics::of(&pictures).expect("statistics");
    let listed = |t: &Tensor| Vec::<f64>::try_from(t.to_kind(Kind::Double)).expect("numbers");
    let more = json!({"mean": listed(&statistics.mean), "variance": listed(&statistics.variance)});
    m.statistics = Some(statistics);
    let made = holds(&m, &queries, more);
    assert_eq!(made.spec.standardised, Some(Standardised::Bundle));
}

/// Where nothing can be scored, features are standardised if all dimensions
/// tell something alike: a few that vary among many that do not are left alone.
#[test]
fn at_one_shot_even_dimensions_are_standardised() {
    fresh_seed();
    let float = (Kind::Float, Device::Cpu);
    let (mut m, _) = material(&shape(vec![1; 16], false));
    m.keys = unit(&(Tensor::randn([16, 40], float) + 1.0));
    assert_eq!(auto(&m).spec.standardised, Some(Standardised::Own));

    let quiet = Tensor::ones([40], float) * 0.03;
    let _ = quiet.narrow(0, 0, 8).fill_(1.0);
    m.keys = unit(&(&m.keys * quiet));
    assert_eq!(auto(&m).spec.standardised, None);
}

/// From four shots on, the ridges of features whose dimensions vary unevenly fall.
#[test]
fn ridges_of_uneven_features_fall_with_the_shots() {
    let float = (Kind::Float, Device::Cpu);
    for (shots, lambda) in [(3, 0.1), (4, 0.1), (8, 0.05), (20, 0.025)] {
        // Left-out examples may overrule the scale, seldom.
        let made = (0..10).find_map(|_| {
            fresh_seed();
            let (mut m, queries) = material(&Shape {
                width: 8,
                ..shape(vec![shots; 5], false)
            });
            let quiet = |rows: &Tensor| Tensor::randn([rows.size()[0], 32], float) * 0.01;
            let wider = |rows: &Tensor| unit(&Tensor::cat(&[rows, &quiet(rows)], 1));
            m.keys = wider(&m.keys);
            let made = holds(&m, &wider(&queries), json!({}));
            made.spec.standardised.is_none().then_some(made)
        });
        let made = made.expect("plain features in one of ten draws");
        assert!((made.spec.lambda - lambda).abs() < 1e-12, "{shots} shots");
    }
    fresh_seed();
    let (m, queries) = material(&shape(vec![8; 6], false));
    let made = holds(&m, &queries, json!({}));
    if made.spec.standardised.is_some() {
        assert_eq!(made.spec.lambda, 0.1);
    }
}

/// Two dimensions shout and tell nothing: plain cosines hear little else.
#[test]
fn left_out_examples_overrule_how_even_dimensions_are() {
    fresh_seed();
    let float = (Kind::Float, Device::Cpu);
    let (mut m, _) = material(&shape(vec![6; 12], false));
    let loud = Tensor::zeros(m.keys.size(), float);
    let mut rows = loud.narrow(1, 0, 2);
    rows.copy_(&(Tensor::randn([72, 2], float) * 1.5));
    m.keys = unit(&(&m.keys + loud));
    let made = auto(&m);
    assert_eq!(
        made.spec.standardised,
        Some(Standardised::Own),
        "{:?}",
        made.spec.selection
    );
    let stacks: Vec<&Candidate> = (made.spec.selection.candidates.iter())
        .filter(|c| c.method == Method::Stack)
        .collect();
    assert!(
        stacks[0].cross_entropy < stacks[1].cross_entropy,
        "{stacks:?}"
    );
}
