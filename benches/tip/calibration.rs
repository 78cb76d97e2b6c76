//! How far probabilities can be trusted, for every method and number of shots:
//! expected calibration error and cross-entropy in excess of those at the best
//! temperature on the test examples.

use anyhow::Result;
use tch::{Kind, Tensor};
use tip_adapter::{
    evaluate::Evaluator,
    formula::plain_logits,
    make::{HeadRequest, Made, make},
    residual::tune,
    spec::Method,
    temperature::{cross_entropy, fit_temperature},
};

use super::{
    Row,
    draws::{draw, mean_and_spread},
    features::Task,
    sets::{Set, sets, shots},
};

const DRAWS: u64 = 2;

/// The bars: points of calibration error, nats.
const BARS: (f64, f64) = (2.0, 0.03);

const METHODS: [(&str, Option<Method>); 5] = [
    ("Tip-Adapter", Some(Method::TipAdapter)),
    ("GDA", Some(Method::Gda)),
    ("ProKeR", Some(Method::Proker)),
    ("class mean", Some(Method::ClassMean)),
    ("AUTO", None),
];

/// Excess over the best temperature's.
#[derive(Clone, Copy)]
struct Excess {
    calibration: f64,
    entropy: f64,
    /// log of the best temperature over the head's.
    off: f64,
}

/// The table of all methods, AUTO fine-tuned among them.
pub fn rows() -> Result<Vec<Row>> {
    let sets = with_subsets(sets()?);
    println!(
        "\n{} sets, {DRAWS} draws: points of expected calibration error and nats of cross-entropy \
         above those of the best temperature; log of that over the head's ± spread",
        sets.len()
    );
    let mut rows = Vec::new();
    if sets.is_empty() {
        return Ok(rows);
    }
    for shots in shots() {
        let mut all: Vec<Vec<Excess>> = vec![Vec::new(); METHODS.len() + 1];
        for set in &sets {
            let mut own: Vec<Vec<Excess>> = vec![Vec::new(); METHODS.len() + 1];
            for seed in 0..DRAWS {
                let task = draw(set, shots, seed)?;
                for ((_, method), own) in METHODS.into_iter().zip(&mut own) {
                    own.push(excess(&task, &head(&task, method)?)?);
                }
                if let (Some(own), Some(tuned)) = (own.last_mut(), tuned(&task)?) {
                    own.push(excess(&task, &tuned)?);
                }
            }
            print!("{:<22}{shots:>3}", set.name);
            for ((name, all), own) in names().zip(&mut all).zip(&own) {
                if !own.is_empty() {
                    print!("  {name} {}", words(own));
                }
                all.extend(own);
            }
            println!();
        }
        for (name, all) in names().zip(&all).filter(|(_, all)| !all.is_empty()) {
            println!("{:<22}{shots:>3}  {name} {}", "mean", words(all));
            let calibration = mean_and_spread(all, |e| e.calibration).0;
            let entropy = mean_and_spread(all, |e| e.entropy).0;
            rows.push(Row {
                row: format!("{name}, {shots} shots, excess calibration error, points"),
                value: calibration,
                goal: format!("≤ {}", BARS.0),
                ok: calibration <= BARS.0,
            });
            rows.push(Row {
                row: format!("{name}, {shots} shots, excess cross-entropy, nats"),
                value: entropy,
                goal: format!("≤ {}", BARS.1),
                ok: entropy <= BARS.1,
            });
        }
    }
    Ok(rows)
}

fn names() -> impl Iterator<Item = &'static str> {
    METHODS
        .into_iter()
        .map(|(name, _)| name)
        .chain(["AUTO fine-tuned"])
}

/// Sets of some classes in addition to the whole ones.
fn with_subsets(sets: Vec<Set>) -> Vec<Set> {
    let some: Vec<Set> = sets
        .iter()
        .filter(|set| set.whole().classes > 20)
        .map(|set| set.of_classes(15, 1))
        .collect();
    sets.into_iter().chain(some).collect()
}

fn head(task: &Task, method: Option<Method>) -> Result<Made> {
    let request = HeadRequest {
        method,
        ..HeadRequest::default()
    };
    Ok(make(&task.material(false), &request, &|_| true)?)
}

/// AUTO fine-tuned; none if that changed nothing.
fn tuned(task: &Task) -> Result<Option<Made>> {
    let made = head(task, None)?;
    Ok(tune(&task.material(false), made, &|_| true, &|| true)?.made)
}

fn excess(task: &Task, made: &Made) -> Result<Excess> {
    let (features, labels) = &task.test;
    let logits = plain_logits(&made.spec, &made.tensors, features)?;
    let best = fit_temperature(&logits.to_kind(Kind::Double), labels)?;
    let at = |temperature: f64| -> Result<(f64, f64)> {
        Ok((
            calibration_error(task.classes, &logits, labels, temperature)?,
            cross_entropy(&logits, labels, temperature)?,
        ))
    };
    let (ours, least) = (at(made.spec.temperature)?, at(best.temperature)?);
    Ok(Excess {
        calibration: ours.0 - least.0,
        entropy: ours.1 - least.1,
        off: (best.temperature / made.spec.temperature).ln(),
    })
}

fn calibration_error(
    classes: usize,
    logits: &Tensor,
    labels: &Tensor,
    temperature: f64,
) -> Result<f64> {
    let mut evaluator = Evaluator::new(classes);
    evaluator.add(logits, labels, temperature)?;
    Ok(100.0 * evaluator.finish().expected_calibration_error)
}

fn words(all: &[Excess]) -> String {
    let (off, spread) = mean_and_spread(all, |e| e.off);
    format!(
        "{:+.1} {:+.3} ({off:+.2} ± {spread:.2})",
        mean_and_spread(all, |e| e.calibration).0,
        mean_and_spread(all, |e| e.entropy).0
    )
}
