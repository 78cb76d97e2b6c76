//! AUTO: the stack of text, GDA and kernel ridge regression.

use serde_json::json;
use tch::{Device, Kind, Tensor};
use tip_adapter::{
    evaluate::Evaluator,
    formula::plain_logits,
    head::Head,
    make::{HeadRequest, Made, make},
    material::Material,
    spec::{Candidate, Method, SelectionSource, Standardised},
    temperature::cross_entropy,
};

use super::{
    random::{Shape, fresh_seed, material, unit},
    reference::{ask, logits},
};

pub fn auto(m: &Material) -> Made {
    make(m, &HeadRequest::default(), &|_| true).expect("a head")
}

fn part(made: &Made, method: Method) -> Option<&Candidate> {
    (made.spec.selection.candidates.iter()).find(|c| c.method == method && c.weight.is_some())
}

fn whose(made: &Made) -> Option<&'static str> {
    made.spec.standardised.map(|whose| match whose {
        Standardised::Own => "own",
        Standardised::Bundle => "bundle",
    })
}

/// Makes the head and holds temperatures, weights, scores and logits against
/// the reference.
pub fn holds(m: &Material, queries: &Tensor, mut more: serde_json::Value) -> Made {
    let made = auto(m);
    more["what"] = json!("stack");
    more["standardised"] = json!(whose(&made));
    let theirs = ask(m, Some(queries), &more);
    for (method, name) in [
        (Method::Gda, "gda"),
        (Method::Proker, "proker"),
        (Method::ZeroShot, "zero_shot"),
    ] {
        let ours = part(&made, method);
        let expected = theirs["parts"].get(name);
        assert_eq!(ours.is_some(), expected.is_some(), "{name}: {ours:?}");
        let (Some(ours), Some(expected)) = (ours, expected) else {
            continue;
        };
        let pair = |at: usize| expected[at].as_f64().expect("a number");
        let temperature = ours.temperature.expect("a temperature");
        let close = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-3;
        assert!(
            close(temperature, pair(0)),
            "{name}: T {temperature} {expected}"
        );
        assert!(
            close(ours.weight.expect("a weight"), pair(1)),
            "{name}: {ours:?} {expected}"
        );
        if let Some(entropy) = theirs["entropies"][name].as_f64() {
            assert!(
                (ours.cross_entropy - entropy).abs() < 1e-4,
                "{name}: {entropy}"
            );
        }
    }
    let first = &made.spec.selection.candidates[0];
    assert_eq!(
        (made.spec.method, first.method),
        (Method::Stack, Method::Stack)
    );
    assert_eq!(made.spec.temperature, 1.0);
    if let Some(entropy) = theirs["cross_entropy"].as_f64() {
        assert!(
            (first.cross_entropy - entropy).abs() < 1e-4,
            "{entropy} {first:?}"
        );
        let accuracy = theirs["accuracy"].as_f64().expect("an accuracy");
        assert!(
            (first.accuracy - accuracy).abs() < 1e-9,
            "{accuracy} {first:?}"
        );
        let count = theirs["count"].as_u64().expect("a count");
        assert_eq!(made.spec.selection.example_count as u64, count);
    }
    let expected = logits(&theirs);
    let ours = plain_logits(&made.spec, &made.tensors, queries).expect("logits");
    let shown = expected.gt(-1e5);
    let off = (ours.softmax(1, Kind::Double) - expected.softmax(1, Kind::Double)).abs();
    assert!(
        off.max().double_value(&[]) < 2e-3,
        "probabilities differ by {off}"
    );
    let off = ((&ours - &expected) * shown).abs() / expected.abs().clamp_min(1.0);
    assert!(off.clamp_max(1.0).mean(Kind::Double).double_value(&[]) < 2e-3);
    let head = Head::new(&made.spec, &made.tensors, Device::Cpu).expect("a head");
    let served = head.logits(queries).expect("logits");
    let told = ours.gt(-1e4);
    let off = ((served - ours) * told).abs().max().double_value(&[]);
    assert!(off < 1e-3, "served logits differ by {off}");
    made
}

pub fn shape(shots: Vec<i64>, text: bool) -> Shape {
    Shape {
        shots,
        width: 40,
        text,
        views: None,
        validation: 0,
    }
}

#[test]
fn left_out_temperatures_weights_and_logits_are_the_references() {
    for (shots, text, views) in [
        (vec![2; 9], false, None),
        (vec![2; 9], true, None),
        (vec![4, 3, 5, 2, 1, 4, 3, 6], true, Some(3)),
        (vec![3, 0, 2, 5, 2, 4], false, None),
        (vec![3, 0, 2, 5, 2, 4], true, Some(2)),
        (vec![5, 4], false, None),
    ] {
        fresh_seed();
        let (m, queries) = material(&Shape {
            views,
            ..shape(shots, text)
        });
        let made = holds(&m, &queries, json!({}));
        assert_eq!(made.spec.selection.source, SelectionSource::LeaveOneOut);
        assert!(part(&made, Method::Gda).is_some());
    }
}

#[test]
fn one_shot_takes_temperatures_from_the_spread() {
    for text in [false, true] {
        fresh_seed();
        let (m, queries) = material(&shape(vec![1; 12], text));
        let made = holds(&m, &queries, json!({}));
        assert_eq!(made.spec.selection.source, SelectionSource::Default);
        assert_eq!(
            part(&made, Method::Proker).and_then(|c| c.weight),
            Some(1.0)
        );
        assert_eq!(part(&made, Method::ZeroShot).is_some(), text);
    }
}

/// What a version says of itself is what new pictures find, though each of its
/// examples is left out of a class of two.
#[test]
fn left_out_scores_are_those_of_new_pictures() {
    let (mut said, mut found) = ([0.0; 2], [0.0; 2]);
    let draws = 24;
    for _ in 0..draws {
        fresh_seed();
        let (mut m, _) = material(&Shape {
            validation: 400,
            ..shape(vec![2; 20], false)
        });
        let (features, labels) = m.validation.take().expect("new pictures");
        let made = auto(&m);
        let logits = plain_logits(&made.spec, &made.tensors, &features).expect("logits");
        let right = logits.argmax(1, false).eq_tensor(&labels);
        let stack = &made.spec.selection.candidates[0];
        said[0] += 100.0 * stack.accuracy / f64::from(draws);
        found[0] += 100.0
            * right
                .to_kind(Kind::Double)
                .mean(Kind::Double)
                .double_value(&[])
            / f64::from(draws);
        said[1] += stack.cross_entropy / f64::from(draws);
        found[1] += cross_entropy(&logits, &labels, 1.0).expect("an entropy") / f64::from(draws);
    }
    // In rounds, by heads of one shot, they are 18 points and 0.6 nats off.
    assert!((said[0] - found[0]).abs() < 10.0, "{said:?} {found:?}");
    assert!((said[1] - found[1]).abs() < 0.35, "{said:?} {found:?}");
}

#[test]
fn text_that_tells_nothing_gets_no_weight() {
    for shots in [1, 2, 5] {
        fresh_seed();
        let (mut m, queries) = material(&shape(vec![shots; 12], true));
        let right = |made: &Made| {
            let logits = plain_logits(&made.spec, &made.tensors, &queries).expect("logits");
            logits.argmax(1, false)
        };
        m.text = Some(unit(&Tensor::randn([12, 40], (Kind::Float, Device::Cpu))));
        let with = auto(&m);
        if part(&with, Method::ZeroShot).is_some() {
            // One noise in twenty is this lucky; it then weighs next to nothing.
            continue;
        }
        m.text = None;
        assert_eq!(right(&with), right(&auto(&m)));
    }
}

/// Ten copies of each picture look like ten shots of which every one is known.
#[test]
fn copies_neither_count_as_shots_nor_end_in_certainty() {
    fresh_seed();
    let (m, queries) = material(&shape(vec![2; 8], false));
    let once = auto(&m);
    let copied = Material {
        keys: m.keys.repeat([10, 1]),
        labels: m.labels.repeat([10]),
        ..m
    };
    let made = auto(&copied);
    assert_eq!(made.spec.selection.example_count, 16);
    assert_eq!(once.spec.selection.example_count, 16);
    let sharp = |made: &Made| {
        let logits = plain_logits(&made.spec, &made.tensors, &queries).expect("logits");
        logits
            .softmax(1, Kind::Double)
            .amax(1, false)
            .mean(Kind::Double)
            .double_value(&[])
    };
    assert!(
        (sharp(&made) - sharp(&once)).abs() < 0.2,
        "{} {}",
        sharp(&made),
        sharp(&once)
    );
    for candidate in &made.spec.selection.candidates {
        assert!(
            candidate.temperature.is_none_or(|t| t > 1e-4),
            "{candidate:?}"
        );
    }

    // Nothing but copies: as if there were one shot.
    let same = Material {
        keys: copied.keys.narrow(0, 0, 8).repeat([4, 1]),
        labels: Tensor::arange(8, (Kind::Int64, Device::Cpu)).repeat([4]),
        classes: 8,
        ..copied
    };
    let made = auto(&same);
    assert_eq!(made.spec.selection.source, SelectionSource::Default);
}

/// Probabilities of single methods at few shots are those of their held-out
/// examples, or near, and never certain.
#[test]
fn single_methods_have_usable_probabilities_at_few_shots() {
    for shots in [1, 2] {
        fresh_seed();
        let (m, queries) = material(&Shape {
            width: 64,
            ..shape(vec![shots; 20], false)
        });
        // The truth of the queries: the nearest of many keys' classes is not
        // known here, so the classifier's own expectation is held to reason.
        for method in [
            Method::TipAdapter,
            Method::Gda,
            Method::Proker,
            Method::ClassMean,
        ] {
            let request = HeadRequest {
                method: Some(method),
                ..HeadRequest::default()
            };
            let made = make(&m, &request, &|_| true).expect("a head");
            assert_eq!(made.spec.method, method);
            let logits = plain_logits(&made.spec, &made.tensors, &queries).expect("logits");
            let p = (logits / made.spec.temperature).softmax(1, Kind::Double);
            let sure = p.amax(1, false).mean(Kind::Double).double_value(&[]);
            assert!(sure > 0.06 && sure < 0.999, "{method:?} at {shots}: {sure}");
            if shots == 2 {
                assert_eq!(made.spec.selection.source, SelectionSource::LeaveOneOut);
            }
        }
    }
}

/// Manifests are JSON, and what a version says of itself is the same after a
/// restart.
#[test]
fn numbers_come_back_from_json_to_the_last_bit() {
    fresh_seed();
    for _ in 0..20 {
        let (m, _) = material(&shape(vec![3; 5], true));
        let spec = auto(&m).spec;
        let text = serde_json::to_string(&spec).expect("JSON");
        assert_eq!(spec, serde_json::from_str(&text).expect("a head"));
    }
}

#[test]
fn the_stack_is_no_method_to_ask_for() {
    fresh_seed();
    let (m, _) = material(&shape(vec![2; 4], false));
    let request = HeadRequest {
        method: Some(Method::Stack),
        ..HeadRequest::default()
    };
    assert!(make(&m, &request, &|_| true).is_err());
}

#[test]
fn validation_examples_weigh_the_parts() {
    fresh_seed();
    let (m, _) = material(&Shape {
        validation: 80,
        ..shape(vec![1; 10], true)
    });
    let made = auto(&m);
    assert_eq!(made.spec.selection.source, SelectionSource::Validation);
    let (features, labels) = m.validation.as_ref().expect("validation");
    let logits = plain_logits(&made.spec, &made.tensors, features).expect("logits");
    let entropy = cross_entropy(&logits, labels, 1.0).expect("an entropy");
    let said = made.spec.selection.candidates[0].cross_entropy;
    assert!((entropy - said).abs() < 1e-3, "{entropy} {said}");
    let mut evaluator = Evaluator::new(10);
    evaluator.add(&logits, labels, 1.0).expect("counted");
    assert!((evaluator.finish().top1 - made.spec.selection.candidates[0].accuracy).abs() < 1e-9);
}

/// Over 4,096 keys the system is solved in f32, and one round is scored.
#[test]
fn a_large_cache_is_stacked_too() {
    fresh_seed();
    let (m, queries) = material(&Shape {
        width: 24,
        ..shape(vec![210; 20], false)
    });
    let made = auto(&m);
    assert!(made.spec.selection.example_count < 400);
    let (part, spec) = (part(&made, Method::Proker).expect("a ridge"), &made.spec);
    let factor = part.weight.expect("w") / part.temperature.expect("T");
    let seen = |rows: &Tensor| match &made.tensors.standardised {
        Some(part) => part.by.apply(&rows.to_kind(Kind::Double)).expect("seen"),
        None => rows.to_kind(Kind::Double),
    };
    let (k, f) = (seen(&m.keys), seen(&queries));
    let kernel = |a: &Tensor, b: &Tensor| ((a.matmul(&b.tr()) - 1.0) * spec.beta).exp();
    let system = kernel(&k, &k) + Tensor::eye(4200, (Kind::Double, Device::Cpu)) * spec.lambda;
    let exact = Tensor::linalg_solve(&system, &m.labels.one_hot(20).to_kind(Kind::Double), true);
    let (_, values) = made.tensors.cache.as_ref().expect("keys");
    let tip_adapter::head::Values::Dense(values) = values else {
        panic!("dense values");
    };
    let ours = kernel(&f, &k).matmul(&(values.to_kind(Kind::Double) / factor));
    let off = (ours - kernel(&f, &k).matmul(&exact))
        .abs()
        .max()
        .double_value(&[]);
    assert!(
        off < 2e-3,
        "predictions of single precision are off by {off}"
    );

    // The left-out scores are those of the fit on all other keys.
    let mut shots = [0; 20];
    let out: Vec<bool> = Vec::<i64>::try_from(&m.labels)
        .expect("labels")
        .into_iter()
        .map(|label| {
            shots[label as usize] += 1;
            (shots[label as usize] - 1) % 16 == 0
        })
        .collect();
    let rows = |out_is: bool| {
        let rows = (0..4200i64).filter(|&row| out[row as usize] == out_is);
        Tensor::from_slice(&rows.collect::<Vec<_>>())
    };
    let (left, rest) = (rows(true), rows(false));
    let pick = |rows: &Tensor| (k.index_select(0, rows), m.labels.index_select(0, rows));
    let ((x, own), (others, theirs)) = (pick(&left), pick(&rest));
    assert_eq!(own.size1().expect("one"), 280);
    let system = kernel(&others, &others)
        + Tensor::eye(others.size()[0], (Kind::Double, Device::Cpu)) * spec.lambda;
    let fit = Tensor::linalg_solve(&system, &theirs.one_hot(20).to_kind(Kind::Double), true);
    let logits = kernel(&x, &others).matmul(&fit) / part.temperature.expect("T");
    let entropy = logits
        .cross_entropy_loss::<Tensor>(&own, None, tch::Reduction::Mean, -100, 0.0)
        .double_value(&[]);
    let said = part.cross_entropy;
    assert!((entropy - said).abs() < 1e-2, "{entropy} and {said}");
}

#[test]
fn classes_without_examples_change_no_score() {
    fresh_seed();
    let (m, _) = material(&Shape {
        shots: vec![2; 6],
        width: 20,
        text: false,
        views: None,
        validation: 0,
    });
    let alone = auto(&m).spec.selection;
    let with_absent = auto(&Material { classes: 16, ..m }).spec.selection;
    for (a, b) in alone.candidates.iter().zip(&with_absent.candidates) {
        assert_eq!((a.method, a.accuracy), (b.method, b.accuracy));
        let close = |x: f64, y: f64| (x - y).abs() < 1e-9 * x.abs().max(1.0);
        assert!(close(a.cross_entropy, b.cross_entropy), "{a:?} {b:?}");
        assert!(
            close(a.temperature.unwrap_or(0.0), b.temperature.unwrap_or(0.0)),
            "{a:?} {b:?}"
        );
    }
}
