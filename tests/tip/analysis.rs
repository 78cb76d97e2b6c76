//! What a version's own examples say of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use tip_adapter::{
    analysis::{Analysis, AnalysisOptions, analyse, left_out_logits},
    error::TipError,
    make::{HeadRequest, Made, make},
    material::Material,
    near::Pair,
    spec::{HeadSpec, Method, Standardised, UnlabelledUse},
};

use super::{
    random::{Shape, fresh_seed, material, unit},
    reference::{ask, logits},
};

fn shape(shots: Vec<i64>, text: bool) -> Shape {
    Shape {
        shots,
        width: 24,
        text,
        views: None,
        validation: 0,
    }
}

fn made(m: &Material, method: Option<Method>) -> Made {
    let request = HeadRequest {
        method,
        alpha: match method {
            Some(Method::TipAdapter | Method::Gda) => Some(1.3),
            _ => None,
        },
        beta: matches!(method, Some(Method::TipAdapter)).then_some(4.0),
        ..HeadRequest::default()
    };
    make(m, &request, &|_| true).expect("a head")
}

/// The reference's request for a head.
pub fn request(what: &str, spec: &HeadSpec) -> Value {
    let (name, numbers) = match spec.method {
        Method::ZeroShot => ("zero_shot", json!({})),
        Method::TipAdapter => (
            "tip_adapter",
            json!({"alpha": spec.alpha, "beta": spec.beta}),
        ),
        Method::Gda => ("gda", json!({"alpha": spec.alpha})),
        Method::Proker => (
            "proker",
            json!({"alpha": spec.alpha, "beta": spec.beta, "lam": spec.lambda}),
        ),
        Method::ClassMean => ("class_mean", json!({"alpha": spec.alpha})),
        Method::Stack | Method::TipAdapterF => ("stack", json!({})),
    };
    json!({
        "what": what,
        "method": name,
        "numbers": numbers,
        "temperature": spec.temperature,
        "standardised": spec.standardised.map(|whose| match whose {
            Standardised::Own => "own",
            Standardised::Bundle => "bundle",
        }),
    })
}

fn analysed(m: &Material, spec: &HeadSpec, options: &AnalysisOptions) -> Analysis {
    analyse(m, spec, options, &|| true).expect("an analysis")
}

fn without_curve() -> AnalysisOptions {
    AnalysisOptions {
        draws: 0,
        ..AnalysisOptions::default()
    }
}

const METHODS: [Option<Method>; 5] = [
    None,
    Some(Method::TipAdapter),
    Some(Method::Gda),
    Some(Method::Proker),
    Some(Method::ClassMean),
];

#[test]
fn left_out_logits_are_those_of_heads_made_without_the_example() {
    for text in [false, true] {
        for method in METHODS {
            fresh_seed();
            let (m, queries) = material(&shape(vec![3, 4, 2, 3, 5], text));
            let spec = made(&m, method).spec;
            let ours = left_out_logits(&m, &spec, &|| true)
                .expect("torch")
                .expect("examples to leave out");
            let theirs = ask(&m, Some(&queries), &request("left_out", &spec));
            let keys: Vec<i64> = serde_json::from_value(theirs["keys"].clone()).expect("keys");
            assert_eq!(Vec::<i64>::try_from(&ours.keys).expect("keys"), keys);
            let (a, b) = (ours.logits.softmax(1, Kind::Double), logits(&theirs));
            let off = (a - b.softmax(1, Kind::Double))
                .abs()
                .max()
                .double_value(&[]);
            assert!(off < 2e-3, "{method:?}, text {text}: {off}");
        }
    }
}

#[test]
fn figures_of_the_left_out_answers_are_the_references() {
    for method in [None, Some(Method::Proker)] {
        fresh_seed();
        let (m, queries) = material(&shape(vec![4, 3, 6, 1, 5, 4], false));
        // A fifth of the labels is wrong, so that there are suspects.
        let labels = m.labels.where_self(
            &Tensor::rand(m.labels.size(), (Kind::Float, Device::Cpu)).gt(0.2),
            &((&m.labels + 1).remainder(6)),
        );
        let m = Material { labels, ..m };
        let spec = made(&m, method).spec;
        let ours = analysed(&m, &spec, &without_curve());
        let theirs = ask(&m, Some(&queries), &request("analysis", &spec));
        let near = |value: f64, key: &str| {
            let expected = theirs[key].as_f64().expect("a number");
            assert!((value - expected).abs() < 2e-3, "{key}: {value} {expected}");
        };
        assert_eq!(json!(ours.scored_count), theirs["count"]);
        assert_eq!(ours.example_count, m.labels.numel());
        near(ours.accuracy, "accuracy");
        near(ours.cross_entropy, "cross_entropy");
        let confusion: BTreeMap<String, u64> = (ours.confusion.iter())
            .map(|(a, b, count)| (format!("{a} {b}"), *count))
            .collect();
        assert_eq!(json!(confusion), theirs["confusion"]);
        let bins: u64 = ours.reliability.iter().map(|bin| bin.count).sum();
        assert_eq!(bins as usize, ours.scored_count);
        // An answer on the edge of a bin may fall on either side.
        let expected = theirs["expected_calibration_error"].as_f64().expect("it");
        assert!((ours.expected_calibration_error - expected).abs() < 0.1);
        let suspects = theirs["suspects"].as_array().expect("suspects");
        assert_eq!(ours.suspect_count, suspects.len());
        for (suspect, expected) in ours.suspects.iter().zip(suspects) {
            assert!((suspect.probability - expected[0].as_f64().expect("p")).abs() < 2e-3);
            assert!(suspect.suggested_probability > 9.0 * suspect.probability);
        }
        let right: f64 = (ours.classes.iter())
            .map(|class| class.accuracy * class.scored_count as f64)
            .sum();
        assert!((right / ours.scored_count as f64 - ours.accuracy).abs() < 1e-9);
        let of_confused: u64 = (ours.confused.iter())
            .map(|pair| pair.count + pair.reverse)
            .sum();
        let wrong = (1.0 - ours.accuracy) * ours.scored_count as f64;
        assert!((of_confused as f64 - wrong).abs() < 1e-6);
        // Those that the confusion counts off its diagonal, pair by pair.
        let mut pairs: BTreeMap<(usize, usize), u64> = BTreeMap::new();
        for it in &ours.misclassified {
            *pairs.entry((it.class, it.suggested)).or_default() += 1;
        }
        let off: BTreeMap<(usize, usize), u64> = (ours.confusion.iter())
            .filter(|(class, taken, _)| class != taken)
            .map(|(class, taken, count)| ((*class, *taken), *count))
            .collect();
        assert_eq!(pairs, off);
    }
}

#[test]
fn a_wrong_label_is_the_first_suspect() {
    fresh_seed();
    let (m, _) = material(&shape(vec![8; 5], false));
    // Classes that are easy to tell: each example lies near its class's mean.
    let zeros = Tensor::zeros([5, 24], (Kind::Float, Device::Cpu));
    let means = unit(&zeros.index_add(0, &m.labels, &m.keys));
    let near = unit(&(&m.keys + means.index_select(0, &m.labels) * 4.0));
    let m = Material { keys: near, ..m };
    let wrong = 11;
    let label = (m.labels.int64_value(&[wrong]) + 2) % 5;
    let labels = m.labels.copy();
    let _ = labels.get(wrong).fill_(label);
    let m = Material { labels, ..m };
    let found = analysed(&m, &made(&m, None).spec, &without_curve());
    let first = found.suspects.first().expect("a suspect");
    assert_eq!((first.key as i64, first.class as i64), (wrong, label));
    assert_eq!(first.suggested as i64, (label + 3) % 5);
    assert!(first.probability < 0.5);
}

#[test]
fn duplicates_are_the_references_pairs() {
    fresh_seed();
    let (m, _) = material(&shape(vec![6; 5], false));
    let keys = m.keys.copy();
    // Row 3 is copied; row 8 is repeated with a little noise.
    keys.get(20).copy_(&m.keys.get(3));
    let noise = Tensor::randn([24], (Kind::Float, Device::Cpu)) * 0.002;
    keys.get(25)
        .copy_(&unit(&(m.keys.get(8) + noise).unsqueeze(0)).get(0));
    let m = Material { keys, ..m };
    let spec = made(&m, Some(Method::ClassMean)).spec;
    let found = analysed(&m, &spec, &without_curve());
    let theirs = ask(&m, None, &json!({"what": "near"}));
    let expected = theirs["similarity"].as_f64().expect("a similarity");
    assert!((found.duplicate_similarity - expected).abs() < 1e-6);
    let pairs = theirs["pairs"].as_array().expect("pairs");
    assert_eq!(found.duplicate_count, pairs.len());
    assert_eq!(found.duplicates.len(), 2, "{:?}", found.duplicates);
    let rows: Vec<_> = found
        .duplicates
        .iter()
        .map(|it| (it.first, it.second))
        .collect();
    assert_eq!(rows, [(3, 20), (8, 25)]);
    let exact: Vec<_> = found.duplicates.iter().map(Pair::is_exact).collect();
    assert_eq!(exact, [true, false]);
    // A similarity that is given decides, and the list has its bound.
    let options = AnalysisOptions {
        duplicate_similarity: Some(0.5),
        list_limit: 3,
        ..without_curve()
    };
    let found = analysed(&m, &spec, &options);
    let theirs = ask(&m, None, &json!({"what": "near", "similarity": 0.5}));
    let pairs = theirs["pairs"].as_array().expect("pairs");
    assert_eq!(
        (found.duplicates.len(), found.duplicate_count),
        (3, pairs.len())
    );
    for (ours, theirs) in found.duplicates.iter().zip(pairs) {
        assert!((ours.similarity - theirs[0].as_f64().expect("a cosine")).abs() < 1e-6);
    }
}

#[test]
fn the_curve_rises_to_the_left_out_accuracy_and_repeats_with_its_seed() {
    fresh_seed();
    let (m, _) = material(&Shape {
        width: 12,
        ..shape(vec![10; 12], false)
    });
    let spec = made(&m, None).spec;
    let options = AnalysisOptions {
        seed: 7,
        ..AnalysisOptions::default()
    };
    let found = analysed(&m, &spec, &options);
    let shots: Vec<usize> = found.curve.iter().map(|point| point.shots).collect();
    assert_eq!(shots, [1, 2, 4, 8, 9]);
    let last = found.curve.last().expect("points");
    assert_eq!(last.accuracy, found.accuracy);
    let first = found.curve.first().expect("points");
    assert!(first.accuracy < last.accuracy, "{:?}", found.curve);
    for point in &found.curve {
        assert!(point.low <= point.accuracy && point.accuracy <= point.high);
    }
    let forecast = found.forecast.expect("a forecast");
    assert_eq!(forecast.shots, 20);
    assert!(forecast.low <= forecast.accuracy && forecast.accuracy <= forecast.high);
    assert!(forecast.accuracy >= last.accuracy);
    // The gain of a class follows its errors.
    let most = (found
        .classes
        .iter()
        .max_by(|a, b| a.expected_gain.total_cmp(&b.expected_gain)))
    .expect("classes");
    assert!(
        found
            .classes
            .iter()
            .all(|class| class.accuracy >= most.accuracy)
    );
    let again = analysed(&m, &spec, &options);
    assert_eq!(again.curve, found.curve);
}

#[test]
fn copies_count_beyond_the_list_and_are_one_shot() {
    fresh_seed();
    let (m, _) = material(&shape(vec![5; 4], false));
    let twice = |t: &Tensor| Tensor::cat(&[t, t], 0);
    let m = Material {
        keys: twice(&m.keys),
        labels: twice(&m.labels),
        ..m
    };
    let options = AnalysisOptions {
        list_limit: 3,
        ..AnalysisOptions::default()
    };
    let found = analysed(&m, &made(&m, None).spec, &options);
    assert_eq!((found.copy_count, found.duplicates.len()), (20, 3));
    assert!(found.confused_count >= found.confused.len());
    // Of five different pictures a class, four are left.
    let shots: Vec<usize> = found.curve.iter().map(|point| point.shots).collect();
    assert_eq!(shots, [1, 2, 4]);
    assert_eq!(found.forecast.expect("a forecast").shots, 10);
}

#[test]
fn what_a_pool_teaches_is_left_out_of_every_figure() {
    fresh_seed();
    let (m, _) = material(&shape(vec![6; 4], false));
    let mut spec = made(&m, None).spec;
    let without = analysed(&m, &spec, &AnalysisOptions::default());
    let pool = unit(&Tensor::randn([80, 24], (Kind::Float, Device::Cpu)));
    let m = Material {
        unlabelled: Some(pool),
        ..m
    };
    spec.unlabelled = Some(UnlabelledUse {
        count: 80,
        used: true,
        example_count: 24,
        cross_entropy_before: 1.0,
        cross_entropy_after: 0.9,
        accuracy_before: 0.5,
        accuracy_after: 0.6,
        reason: String::new(),
    });
    let with = analysed(&m, &spec, &AnalysisOptions::default());
    assert_eq!(with.curve, without.curve);
    assert_eq!(with.accuracy, without.accuracy);
    assert!(without.skipped.is_empty());
    assert!(
        with.skipped.iter().any(|why| why.contains("unlabelled")),
        "{:?}",
        with.skipped
    );
}

#[test]
fn one_class_says_so() {
    fresh_seed();
    let (m, _) = material(&shape(vec![8], false));
    let found = analysed(&m, &made(&m, None).spec, &AnalysisOptions::default());
    assert_eq!(found.scored_count, 0);
    assert!(
        found.skipped.iter().any(|why| why.contains("two classes")),
        "{:?}",
        found.skipped
    );
}

#[test]
fn one_shot_a_class_says_so() {
    fresh_seed();
    let (m, _) = material(&shape(vec![1; 6], false));
    let found = analysed(&m, &made(&m, None).spec, &AnalysisOptions::default());
    assert_eq!((found.scored_count, found.suspect_count), (0, 0));
    assert!(found.curve.is_empty() && found.forecast.is_none());
    assert!(
        found
            .skipped
            .iter()
            .any(|why| why.contains("second example"))
    );
}

#[test]
fn an_analysis_stops_when_it_is_told_to() {
    fresh_seed();
    let (m, _) = material(&shape(vec![6; 6], false));
    let spec = made(&m, None).spec;
    let stopped = analyse(&m, &spec, &AnalysisOptions::default(), &|| false);
    assert!(matches!(stopped, Err(TipError::Cancelled)));
}
