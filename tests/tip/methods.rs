//! Each method's head against the reference.

use serde_json::{Value, json};
use tch::{Kind, Tensor};
use tip_adapter::{
    formula::plain_logits,
    make::{HeadRequest, Made, make},
    material::Material,
};
use tip_spec::{ClassBalance, MadeBy, Method, SearchGrid, SelectionSource};

use crate::{
    random::{Shape, fresh_seed, material},
    reference::{ask, logits},
};

fn shape(text: bool) -> Shape {
    Shape {
        shots: vec![4, 4, 4, 4, 4, 4],
        width: 24,
        text,
        views: None,
        validation: 0,
    }
}

fn build(material: &Material, request: &HeadRequest) -> Made {
    make(material, request, &|_| true).unwrap()
}

/// The head's logits in f32 steps are the formula's: at most 1e-3 off at logits
/// of about 100, and the same argmax wherever the margin is over that.
fn holds(
    material: &Material,
    queries: &Tensor,
    request: &HeadRequest,
    method: &str,
    numbers: &Value,
) {
    let made = build(material, request);
    let ours = plain_logits(&made.spec, &made.tensors, queries).unwrap();
    let more = json!({"what": "logits", "method": method, "numbers": numbers});
    let theirs = logits(&ask(material, Some(queries), &more));
    let off = (&ours - &theirs).abs().max().double_value(&[]);
    assert!(off <= 1e-3, "{method} {numbers}: off by {off}");
    let (top, _) = theirs.topk(2, 1, true, true);
    let sure = (top.select(1, 0) - top.select(1, 1)).gt(1e-3);
    let same = ours.argmax(1, false).eq_tensor(&theirs.argmax(1, false));
    let wrong = sure
        .logical_and(&same.logical_not())
        .sum(Kind::Int64)
        .int64_value(&[]);
    assert_eq!(wrong, 0, "{method}: {wrong} other classes");
}

#[test]
fn zero_shot_is_the_text_classifier() {
    fresh_seed();
    let (m, q) = material(&shape(true));
    let request = HeadRequest {
        method: Some(Method::ZeroShot),
        ..HeadRequest::default()
    };
    holds(&m, &q, &request, "zero_shot", &json!({}));
}

#[test]
fn tip_adapter_is_the_papers_formula() {
    fresh_seed();
    for text in [false, true] {
        for (balance, mean) in [(ClassBalance::Sum, false), (ClassBalance::Mean, true)] {
            let unequal = Shape {
                shots: vec![1, 5, 2, 0, 7, 3],
                ..shape(text)
            };
            let (m, q) = material(&unequal);
            let request = HeadRequest {
                method: Some(Method::TipAdapter),
                alpha: Some(1.7),
                beta: Some(4.2),
                class_balance: balance,
                ..HeadRequest::default()
            };
            holds(
                &m,
                &q,
                &request,
                "tip_adapter",
                &json!({"alpha": 1.7, "beta": 4.2, "mean": mean}),
            );
        }
    }
}

#[test]
fn mean_is_sum_at_equal_shots() {
    fresh_seed();
    let (m, q) = material(&shape(true));
    let at = |class_balance| {
        let request = HeadRequest {
            method: Some(Method::TipAdapter),
            alpha: Some(2.0),
            beta: Some(3.0),
            class_balance,
            ..HeadRequest::default()
        };
        let made = build(&m, &request);
        plain_logits(&made.spec, &made.tensors, &q).unwrap()
    };
    let off = (at(ClassBalance::Sum) - at(ClassBalance::Mean))
        .abs()
        .max()
        .double_value(&[]);
    assert!(off < 1e-5, "{off}");
}

#[test]
fn gda_is_the_papers_formula() {
    fresh_seed();
    for text in [false, true] {
        for views in [None, Some(5)] {
            let (m, q) = material(&Shape {
                views,
                shots: vec![3, 6, 4, 2, 5, 4],
                ..shape(text)
            });
            let request = HeadRequest {
                method: Some(Method::Gda),
                alpha: Some(0.3),
                ..HeadRequest::default()
            };
            holds(&m, &q, &request, "gda", &json!({"alpha": 0.3}));
        }
    }
}

#[test]
fn gda_without_any_scatter_is_the_class_mean() {
    fresh_seed();
    let (m, q) = material(&Shape {
        shots: vec![1; 6],
        ..shape(false)
    });
    let request = HeadRequest {
        method: Some(Method::Gda),
        alpha: Some(10.0),
        ..HeadRequest::default()
    };
    holds(&m, &q, &request, "gda", &json!({"alpha": 10.0}));
}

#[test]
fn proker_is_the_papers_formula_and_alpha_makes_it_ridge_regression() {
    fresh_seed();
    for text in [false, true] {
        let (m, q) = material(&Shape {
            shots: vec![3, 6, 0, 2, 1, 4],
            ..shape(text)
        });
        let request = HeadRequest {
            method: Some(Method::Proker),
            beta: Some(1.3),
            lambda: Some(0.2),
            ..HeadRequest::default()
        };
        holds(
            &m,
            &q,
            &request,
            "proker",
            &json!({"alpha": 1.0, "beta": 1.3, "lam": 0.2}),
        );
        let ridge = HeadRequest {
            alpha: Some(5.0),
            ..request
        };
        holds(
            &m,
            &q,
            &ridge,
            "proker",
            &json!({"alpha": 5.0, "beta": 1.3, "lam": 0.2}),
        );
    }
}

#[test]
fn class_mean_is_the_nearest_mean() {
    fresh_seed();
    for text in [false, true] {
        let (m, q) = material(&Shape {
            shots: vec![3, 6, 1, 2, 0, 4],
            ..shape(text)
        });
        let request = HeadRequest {
            method: Some(Method::ClassMean),
            alpha: Some(0.7),
            ..HeadRequest::default()
        };
        holds(&m, &q, &request, "class_mean", &json!({"alpha": 0.7}));
    }
}

#[test]
fn a_class_without_shots_is_never_first_without_text() {
    fresh_seed();
    let (m, q) = material(&Shape {
        shots: vec![4, 0, 4, 4, 0, 4],
        ..shape(false)
    });
    // Pictures unlike all classes among them.
    let q = Tensor::cat(&[&q, &(-&q)], 0);
    for method in [
        Method::TipAdapter,
        Method::Gda,
        Method::ClassMean,
        Method::Proker,
    ] {
        let made = build(
            &m,
            &HeadRequest {
                method: Some(method),
                ..HeadRequest::default()
            },
        );
        let first = plain_logits(&made.spec, &made.tensors, &q)
            .unwrap()
            .argmax(1, false);
        let empty = first.eq(1).logical_or(&first.eq(4)).any().int64_value(&[]);
        assert_eq!(empty, 0, "{method:?}");
    }
}

#[test]
fn every_method_is_defined_at_one_shot() {
    fresh_seed();
    for text in [false, true] {
        let (m, q) = material(&Shape {
            shots: vec![1; 6],
            ..shape(text)
        });
        let methods = [
            None,
            Some(Method::TipAdapter),
            Some(Method::Gda),
            Some(Method::Proker),
            Some(Method::ClassMean),
        ];
        for method in methods {
            for grid in [SearchGrid::Wide, SearchGrid::OFFICIAL] {
                let made = build(
                    &m,
                    &HeadRequest {
                        method,
                        grid,
                        ..HeadRequest::default()
                    },
                );
                assert_eq!(
                    made.spec.selection.source,
                    SelectionSource::Default,
                    "{method:?}"
                );
                assert!(made.spec.temperature > 0.0);
                let logits = plain_logits(&made.spec, &made.tensors, &q).unwrap();
                assert_eq!(logits.isfinite().all().int64_value(&[]), 1, "{method:?}");
            }
        }
    }
}

/// A method of the registry without a file, an implementation or a reference
/// fails here.
#[test]
fn every_method_of_the_registry_has_its_file_and_its_reference() {
    fresh_seed();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let there = |path: &str| {
        let path = format!("{root}/{path}");
        assert!(std::path::Path::new(&path).is_file(), "{path}");
    };
    let (m, q) = material(&shape(true));
    for &method in Method::ALL {
        let name = serde_json::to_value(method).unwrap();
        let name = name.as_str().unwrap();
        match method.made_by() {
            MadeBy::Auto => there("tests/reference/stack_reference.py"),
            MadeBy::FineTuning => there("tests/reference/finetune_steps.py"),
            MadeBy::Name => {
                there(&format!("crates/tip-adapter/src/methods/{name}.rs"));
                let request = HeadRequest {
                    method: Some(method),
                    ..HeadRequest::default()
                };
                let spec = build(&m, &request).spec;
                let numbers = [
                    ("alpha", spec.alpha),
                    ("beta", spec.beta),
                    ("lam", spec.lambda),
                ];
                let numbers: Value = numbers
                    .into_iter()
                    .filter(|(_, number)| *number != 0.0)
                    .map(|(name, number)| (name.to_owned(), json!(number)))
                    .collect::<serde_json::Map<_, _>>()
                    .into();
                holds(&m, &q, &request, name, &numbers);
            }
        }
    }
}
