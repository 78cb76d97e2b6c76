//! Fine-tuning without validation examples over several draws of the shots: the
//! head before and after, beside the keys trained by the authors' recipe.

use std::time::Instant;

use anyhow::Result;
use tip_adapter::{
    formula::plain_logits,
    make::{HeadRequest, Made, make},
    residual::tune,
    spec::Method,
};

use super::{
    Row,
    comparison::{share, trained_keys},
    draws::{draw, mean_and_spread},
    features::Task,
    sets::{sets, shots},
};

const DRAWS: u64 = 3;

/// What may be lost on average, in points: a tenth of what differs from draw to
/// draw.
const NOISE: f64 = 0.1;

const BASES: [(&str, Option<Method>); 3] = [
    ("AUTO", None),
    ("GDA", Some(Method::Gda)),
    ("class mean", Some(Method::ClassMean)),
];

/// The table, and what it must show: no base ends lower on average.
pub fn rows() -> Result<Vec<Row>> {
    println!(
        "\n{DRAWS} draws of the shots, test accuracy %: before → after fine-tuning (kept in so \
         many draws); Tip-Adapter-F by the authors' recipe without validation examples; seconds \
         of the first base's tuning"
    );
    let mut changes = vec![Vec::new(); BASES.len()];
    for set in &sets()? {
        for shots in shots().into_iter().filter(|&shots| shots > 1) {
            let tasks = (0..DRAWS)
                .map(|seed| draw(set, shots, seed))
                .collect::<Result<Vec<_>>>()?;
            print!("{:<12}{shots:>4}", set.name);
            for ((label, method), changes) in BASES.into_iter().zip(&mut changes) {
                let (mut before, mut after, mut kept, mut seconds) = (0.0, 0.0, 0, 0.0);
                for task in &tasks {
                    let began = Instant::now();
                    let one = tuned(task, method)?;
                    seconds += began.elapsed().as_secs_f64();
                    before += one.before / DRAWS as f64;
                    after += one.after / DRAWS as f64;
                    kept += usize::from(one.kept);
                    changes.push(one.after - one.before);
                    if one.kept {
                        print!("  [{}]", one.words);
                    }
                }
                print!("  {label} {before:.2} → {after:.2} ({kept})");
                if method.is_none() {
                    print!(" [{:.1} s]", seconds / DRAWS as f64);
                }
            }
            let mut keys = 0.0;
            for task in &tasks {
                keys += 100.0 * share(&trained_keys(task)?, &task.test.1) / DRAWS as f64;
            }
            println!("  Tip-Adapter-F {keys:.2}");
        }
    }
    Ok(BASES
        .iter()
        .zip(&changes)
        .map(|((label, _), changes)| {
            let (value, spread) = mean_and_spread(changes, |change| *change);
            Row {
                row: format!("fine-tuned − {label}, points (± {spread:.2} between draws)"),
                value,
                goal: format!("≥ −{NOISE}"),
                ok: value >= -NOISE,
            }
        })
        .collect())
}

struct Tuned {
    before: f64,
    after: f64,
    kept: bool,
    /// What the decision was made on, and what the test says.
    words: String,
}

fn tuned(task: &Task, method: Option<Method>) -> Result<Tuned> {
    let request = HeadRequest {
        method,
        ..HeadRequest::default()
    };
    let material = task.material(false);
    let made = make(&material, &request, &|_| true)?;
    let before = accuracy(task, &made)?;
    let tuning = tune(&material, made, &|_| true, &|| true)?;
    let after = match &tuning.made {
        Some(made) => accuracy(task, made)?,
        None => before,
    };
    let (old, new) = (tuning.before, tuning.after);
    Ok(Tuned {
        words: format!(
            "unseen: cross-entropy better by {:.1} standard errors, accuracy by {:+.2}; test {:+.2}",
            (old.cross_entropy - new.cross_entropy) / tuning.error,
            100.0 * (new.accuracy - old.accuracy),
            after - before
        ),
        before,
        after,
        kept: tuning.made.is_some(),
    })
}

fn accuracy(task: &Task, made: &Made) -> Result<f64> {
    let (features, labels) = &task.test;
    let logits = plain_logits(&made.spec, &made.tensors, features)?;
    Ok(100.0 * share(&logits, labels))
}
