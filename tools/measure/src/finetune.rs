//! Fine-tuning on the device: the same outcome as on the CPU, and how long.

use std::time::Instant;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::{Place, first};
use tip_adapter::{
    finetune::{Options, Progress, Trainer, TrainingSet, Tuned},
    head::Backend,
};
use tipserve_clip::cuda;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    #[arg(long, default_value_t = 50)]
    classes: i64,
    #[arg(long, default_value_t = 16)]
    shots: i64,
    #[arg(long, default_value_t = 128)]
    width: i64,
    #[arg(long, default_value_t = 10)]
    epochs: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Debug, clap::Args)]
pub struct TimeArgs {
    #[command(flatten)]
    place: Place,
    #[arg(long, default_value_t = 1000)]
    classes: i64,
    #[arg(long, default_value_t = 16)]
    shots: i64,
    #[arg(long, default_value_t = 1024)]
    width: i64,
    #[arg(long, default_value_t = 20)]
    epochs: usize,
}

/// Points around one centre a class, close enough to be confused.
struct Data {
    classes: i64,
    keys: Tensor,
    views: Tensor,
    labels: Tensor,
    linear: Tensor,
    validation: (Tensor, Tensor),
}

impl Data {
    fn new(classes: i64, shots: i64, width: i64, seed: u64) -> anyhow::Result<Data> {
        tch::manual_seed(seed as i64);
        let float = (Kind::Float, Device::Cpu);
        let unit = |rows: Tensor| -> anyhow::Result<Tensor> {
            Ok(rows.f_div(&rows.f_norm_scalaropt_dim(2.0, [1], true)?)?)
        };
        let centres = unit(Tensor::f_randn([classes, width], float)?)?;
        let around = |each: i64, spread: f64| -> anyhow::Result<Tensor> {
            let noise = Tensor::f_randn([classes, each, width], float)?;
            let scale = spread / (width as f64).sqrt();
            let rows = centres.f_unsqueeze(1)? + noise * scale;
            unit(rows.f_reshape([classes * each, width])?)
        };
        let labels = |each: i64| -> anyhow::Result<Tensor> {
            let labels = Tensor::f_arange(classes, (Kind::Int64, Device::Cpu))?;
            Ok(labels.f_repeat_interleave_self_int(each, None, None)?)
        };
        let keys = around(shots, 1.5)?;
        let text = unit(centres.f_add(
            &(Tensor::f_randn([classes, width], float)? * (1.5 / (width as f64).sqrt())),
        )?)?;
        Ok(Data {
            classes,
            views: keys.f_unsqueeze(1)?,
            keys,
            labels: labels(shots)?,
            linear: text * 20.0,
            validation: (around(8, 1.5)?, labels(8)?),
        })
    }

    fn train(&self, device: Device, epochs: usize, validate: bool) -> anyhow::Result<(Tuned, f64)> {
        let set = TrainingSet {
            classes: self.classes as usize,
            views: &self.views,
            keys: &self.keys,
            labels: &self.labels,
            linear: Some(&self.linear),
            bias: None,
            class_factor: None,
            validation: validate.then_some((&self.validation.0, &self.validation.1)),
        };
        let options = Options {
            epochs,
            ..Options::default()
        };
        let started = Instant::now();
        let mut trainer = Trainer::new(&set, &options, device, Backend::Automatic)?;
        while trainer.step()? != Progress::Finished {}
        let tuned = trainer.finish()?;
        cuda::synchronise(device);
        Ok((tuned, started.elapsed().as_secs_f64()))
    }
}

pub fn run(args: &Args) -> anyhow::Result<Value> {
    let device = first(&args.place.open()?);
    let data = Data::new(args.classes, args.shots, args.width, args.seed)?;
    let mut runs = Vec::new();
    for device in [Device::Cpu, device] {
        let (tuned, _) = data.train(device, args.epochs, true)?;
        let epochs: Vec<Value> = tuned
            .epochs
            .iter()
            .map(|epoch| {
                json!({
                    "loss": epoch.loss,
                    "accuracy": epoch.score.map(|score| score.accuracy),
                    "cross_entropy": epoch.score.map(|score| score.cross_entropy),
                })
            })
            .collect();
        runs.push(json!({"best_epoch": tuned.best_epoch, "epochs": epochs}));
    }
    let validated = args.classes * 8;
    Ok(json!({"cpu_then_device": runs, "validation_examples": validated}))
}

pub fn time(args: &TimeArgs) -> anyhow::Result<Value> {
    let device = first(&args.place.open()?);
    let data = Data::new(args.classes, args.shots, args.width, 1)?;
    // Once for a moment: the device's libraries load at their first use.
    let _warm = data.train(device, 1, false)?;
    let (tuned, seconds) = data.train(device, args.epochs, false)?;
    let loss = |epoch: usize| tuned.epochs.get(epoch).and_then(|report| report.loss);
    Ok(json!({"seconds": seconds, "first_loss": loss(1), "last_loss": loss(args.epochs)}))
}
