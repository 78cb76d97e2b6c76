//! Draws of the shots, and what AUTO adds to the method that it chose until it
//! stacked.

use anyhow::Result;
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tch::Tensor;
use tip_adapter::{
    formula::plain_logits,
    make::{HeadRequest, make},
    spec::Method,
};

use super::{
    Row,
    comparison::share,
    features::Task,
    sets::{Set, sets},
};

const DRAWS: u64 = 3;

/// What AUTO must add to ProKeR, in points.
const GAINS: [(usize, f64); 2] = [(2, 1.5), (4, 1.0)];

/// The rows of Caltech101 and DTD.
pub fn rows() -> Result<Vec<Row>> {
    let sets = sets()?;
    let mut rows = Vec::new();
    println!("\nAUTO and ProKeR on Caltech101 and DTD, {DRAWS} draws, accuracy %");
    for (shots, least) in GAINS {
        let mut gains = Vec::new();
        for set in &sets {
            if !["Caltech101", "DTD"].contains(&set.name.as_str()) {
                continue;
            }
            for seed in 0..DRAWS {
                let task = draw(set, shots, seed)?;
                let auto = accuracy(&task, None)?;
                let proker = accuracy(&task, Some(Method::Proker))?;
                println!(
                    "{:<12}{shots:>4}  AUTO {auto:.2}  ProKeR {proker:.2}",
                    set.name
                );
                gains.push(auto - proker);
            }
        }
        if gains.is_empty() {
            println!("draws: skipped, ../shared/data/clip-vitb32 is not there");
            return Ok(rows);
        }
        let (value, spread) = mean_and_spread(&gains, |gain| *gain);
        rows.push(Row {
            row: format!("AUTO − ProKeR at {shots} shots, points (± {spread:.2} between draws)"),
            value,
            goal: format!("≥ {least}"),
            ok: value >= least,
        });
    }
    Ok(rows)
}

/// A set's shots drawn anew.
pub fn draw(set: &Set, shots: usize, seed: u64) -> Result<Task> {
    let rows = rows_of_draw(set, shots, seed)?;
    let whole = set.whole();
    Ok(Task {
        keys: (
            whole.keys.0.index_select(0, &rows),
            whole.keys.1.index_select(0, &rows),
        ),
        ..whole.shallow_clone()
    })
}

/// The rows of a set's keys that are drawn, i64.
pub fn rows_of_draw(set: &Set, shots: usize, seed: u64) -> Result<Tensor> {
    Ok(split(set, shots, seed)?.0)
}

/// The pictures that neither the draw nor the test has, f32 [U, D].
pub fn pool(set: &Set, shots: usize, seed: u64) -> Result<Tensor> {
    let (_, rest) = split(set, shots, seed)?;
    let whole = set.whole();
    let rest = whole.keys.0.index_select(0, &rest);
    Ok(Tensor::cat(&[rest, whole.validation.0.shallow_clone()], 0))
}

/// The rows drawn, and the others, i64.
fn split(set: &Set, shots: usize, seed: u64) -> Result<(Tensor, Tensor)> {
    let whole = set.whole();
    let labels = Vec::<i64>::try_from(&whole.keys.1)?;
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut rows, mut rest): (Vec<i64>, Vec<i64>) = (Vec::new(), Vec::new());
    for class in 0..whole.classes as i64 {
        let mut own: Vec<i64> = (0..labels.len() as i64)
            .filter(|&row| labels.get(row as usize) == Some(&class))
            .collect();
        own.shuffle(&mut rng);
        let left = own.split_off(shots.min(own.len()));
        rows.extend(own);
        rest.extend(left);
    }
    Ok((Tensor::from_slice(&rows), Tensor::from_slice(&rest)))
}

fn accuracy(task: &Task, method: Option<Method>) -> Result<f64> {
    let request = HeadRequest {
        method,
        ..HeadRequest::default()
    };
    let made = make(&task.material(false), &request, &|_| true)?;
    let logits = plain_logits(&made.spec, &made.tensors, &task.test.0)?;
    Ok(100.0 * share(&logits, &task.test.1))
}

/// Mean and standard deviation of a figure.
pub fn mean_and_spread<T>(figures: &[T], of: impl Fn(&T) -> f64) -> (f64, f64) {
    let count = figures.len().max(1) as f64;
    let mean = figures.iter().map(&of).sum::<f64>() / count;
    let squares: f64 = figures.iter().map(|f| (of(f) - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}
