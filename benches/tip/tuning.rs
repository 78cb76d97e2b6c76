//! Fine-tuning without validation examples over several draws of the shots: the
//! head before and after, beside the keys trained by the authors' recipe.

use std::time::Instant;

use anyhow::Result;
use tch::{Device, Kind, Tensor};
use tip_adapter::{
    finetune::{Options, Progress, Trainer, TrainingSet},
    formula::plain_logits,
    head::Backend,
    make::{HeadRequest, Made, make},
    residual::tune,
    spec::Method,
};

use super::{
    Row,
    draws::draw,
    features::{self, Task},
};

const DRAWS: u64 = 3;
const SHOTS: [usize; 4] = [2, 4, 8, 16];

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
    let Some(folder) = features::folder() else {
        println!("tuning: skipped, ../shared/data/clip-vitb32 is not there");
        return Ok(Vec::new());
    };
    println!(
        "\n{DRAWS} draws of the shots, test accuracy %: before → after fine-tuning (kept in so \
         many draws); Tip-Adapter-F by the authors' recipe without validation examples; seconds \
         of the first base's tuning"
    );
    let mut changes = vec![Vec::new(); BASES.len()];
    for name in features::NAMES {
        for shots in SHOTS {
            let tasks = (0..DRAWS)
                .map(|seed| draw(&folder, name, shots, seed))
                .collect::<Result<Vec<_>>>()?;
            print!("{name:<12}{shots:>4}");
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
                }
                print!("  {label} {before:.2} → {after:.2} ({kept})");
                if method.is_none() {
                    print!(" [{:.1} s]", seconds / DRAWS as f64);
                }
            }
            let mut keys = 0.0;
            for task in &tasks {
                keys += trained_keys(task)? / DRAWS as f64;
            }
            println!("  Tip-Adapter-F {keys:.2}");
        }
    }
    Ok(BASES
        .iter()
        .zip(&changes)
        .map(|((label, _), changes)| {
            let value = changes.iter().sum::<f64>() / changes.len().max(1) as f64;
            Row {
                row: format!("fine-tuned − {label}, mean of all, points"),
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
    Ok(Tuned {
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

/// Tip-Adapter-F as `FineTune` runs it by name: α 1.17 and β 1 throughout, the
/// last epoch, as nothing can choose another.
fn trained_keys(task: &Task) -> Result<f64> {
    let (keys, labels) = &task.keys;
    let views = keys.unsqueeze(1);
    let linear = task.text.as_ref().map(|text| text * 100.0);
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
    let mut trainer = Trainer::new(&set, &options, Device::Cpu, Backend::Automatic)?;
    while trainer.step()? != Progress::Finished {}
    let tuned = trainer.finish()?;
    let (features, truth) = &task.test;
    let one_hot = labels.one_hot(task.classes as i64).to_kind(Kind::Float);
    let cosines = features.matmul(&tuned.keys.tr());
    let mut logits = ((cosines - 1.0) * tuned.beta).exp().matmul(&one_hot) * tuned.alpha;
    if let Some(linear) = &linear {
        logits = logits + features.matmul(&linear.tr());
    }
    Ok(100.0 * share(&logits, truth))
}

fn share(logits: &Tensor, labels: &Tensor) -> f64 {
    let right = logits.argmax(1, false).eq_tensor(labels);
    right
        .to_kind(Kind::Double)
        .mean(Kind::Double)
        .double_value(&[])
}
