//! AUTO beside single methods over several draws of the shots, with the spread
//! between draws, and how far its probabilities are to be trusted.

use anyhow::Result;
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tch::{Kind, Tensor};
use tip_adapter::{
    evaluate::Evaluator,
    formula::plain_logits,
    make::{HeadRequest, make},
    spec::Method,
    temperature::{cross_entropy, fit_temperature},
};

use super::{
    Row,
    features::{self, SHOTS, Task},
};

const DRAWS: u64 = 3;

/// What AUTO must add to ProKeR, which AUTO chose until it stacked, in points.
const GAINS: [(usize, f64); 2] = [(2, 1.5), (4, 1.0)];

const COLUMNS: [(&str, Option<Method>); 4] = [
    ("GDA", Some(Method::Gda)),
    ("ProKeR", Some(Method::Proker)),
    ("class mean", Some(Method::ClassMean)),
    ("AUTO", None),
];

/// Of one head on the test examples.
#[derive(Clone, Copy, Default)]
struct Figures {
    accuracy: f64,
    entropy: f64,
    /// Above the least that any temperature gives.
    excess: f64,
    calibration: f64,
}

/// The table, and what it must show.
pub fn rows() -> Result<Vec<Row>> {
    let Some(folder) = features::folder() else {
        println!("draws: skipped, ../shared/data/clip-vitb32 is not there");
        return Ok(Vec::new());
    };
    println!(
        "\n{DRAWS} draws of the shots, accuracy % ± standard deviation between draws; of AUTO also \
         cross-entropy (above the best temperature's) and expected calibration error %"
    );
    let mut gains = vec![Vec::new(); GAINS.len()];
    for name in features::NAMES {
        for shots in SHOTS {
            let mut all: Vec<Vec<Figures>> = vec![Vec::new(); COLUMNS.len()];
            for seed in 0..DRAWS {
                let task = draw(&folder, name, shots, seed)?;
                for ((_, method), figures) in COLUMNS.into_iter().zip(&mut all) {
                    figures.push(measure(&task, method)?);
                }
            }
            print!("{name:<12}{shots:>4}");
            for ((label, _), figures) in COLUMNS.into_iter().zip(&all) {
                let (mean, spread) = mean_and_spread(figures, |f| f.accuracy);
                print!("  {label} {mean:.2} ± {spread:.2}");
            }
            if let Some(auto) = all.last() {
                let mean = |of: fn(&Figures) -> f64| mean_and_spread(auto, of).0;
                println!(
                    "  ({:.3}, +{:.3}, {:.1})",
                    mean(|f| f.entropy),
                    mean(|f| f.excess),
                    mean(|f| f.calibration)
                );
            }
            if name != "Caltech-39"
                && let Some(at) = GAINS.iter().position(|(at, _)| *at == shots)
                && let (Some(proker), Some(auto), Some(gains)) =
                    (all.get(1), all.get(3), gains.get_mut(at))
            {
                let differences = auto.iter().zip(proker);
                gains.extend(differences.map(|(a, p)| a.accuracy - p.accuracy));
            }
        }
    }
    Ok(GAINS
        .iter()
        .zip(&gains)
        .map(|((shots, least), gains)| {
            let value = gains.iter().sum::<f64>() / gains.len().max(1) as f64;
            Row {
                row: format!("AUTO − ProKeR at {shots} shots, Caltech101 and DTD, points"),
                value,
                goal: format!("≥ {least}"),
                ok: value >= *least,
            }
        })
        .collect())
}

/// A data set with shots drawn anew from its pool.
pub fn draw(folder: &std::path::Path, name: &'static str, shots: usize, seed: u64) -> Result<Task> {
    let mut task = features::load(folder, name, 16)?;
    let labels = Vec::<i64>::try_from(&task.keys.1)?;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut rows: Vec<i64> = Vec::new();
    for class in 0..task.classes as i64 {
        let mut own: Vec<i64> = (0..labels.len() as i64)
            .filter(|&row| labels.get(row as usize) == Some(&class))
            .collect();
        own.shuffle(&mut rng);
        rows.extend(own.into_iter().take(shots));
    }
    let rows = Tensor::from_slice(&rows);
    let pick = |t: &Tensor| t.index_select(0, &rows);
    task.keys = (pick(&task.keys.0), pick(&task.keys.1));
    Ok(task)
}

fn measure(task: &Task, method: Option<Method>) -> Result<Figures> {
    let request = HeadRequest {
        method,
        ..HeadRequest::default()
    };
    let made = make(&task.material(false), &request, &|_| true)?;
    let (features, labels) = &task.test;
    let logits = plain_logits(&made.spec, &made.tensors, features)?;
    let mut evaluator = Evaluator::new(task.classes);
    evaluator.add(&logits, labels, made.spec.temperature)?;
    let evaluation = evaluator.finish();
    let entropy = cross_entropy(&logits, labels, made.spec.temperature)?;
    let best = fit_temperature(&logits.to_kind(Kind::Double), labels)?.cross_entropy;
    Ok(Figures {
        accuracy: 100.0 * evaluation.top1,
        entropy,
        excess: entropy - best,
        calibration: 100.0 * evaluation.expected_calibration_error,
    })
}

fn mean_and_spread(figures: &[Figures], of: impl Fn(&Figures) -> f64) -> (f64, f64) {
    let count = figures.len().max(1) as f64;
    let mean = figures.iter().map(&of).sum::<f64>() / count;
    let squares: f64 = figures.iter().map(|f| (of(f) - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}
