//! Accuracy by shots: heads made from random subsets of the examples, judged
//! on the others; the last point is the left-out accuracy itself.

use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tch::{Kind, Tensor};

use super::labels::Judged;
use crate::{
    error::TipError,
    formula::plain_logits,
    hold_out::{ROUND_LIMIT, copies},
    make::make,
    material::Material,
    request::{HeadRequest, Pool},
    score::right,
    spec::{HeadSpec, Method},
    watch::Watch,
};

/// Keys of a subset, at most.
const TRAIN_LIMIT: usize = 1024;

/// Most examples that a subset's head is judged on.
const JUDGE_LIMIT: usize = 2048;

/// Quantile of the normal distribution: nine in ten lie within it on both
/// sides.
const NINE_IN_TEN: f64 = 1.645;

/// Slope of log error over log shots if the curve does not tell: the error
/// falls with the root of the shots.
pub(super) const USUAL_SLOPE: f64 = -0.5;

/// An error counts as at least half an example.
const HALF: f64 = 0.5;

/// How well heads made from a given number of shots do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurvePoint {
    /// Shots of each class; classes that have fewer gave all but one.
    pub shots: usize,
    /// Share classified rightly, the mean over the draws.
    pub accuracy: f64,
    /// Lower end of the band of nine in ten.
    pub low: f64,
    /// Upper end of the same band.
    pub high: f64,
    /// Subsets drawn; the last point is of the left-out answers, once.
    pub draws: usize,
    /// Standard error of the accuracy.
    error: f64,
}

/// The random subsets of a point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draws {
    /// Subsets drawn at each point.
    pub count: usize,
    /// Seed of every random choice.
    pub seed: u64,
}

/// The accuracy to expect of twice the shots.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Shots of each class, twice what the version has.
    pub shots: usize,
    /// Share expected to be classified rightly.
    pub accuracy: f64,
    /// Lower end of the band of nine in ten.
    pub low: f64,
    /// Upper end of the same band.
    pub high: f64,
}

/// Points at 1, 2, 4, 8, … shots by random subsets, and the left-out accuracy.
pub(super) fn points(
    material: &Material,
    spec: &HeadSpec,
    judged: &Judged,
    draws: Draws,
    watch: &Watch<'_>,
    skipped: &mut Vec<String>,
) -> Result<Vec<CurvePoint>, TipError> {
    let shots = judged.usual_shots();
    let rounds = shots.min(ROUND_LIMIT as usize).max(1);
    let left = shots - shots.div_ceil(rounds);
    let classes = shots_by_class(material)?;
    let mut points = Vec::new();
    let mut next = 1;
    while next < left && spec.method != Method::ZeroShot {
        let keys: usize = classes.iter().map(|rows| given(rows.len(), next)).sum();
        if keys > TRAIN_LIMIT {
            skipped.push(format!(
                "subsets of {next} examples a class and more have over {TRAIN_LIMIT} examples: no \
                 points of the curve there, but for the last"
            ));
            break;
        }
        points.extend(point(material, spec, &classes, next, draws, watch)?);
        next *= 2;
    }
    let (accuracy, error) = (judged.accuracy(), judged.accuracy_error());
    points.push(CurvePoint {
        shots: left,
        accuracy,
        low: (accuracy - NINE_IN_TEN * error).max(0.0),
        high: (accuracy + NINE_IN_TEN * error).min(1.0),
        draws: 1,
        error,
    });
    Ok(points)
}

/// How many of a class's shots a subset has: one is kept to judge by.
fn given(of: usize, shots: usize) -> usize {
    shots.min(of.saturating_sub(1).max(usize::from(of == 1)))
}

/// The rows of each class; copies of one picture stand for one shot together.
fn shots_by_class(material: &Material) -> Result<Vec<Vec<Vec<usize>>>, TipError> {
    let labels = Vec::<i64>::try_from(&material.labels)?;
    let copies = copies(material, &labels)?;
    let mut place: Vec<Option<(usize, usize)>> = vec![None; labels.len()];
    let mut classes: Vec<Vec<Vec<usize>>> = vec![Vec::new(); material.classes];
    for (row, (&label, &first)) in labels.iter().zip(&copies).enumerate() {
        let known = place.get(first).copied().flatten();
        let class = usize::try_from(label).ok();
        match (known, class.and_then(|class| classes.get_mut(class))) {
            (Some((_, at)), Some(shots)) => {
                if let Some(shot) = shots.get_mut(at) {
                    shot.push(row);
                }
            }
            (None, Some(shots)) => {
                if let (Some(slot), Some(class)) = (place.get_mut(row), class) {
                    *slot = Some((class, shots.len()));
                }
                shots.push(vec![row]);
            }
            (_, None) => {}
        }
    }
    Ok(classes)
}

fn point(
    material: &Material,
    spec: &HeadSpec,
    classes: &[Vec<Vec<usize>>],
    shots: usize,
    draws: Draws,
    watch: &Watch<'_>,
) -> Result<Option<CurvePoint>, TipError> {
    // Each point has its own draws, independent of the others.
    let mut rng = StdRng::seed_from_u64(draws.seed ^ (shots as u64).rotate_left(32));
    let mut accuracies = Vec::with_capacity(draws.count);
    let mut judged = 0;
    for _ in 0..draws.count {
        watch.step(spec.method, accuracies.len(), draws.count)?;
        let (mut train, mut rest): (Vec<i64>, Vec<i64>) = (Vec::new(), Vec::new());
        for class in classes {
            let mut order: Vec<&Vec<usize>> = class.iter().collect();
            order.shuffle(&mut rng);
            let split = given(order.len(), shots);
            let (own, others) = order.split_at(split.min(order.len()));
            train.extend(
                own.iter()
                    .flat_map(|shot| shot.iter().map(|&row| row as i64)),
            );
            rest.extend(
                others
                    .iter()
                    .filter_map(|shot| shot.first().map(|&row| row as i64)),
            );
        }
        if rest.is_empty() || train.is_empty() {
            return Ok(None);
        }
        rest.shuffle(&mut rng);
        rest.truncate(JUDGE_LIMIT);
        train.sort_unstable();
        judged = rest.len();
        accuracies.push(accuracy(material, spec, &train, &rest, watch)?);
    }
    let count = accuracies.len() as f64;
    let mean = accuracies.iter().sum::<f64>() / count;
    let chance = (mean * (1.0 - mean) / judged.max(1) as f64).sqrt();
    let spread = if accuracies.len() > 1 {
        let squares: f64 = accuracies.iter().map(|a| (a - mean).powi(2)).sum();
        (squares / (count - 1.0)).sqrt()
    } else {
        chance
    };
    Ok(Some(CurvePoint {
        shots,
        accuracy: mean,
        low: (mean - NINE_IN_TEN * spread).max(0.0),
        high: (mean + NINE_IN_TEN * spread).min(1.0),
        draws: accuracies.len(),
        error: (spread * spread / count).sqrt().max(chance / count.sqrt()),
    }))
}

/// The share of `rest` that a head made from `train` classifies rightly.
fn accuracy(
    material: &Material,
    spec: &HeadSpec,
    train: &[i64],
    rest: &[i64],
    watch: &Watch<'_>,
) -> Result<f64, TipError> {
    let subset = Material {
        validation: None,
        ..material.with_rows(&Tensor::f_from_slice(train)?)?
    };
    let rest = Tensor::f_from_slice(rest)?;
    // Left-out answers, the last point among them, are of heads without a pool.
    let request = HeadRequest {
        pool: Pool::Ignore,
        ..HeadRequest::like(spec)
    };
    let made = make(&subset, &request, watch.0)?;
    let logits = plain_logits(
        &made.spec,
        &made.tensors,
        &material.keys.f_index_select(0, &rest)?,
    )?;
    let labels = material.labels.f_index_select(0, &rest)?;
    Ok(right(&logits.f_to_kind(Kind::Double)?, &labels)? as f64 / labels.numel().max(1) as f64)
}

/// Accuracy at twice the shots: log error is taken for a line over log shots,
/// through the last point with the slope of all. Also that slope, at most 0.
pub(super) fn forecast(points: &[CurvePoint], judged: &Judged) -> (Option<Forecast>, f64) {
    let (Some(last), true) = (points.last(), points.len() > 1) else {
        return (None, USUAL_SLOPE);
    };
    let least = HALF / judged.count().max(1) as f64;
    let line: Vec<(f64, f64)> = (points.iter())
        .map(|it| ((it.shots as f64).ln(), (1.0 - it.accuracy).max(least).ln()))
        .collect();
    let count = line.len() as f64;
    let mean_x = line.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = line.iter().map(|(_, y)| y).sum::<f64>() / count;
    let spread: f64 = line.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let along: f64 = (line.iter())
        .map(|(x, y)| (x - mean_x) * (y - mean_y))
        .sum();
    let slope = (along / spread).min(0.0);
    if points.len() < 3 {
        return (None, slope);
    }
    let off: f64 = (line.iter())
        .map(|(x, y)| (y - mean_y - slope * (x - mean_x)).powi(2))
        .sum();
    let slope_error = (off / (count - 2.0) / spread).sqrt();
    let shots = 2 * judged.usual_shots();
    let error = (1.0 - last.accuracy).max(least);
    let far = (shots as f64 / last.shots.max(1) as f64).ln();
    let log = error.ln() + slope * far;
    let uncertain = ((last.error / error).powi(2) + (slope_error * far).powi(2)).sqrt();
    let at = |log: f64| (1.0 - log.exp()).clamp(0.0, 1.0);
    let forecast = Forecast {
        shots,
        accuracy: at(log),
        low: at(log + NINE_IN_TEN * uncertain),
        high: at(log - NINE_IN_TEN * uncertain),
    };
    (Some(forecast), slope)
}
