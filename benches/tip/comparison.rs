//! Every method and the usual baselines on the same features and shots, with
//! the seconds that each takes to learn.

use std::{collections::BTreeMap, time::Instant};

use anyhow::Result;
use tch::{Kind, Tensor};
use tip_adapter::{
    finetune::{Options, Progress, Trainer, TrainingSet},
    formula::plain_logits,
    head::Backend,
    make::{HeadRequest, make},
    spec::Method,
};

use super::{
    Row,
    baselines::{clip_adapter, linear_probe},
    draws::{draw, mean_and_spread},
    features::Task,
    sets::{sets, shots},
    shots::path,
};

/// Draws of the shots for each set.
pub const DRAWS: u64 = 3;

/// What is compared; the last is AUTO.
const COLUMNS: [&str; 9] = [
    "zero-shot",
    "linear probe",
    "CLIP-Adapter",
    "Tip-Adapter",
    "Tip-Adapter-F",
    "GDA",
    "ProKeR",
    "class mean",
    "AUTO",
];

/// The table, and what it must show: at each number of shots AUTO's mean over
/// all sets is that of the best other column.
pub fn rows() -> Result<Vec<Row>> {
    let sets = sets()?;
    if sets.is_empty() {
        println!(
            "comparison: skipped, neither ../shared/data nor target/bench/pictures.npz is there"
        );
        return Ok(Vec::new());
    }
    println!(
        "\n{DRAWS} draws of the shots: test accuracy % ± standard deviation between draws (seconds \
         to learn); no validation examples"
    );
    let mut sums: Vec<Vec<Vec<f64>>> = vec![vec![Vec::new(); COLUMNS.len()]; shots().len()];
    for set in &sets {
        for (sums, shots) in sums.iter_mut().zip(shots()) {
            let mut all = vec![(Vec::new(), 0.0); COLUMNS.len()];
            for seed in 0..DRAWS {
                let task = draw(set, shots, seed)?;
                for (name, (accuracies, seconds)) in COLUMNS.into_iter().zip(&mut all) {
                    if !wanted(name) {
                        continue;
                    }
                    let began = Instant::now();
                    let Some(logits) = logits(&task, name, seed)? else {
                        continue;
                    };
                    *seconds += began.elapsed().as_secs_f64() / DRAWS as f64;
                    accuracies.push(100.0 * share(&logits, &task.test.1));
                }
            }
            print!("{:<12}{shots:>4}", set.name);
            for ((name, (accuracies, seconds)), sums) in COLUMNS.into_iter().zip(&all).zip(sums) {
                if accuracies.is_empty() {
                    continue;
                }
                let (mean, spread) = mean_and_spread(accuracies, |a| *a);
                print!("  {name} {mean:.2} ± {spread:.2} ({seconds:.2} s)");
                sums.push(mean);
            }
            println!();
        }
    }
    let learners = learners()?;
    let mut rows = Vec::new();
    for (sums, shots) in sums.iter().zip(shots()) {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let auto = sums.last().map_or(0.0, |values| mean(values));
        let others = COLUMNS.into_iter().zip(sums).take(COLUMNS.len() - 1);
        // Only what runs on every set.
        let best = others
            .filter(|(_, values)| values.len() == sets.len())
            .map(|(name, values)| (name, mean(values)))
            .fold(("", 0.0), |a, b| if b.1 > a.1 { b } else { a });
        rows.push(Row {
            row: format!(
                "AUTO, mean of {} sets at {shots} shots, accuracy %",
                sets.len()
            ),
            value: auto,
            goal: format!("≥ {:.2} ({})", best.1, best.0),
            ok: auto >= best.1,
        });
        if let Some((name, best)) = best_learner(&learners, shots, sets.len()) {
            rows.push(Row {
                row: format!("the same beside scikit-learn's {name}"),
                value: auto,
                goal: format!("≥ {best:.2}"),
                ok: auto >= best,
            });
        }
    }
    Ok(rows)
}

/// Whether a column is measured: if it is in the comma-separated
/// TIPSERVE_BENCH_COLUMNS, or there is no such list.
fn wanted(name: &str) -> bool {
    std::env::var("TIPSERVE_BENCH_COLUMNS")
        .map_or(true, |list| list.split(',').any(|part| part == name))
}

/// By set, shots and learner the accuracy of each draw, per cent.
type Learners = BTreeMap<String, BTreeMap<String, BTreeMap<String, Vec<f64>>>>;

/// What `benches/tip/learners.py` found; empty if it did not run.
fn learners() -> Result<Learners> {
    match std::fs::read_to_string(path("learners.json")) {
        Ok(text) => Ok(serde_json::from_str(&text)?),
        Err(_) => Ok(Learners::new()),
    }
}

/// scikit-learn's classifier with the best mean over all sets, of those that ran
/// on every one, and prints the means of all.
fn best_learner(learners: &Learners, shots: usize, sets: usize) -> Option<(&str, f64)> {
    let mut means: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for of_set in learners.values() {
        for (name, draws) in of_set.get(&shots.to_string()).into_iter().flatten() {
            let mean = draws.iter().sum::<f64>() / draws.len().max(1) as f64;
            means.entry(name).or_default().push(mean);
        }
    }
    print!("scikit-learn{shots:>4}");
    let mut best: Option<(&str, f64)> = None;
    for (name, means) in means.iter().filter(|(_, means)| means.len() == sets) {
        let mean = means.iter().sum::<f64>() / sets as f64;
        print!("  {name} {mean:.2}");
        if best.is_none_or(|(_, best)| mean > best) {
            best = Some((name, mean));
        }
    }
    println!();
    best
}

/// Of the test examples; none if a method needs what the set lacks.
fn logits(task: &Task, name: &str, seed: u64) -> Result<Option<Tensor>> {
    let method = match name {
        "zero-shot" if task.text.is_none() => return Ok(None),
        "zero-shot" => Some(Method::ZeroShot),
        "linear probe" => return linear_probe(task).map(Some),
        "CLIP-Adapter" => return clip_adapter(task, seed as i64),
        "Tip-Adapter-F" => return trained_keys(task).map(Some),
        "Tip-Adapter" => Some(Method::TipAdapter),
        "GDA" => Some(Method::Gda),
        "ProKeR" => Some(Method::Proker),
        "class mean" => Some(Method::ClassMean),
        _ => None,
    };
    let request = HeadRequest {
        method,
        ..HeadRequest::default()
    };
    let made = make(&task.material(false), &request, &|_| true)?;
    Ok(Some(plain_logits(&made.spec, &made.tensors, &task.test.0)?))
}

/// Tip-Adapter-F as `FineTune` runs it by name: α 1.17 and β 1 throughout, the
/// last epoch, as nothing can choose another.
pub fn trained_keys(task: &Task) -> Result<Tensor> {
    let (keys, labels) = &task.keys;
    let views = keys.unsqueeze(1);
    let linear = task.text.as_ref().map(|text| text * task.logit_scale);
    let set = TrainingSet {
        classes: task.classes,
        views: &views,
        keys,
        labels,
        linear: linear.as_ref(),
        bias: None,
        class_factor: None,
        validation: None,
    };
    let options = Options {
        alpha: 1.17,
        ..Options::default()
    };
    let mut trainer = Trainer::new(&set, &options, tch::Device::Cpu, Backend::Automatic)?;
    while trainer.step()? != Progress::Finished {}
    let tuned = trainer.finish()?;
    let features = &task.test.0;
    let one_hot = labels.one_hot(task.classes as i64).to_kind(Kind::Float);
    let cosines = features.matmul(&tuned.keys.tr());
    let mut logits = ((cosines - 1.0) * tuned.beta).exp().matmul(&one_hot) * tuned.alpha;
    if let Some(linear) = &linear {
        logits += features.matmul(&linear.tr());
    }
    Ok(logits)
}

/// Share of the rows that are largest at their true class.
pub fn share(logits: &Tensor, labels: &Tensor) -> f64 {
    let right = logits.argmax(1, false).eq_tensor(labels);
    right
        .to_kind(Kind::Double)
        .mean(Kind::Double)
        .double_value(&[])
}
