//! What AUTO learns from unlabelled pictures, over draws: a pool of the
//! classes' own pictures, none of them a test picture, and one with as many
//! again of other classes.

use anyhow::Result;
use tch::Tensor;
use tip_adapter::{
    formula::plain_logits,
    make::{HeadRequest, Made, make},
    material::Material,
    temperature::cross_entropy,
};

use super::{
    Row,
    comparison::share,
    draws::{draw, mean_and_spread, pool},
    features::Task,
    sets::{Set, sets, shots},
};

const DRAWS: u64 = 2;

/// The most that a pool may cost on average, in points.
const NOISE: f64 = 0.2;

/// Of one draw.
struct Gain {
    accuracy: f64,
    entropy: f64,
    used: bool,
}

/// The tables, and that a pool does not hurt.
pub fn rows() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    println!(
        "\n{DRAWS} draws: what a pool adds to AUTO's test accuracy (points) and cross-entropy \
         (nats), and in how many draws it was used"
    );
    for (what, dirty) in [("own classes", false), ("half of other classes", true)] {
        for shots in shots() {
            let mut all = Vec::new();
            for set in sets()? {
                let mut own = Vec::new();
                for seed in 0..DRAWS {
                    match gain(&set, shots, seed, dirty)? {
                        Some(gain) => own.push(gain),
                        None => break,
                    }
                }
                if !own.is_empty() {
                    println!("{:<14}{shots:>3}  {what}  {}", set.name, words(&own));
                }
                all.extend(own);
            }
            if all.is_empty() {
                continue;
            }
            println!("{:<14}{shots:>3}  {what}  {}", "mean", words(&all));
            let value = mean_and_spread(&all, |gain| gain.accuracy).0;
            rows.push(Row {
                row: format!("a pool of {what}, {shots} shots, points"),
                value,
                goal: format!("≥ −{NOISE}"),
                ok: value >= -NOISE,
            });
        }
    }
    Ok(rows)
}

/// None if the set leaves no pool.
fn gain(set: &Set, shots: usize, seed: u64, dirty: bool) -> Result<Option<Gain>> {
    let some = set.of_classes(set.whole().classes / 2, seed);
    let drawn = if dirty { &some } else { set };
    let (task, mut unlabelled) = (draw(drawn, shots, seed)?, pool(drawn, shots, seed)?);
    if task.classes < 2 || unlabelled.size()[0] < task.classes as i64 {
        return Ok(None);
    }
    if dirty {
        let others = set.without(&some)?;
        let count = unlabelled.size()[0].min(others.size()[0]);
        unlabelled = Tensor::cat(&[unlabelled, others.narrow(0, 0, count)], 0);
    }
    let without = figures(&task, &auto(&task, None)?)?;
    let made = auto(&task, Some(unlabelled))?;
    let with = figures(&task, &made)?;
    Ok(Some(Gain {
        accuracy: with.0 - without.0,
        entropy: with.1 - without.1,
        used: made.spec.unlabelled.is_some_and(|pool| pool.used),
    }))
}

fn auto(task: &Task, unlabelled: Option<Tensor>) -> Result<Made> {
    let material = Material {
        unlabelled,
        ..task.material(false)
    };
    Ok(make(&material, &HeadRequest::default(), &|_| true)?)
}

/// Test accuracy in per cent, cross-entropy.
fn figures(task: &Task, made: &Made) -> Result<(f64, f64)> {
    let (features, labels) = &task.test;
    let logits = plain_logits(&made.spec, &made.tensors, features)?;
    Ok((
        100.0 * share(&logits, labels),
        cross_entropy(&logits, labels, made.spec.temperature)?,
    ))
}

fn words(gains: &[Gain]) -> String {
    let (mean, spread) = mean_and_spread(gains, |gain| gain.accuracy);
    format!(
        "{mean:+.2} ± {spread:.2}  {:+.3}  {} of {}",
        mean_and_spread(gains, |gain| gain.entropy).0,
        gains.iter().filter(|gain| gain.used).count(),
        gains.len()
    )
}
