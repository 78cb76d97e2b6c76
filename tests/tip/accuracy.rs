//! Real features: the reference's figures, and AUTO beside Tip-Adapter. The
//! whole table is `cargo bench --bench tip -- accuracy`.

use tip_adapter::{
    evaluate::Evaluator,
    formula::plain_logits,
    make::{HeadRequest, make},
};
use tip_spec::{Method, SearchGrid};

use crate::features::{self, NAMES, SHOTS, Task};

fn accuracy(task: &Task, request: &HeadRequest, validation: bool) -> f64 {
    let made = make(&task.material(validation), request, &|_| true).unwrap();
    let mut evaluator = Evaluator::new(task.classes);
    let logits = plain_logits(&made.spec, &made.tensors, &task.test.0).unwrap();
    evaluator
        .add(&logits, &task.test.1, made.spec.temperature)
        .unwrap();
    100.0 * evaluator.finish().top1
}

#[test]
fn figures_of_the_reference_on_real_features() {
    let Some(folder) = features::folder() else {
        println!("skipped: ../shared/data/clip-vitb32 is not there");
        return;
    };
    let figures = [
        ("Caltech101", 4, [85.11, 85.92, 90.67, 90.83]),
        ("Caltech-39", 4, [97.45, 98.57, 99.05, 98.89]),
        ("DTD", 16, [54.91, 58.10, 66.19, 68.03]),
    ];
    for (name, shots, [fixed, tip, gda, proker]) in figures {
        let task = features::load(&folder, name, shots).unwrap();
        let official = |method| HeadRequest {
            method: Some(method),
            grid: task.official,
            ..HeadRequest::default()
        };
        let given = HeadRequest {
            alpha: Some(1.0),
            beta: Some(5.5),
            ..official(Method::TipAdapter)
        };
        for (what, request, figure) in [
            ("α 1, β 5.5", given, fixed),
            ("Tip-Adapter", official(Method::TipAdapter), tip),
            ("GDA", official(Method::Gda), gda),
            ("ProKeR", official(Method::Proker), proker),
        ] {
            let ours = accuracy(&task, &request, true);
            assert!(
                (ours - figure).abs() <= 0.1,
                "{what}, {name} {shots}: {ours} not {figure}"
            );
        }
    }
}

#[test]
fn auto_is_above_tip_adapter_at_more_than_one_shot() {
    let Some(folder) = features::folder() else {
        println!("skipped: ../shared/data/clip-vitb32 is not there");
        return;
    };
    assert!(SHOTS.contains(&4));
    for name in NAMES {
        for shots in [2, 4] {
            let task = features::load(&folder, name, shots).unwrap();
            let with = |method| HeadRequest {
                method,
                grid: SearchGrid::Wide,
                ..HeadRequest::default()
            };
            let auto = accuracy(&task, &with(None), false);
            let tip = accuracy(&task, &with(Some(Method::TipAdapter)), false);
            assert!(auto > tip, "{name} {shots}: {auto} against {tip}");
        }
    }
}
