//! Accuracy on real features: the figures of an independent reference, and what
//! AUTO makes of the same examples without seeing validation or test.

use std::collections::BTreeMap;

use anyhow::Result;
use tip_adapter::{
    evaluate::Evaluator,
    formula::plain_logits,
    make::{HeadRequest, Made, make},
};
use tip_spec::{Method, SearchGrid};

use super::{
    Row,
    features::{self, NAMES, SHOTS, Task},
};

/// How far a figure may be from the reference's, in points.
const TOLERANCE: f64 = 0.1;

/// How far AUTO's mean may be below the best single method's, in points.
const AUTO_SLACK: f64 = 0.3;

/// The reference's figures: data, shots, then zero-shot, Tip α 1 β 5.5, Tip by
/// validation, GDA, ProKeR.
type Figures = (&'static str, usize, [Option<f64>; 5]);
const REFERENCE: [Figures; 7] = [
    (
        "Caltech101",
        1,
        [None, Some(75.78), Some(75.78), Some(75.78), Some(79.88)],
    ),
    (
        "Caltech101",
        4,
        [None, Some(85.11), Some(85.92), Some(90.67), Some(90.83)],
    ),
    (
        "Caltech101",
        16,
        [None, Some(89.78), Some(90.63), Some(93.87), Some(94.64)],
    ),
    (
        "Caltech-39",
        1,
        [
            Some(96.66),
            Some(97.14),
            Some(97.22),
            Some(96.66),
            Some(97.45),
        ],
    ),
    (
        "Caltech-39",
        4,
        [
            Some(96.66),
            Some(97.45),
            Some(98.57),
            Some(99.05),
            Some(98.89),
        ],
    ),
    (
        "Caltech-39",
        16,
        [
            Some(96.66),
            Some(98.17),
            Some(98.17),
            Some(98.17),
            Some(98.97),
        ],
    ),
    (
        "DTD",
        16,
        [None, Some(54.91), Some(58.10), Some(66.19), Some(68.03)],
    ),
];

/// The columns of the table by leave-one-out; AUTO last.
const SINGLES: [(&str, Method); 4] = [
    ("Tip-Adapter", Method::TipAdapter),
    ("GDA", Method::Gda),
    ("ProKeR", Method::Proker),
    ("class mean", Method::ClassMean),
];

/// All rows, and the tables on standard output.
pub fn rows() -> Result<Vec<Row>> {
    let Some(folder) = features::folder() else {
        println!("accuracy: skipped, ../shared/data/clip-vitb32 is not there");
        return Ok(Vec::new());
    };
    let mut rows = Vec::new();
    println!(
        "\nChosen on validation examples, the reference's grids (%, the reference's figure in brackets)"
    );
    println!(
        "{:<12}{:>6}  {:>16}{:>16}{:>16}{:>16}{:>16}",
        "data", "shots", "zero-shot", "Tip 1, 5.5", "Tip", "GDA", "ProKeR"
    );
    for (name, shots, figures) in REFERENCE {
        let task = features::load(&folder, name, shots)?;
        print!("{name:<12}{shots:>6}  ");
        for ((label, request), reference) in reference_requests(&task).into_iter().zip(figures) {
            let Some(reference) = reference else {
                print!("{:>16}", "");
                continue;
            };
            let value = 100.0 * test_accuracy(&task, &make_on(&task, &request, true)?)?;
            print!("{:>16}", format!("{value:.2} ({reference:.2})"));
            rows.push(Row {
                row: format!("{label}, {name}, {shots} shots, test accuracy %"),
                value,
                goal: format!("{reference} ± {TOLERANCE}"),
                ok: (value - reference).abs() <= TOLERANCE,
            });
        }
        println!();
    }
    rows.extend(auto_rows(&folder)?);
    Ok(rows)
}

/// The reference's five columns as requests.
pub fn reference_requests(task: &Task) -> Vec<(&'static str, HeadRequest)> {
    let official = |method| HeadRequest {
        method: Some(method),
        grid: task.official,
        ..HeadRequest::default()
    };
    vec![
        ("zero-shot", official(Method::ZeroShot)),
        (
            "Tip-Adapter α 1 β 5.5",
            HeadRequest {
                alpha: Some(1.0),
                beta: Some(5.5),
                ..official(Method::TipAdapter)
            },
        ),
        ("Tip-Adapter by validation", official(Method::TipAdapter)),
        ("GDA by validation", official(Method::Gda)),
        ("ProKeR by validation", official(Method::Proker)),
    ]
}

fn auto_rows(folder: &std::path::Path) -> Result<Vec<Row>> {
    println!("\nChosen without validation examples: by leave-one-out, at one shot by default (%)");
    println!(
        "{:<12}{:>6}{:>14}{:>14}{:>14}{:>14}{:>14}{:>14}  chosen",
        "data", "shots", "zero-shot", "Tip-Adapter", "GDA", "ProKeR", "class mean", "AUTO"
    );
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    let mut behind = Vec::new();
    let mut tasks = 0.0;
    for name in NAMES {
        for shots in SHOTS {
            let task = features::load(folder, name, shots)?;
            tasks += 1.0;
            print!("{name:<12}{shots:>6}");
            match &task.text {
                None => print!("{:>14}", ""),
                Some(_) => print!("{:>14.2}", accuracy_of(&task, Some(Method::ZeroShot))?.0),
            }
            let mut tip = 0.0;
            for (label, method) in SINGLES {
                let (value, _) = accuracy_of(&task, Some(method))?;
                print!("{value:>14.2}");
                *sums.entry(label).or_default() += value;
                if method == Method::TipAdapter {
                    tip = value;
                }
            }
            let (auto, made) = accuracy_of(&task, None)?;
            println!("{auto:>14.2}  {}", described(&made));
            *sums.entry("AUTO").or_default() += auto;
            if shots > 1 && auto <= tip {
                behind.push(format!("{name} {shots}"));
            }
        }
    }
    print!("{:<32}", "mean");
    for label in SINGLES.map(|(label, _)| label).into_iter().chain(["AUTO"]) {
        print!(
            "{:>14.2}",
            sums.get(label).copied().unwrap_or_default() / tasks
        );
    }
    println!();
    let auto = sums.remove("AUTO").unwrap_or_default() / tasks;
    let (best, mean) =
        sums.iter()
            .map(|(k, v)| (*k, v / tasks))
            .fold(("", f64::NEG_INFINITY), |best, new| {
                if new.1 > best.1 { new } else { best }
            });
    Ok(vec![
        Row {
            row: "AUTO, mean test accuracy % over 3 data sets × 5 shots".to_owned(),
            value: auto,
            goal: format!("≥ {mean:.2} ({best}) − {AUTO_SLACK}"),
            ok: auto >= mean - AUTO_SLACK,
        },
        Row {
            row: format!("AUTO not above Tip-Adapter at over one shot: {behind:?}"),
            value: behind.len() as f64,
            goal: "0".to_owned(),
            ok: behind.is_empty(),
        },
    ])
}

/// Test accuracy in per cent of a head chosen without validation examples.
pub fn accuracy_of(task: &Task, method: Option<Method>) -> Result<(f64, Made)> {
    let request = HeadRequest {
        method,
        grid: SearchGrid::Wide,
        ..HeadRequest::default()
    };
    let made = make_on(task, &request, false)?;
    Ok((100.0 * test_accuracy(task, &made)?, made))
}

/// Makes a head of the task's keys.
pub fn make_on(task: &Task, request: &HeadRequest, with_validation: bool) -> Result<Made> {
    Ok(make(&task.material(with_validation), request, &|_| true)?)
}

/// Share of the test examples that the head classifies rightly.
pub fn test_accuracy(task: &Task, made: &Made) -> Result<f64> {
    let (features, labels) = &task.test;
    let mut evaluator = Evaluator::new(task.classes);
    let logits = plain_logits(&made.spec, &made.tensors, features)?;
    evaluator.add(&logits, labels, made.spec.temperature)?;
    Ok(evaluator.finish().top1)
}

fn described(made: &Made) -> String {
    let spec = &made.spec;
    format!(
        "{:?} α {:.3} β {:.3} λ {:.3} T {:.3} ({:?} on {})",
        spec.method,
        spec.alpha,
        spec.beta,
        spec.lambda,
        spec.temperature,
        spec.selection.source,
        spec.selection.example_count
    )
}
