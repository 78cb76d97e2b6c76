//! Fine-tuning by a residual: what helps is kept, what does not is not.

use tch::{Device, Kind, Tensor};
use tip_adapter::{
    error::TipError,
    formula::plain_logits,
    make::{HeadRequest, Made, make},
    material::Material,
    residual::{STRENGTHS, Tuning, tune},
    spec::{Method, SelectionSource},
};

use super::{
    analysis::request,
    random::{fresh_seed, unit},
    reference::{ask, logits},
};

const WIDTH: i64 = 16;

/// Classes that differ in a few dimensions, of small spread, beside which others
/// vary much: class means are poor there, and training helps.
fn anisotropic(classes: i64, shots: i64) -> (Material, Tensor, Tensor) {
    let options = (Kind::Float, Device::Cpu);
    let centres = Tensor::randn([classes, WIDTH], options);
    let tell = Tensor::arange(WIDTH, options).lt(6).to_kind(Kind::Float);
    let draw = |count: i64| {
        let labels = Tensor::arange(count, (Kind::Int64, Device::Cpu)).remainder(classes);
        let noise = Tensor::randn([count, WIDTH], options) * (&tell * -1.6 + 2.0);
        let rows = centres.index_select(0, &labels) * &tell + noise + 1.0;
        (unit(&rows), labels)
    };
    let (keys, labels) = draw(classes * shots);
    let (queries, query_labels) = draw(600);
    let material = Material {
        keys,
        labels,
        classes: classes as usize,
        views: None,
        text: None,
        validation: None,
        logit_scale: 20.0,
        statistics: None,
        unlabelled: None,
    };
    (material, queries, query_labels)
}

fn means(m: &Material) -> Made {
    let request = HeadRequest {
        method: Some(Method::ClassMean),
        ..HeadRequest::default()
    };
    make(m, &request, &|_| true).expect("a head")
}

fn auto(m: &Material) -> Made {
    make(m, &HeadRequest::default(), &|_| true).expect("a head")
}

fn copy(made: &Made, m: &Material) -> Made {
    match made.spec.method {
        Method::ClassMean => means(m),
        _ => auto(m),
    }
}

fn tuned(m: &Material, made: Made) -> Tuning {
    tune(m, made, &|_| true, &|| true).expect("a tuning")
}

fn accuracy(made: &Made, queries: &Tensor, labels: &Tensor) -> f64 {
    let logits = plain_logits(&made.spec, &made.tensors, queries).expect("logits");
    let right = logits.argmax(1, false).eq_tensor(labels);
    right
        .to_kind(Kind::Double)
        .mean(Kind::Double)
        .double_value(&[])
}

#[test]
fn what_helps_is_kept_and_is_the_references() {
    fresh_seed();
    let (m, queries, labels) = anisotropic(4, 24);
    let before = means(&m);
    let found = tuned(&m, copy(&before, &m));
    let made = found.made.as_ref().expect("an improvement");
    assert!(found.after.cross_entropy < found.before.cross_entropy - 2.0 * found.error);
    assert_eq!(
        (found.source, found.examples),
        (SelectionSource::LeaveOneOut, 96)
    );
    assert!(STRENGTHS.contains(&found.strength) && found.reason.contains("helped"));
    let (old, new) = (
        accuracy(&before, &queries, &labels),
        accuracy(made, &queries, &labels),
    );
    assert!(new > old, "{old} {new}");

    let mut more = request("residual", &before.spec);
    more["strength"] = found.strength.into();
    let theirs = logits(&ask(&m, Some(&queries), &more));
    let of = |made: &Made| plain_logits(&made.spec, &made.tensors, &queries).expect("logits");
    let added = of(made) - of(&before);
    let size = theirs.abs().max().double_value(&[]);
    let off = (&added - &theirs).abs().max().double_value(&[]);
    assert!(off < 2e-3 * size, "{off} of {size}");
}

#[test]
fn a_stack_on_standardised_features_is_tuned_too() {
    // Whether it helps is chance here; where it is kept it is the reference's.
    for _ in 0..3 {
        fresh_seed();
        let (m, queries, _) = anisotropic(3, 30);
        let before = auto(&m);
        let found = tuned(&m, copy(&before, &m));
        assert!(found.reason.contains("had not seen"), "{}", found.reason);
        let Some(made) = &found.made else {
            assert!(found.reason.contains("nothing changed"), "{}", found.reason);
            continue;
        };
        assert_eq!(made.spec.selection, before.spec.selection);
        let mut more = request("residual", &before.spec);
        more["strength"] = found.strength.into();
        let theirs = logits(&ask(&m, Some(&queries), &more));
        let of = |made: &Made| plain_logits(&made.spec, &made.tensors, &queries).expect("logits");
        let off = (of(made) - of(&before) - &theirs)
            .abs()
            .max()
            .double_value(&[]);
        let size = theirs.abs().max().double_value(&[]);
        assert!(off < 1e-2 * size.max(1.0), "{off} of {size}");
    }
}

#[test]
fn labels_that_mean_nothing_change_nothing() {
    let mut kept = 0;
    for _ in 0..4 {
        fresh_seed();
        let (m, _, _) = anisotropic(4, 10);
        let labels = m.labels.index_select(
            0,
            &Tensor::randperm(m.labels.numel() as i64, (Kind::Int64, Device::Cpu)),
        );
        let m = Material { labels, ..m };
        let found = tuned(&m, means(&m));
        kept += i32::from(found.made.is_some());
    }
    // By chance one of them may pass.
    assert!(kept <= 1, "{kept} of 4 kept");
}

#[test]
fn validation_examples_decide_where_there_are_some() {
    fresh_seed();
    let (m, queries, labels) = anisotropic(4, 24);
    let m = Material {
        validation: Some((queries, labels)),
        ..m
    };
    let found = tuned(&m, means(&m));
    assert_eq!(
        (found.source, found.examples),
        (SelectionSource::Validation, 600)
    );
    assert!(found.made.is_some());
}

#[test]
fn too_few_shots_change_nothing_and_say_why() {
    fresh_seed();
    for (shots, why) in [(1, "second example"), (2, "third example")] {
        let (m, _, _) = anisotropic(4, shots);
        let found = tuned(&m, auto(&m));
        assert!(found.made.is_none() && found.examples == 0);
        assert!(found.reason.contains(why), "{shots}: {}", found.reason);
    }
}

#[test]
fn it_says_how_far_it_is_and_stops_when_told_to() {
    fresh_seed();
    let (m, _, _) = anisotropic(3, 8);
    let seen = std::cell::RefCell::new(Vec::new());
    let watch = |progress: tip_adapter::residual::TuneProgress| {
        seen.borrow_mut().push(progress.done);
        true
    };
    let found = tune(&m, means(&m), &watch, &|| true).expect("a tuning");
    let fits = 16 + usize::from(found.made.is_some());
    assert_eq!(*seen.borrow(), (1..=fits).collect::<Vec<_>>());
    for stopped in [
        tune(&m, means(&m), &|_| false, &|| true),
        tune(&m, means(&m), &|_| true, &|| false),
    ] {
        assert!(matches!(stopped, Err(TipError::Cancelled)));
    }
}
