//! One fine-tuning: from a version's tensors to the next version's.

use std::time::Instant;

use tch::{Kind, Tensor};

use super::{
    CatalogError, RunProgress, TuneRecipe, TuneRequest,
    classifier::refuse_multi_label,
    create::head_tensors,
    finite::check_reach,
    material::contrast,
    precision,
    residual::{ResidualTuned, tune_residual},
    run::TuneJob,
    tensors,
};
use crate::telemetry;
use tip_adapter::{
    finetune::{Progress, TrainError, Trainer, TrainingSet, Tuned},
    head::{Backend, Values},
    make::{HeadRequest, Made},
    material::Material,
    retune::{SearchOn, retune, training_factors},
};
use tip_spec::{ContrastSpec, Method, UnlabelledUse};
use tipserve_engine::Engine;
use tipserve_store::{
    Details, Draft, FineTuneRecipe, FineTuneRecord, Manifest, NamedTensor, TensorFile,
    tensors::names,
};

/// Tensors of a version that its children inherit.
const KEPT: [&str; 8] = [
    names::KEYS,
    names::LABELS,
    names::VIEWS,
    names::TEXT,
    names::VALIDATION_FEATURES,
    names::VALIDATION_LABELS,
    names::UNKNOWN_FEATURES,
    names::UNLABELLED,
];

/// A version's tensors, as training needs them.
struct Parent {
    keys: Tensor,
    labels: Tensor,
    views: Option<Tensor>,
    text: Option<Tensor>,
    validation: Option<(Tensor, Tensor)>,
    /// The keys that training starts from: the examples', or those trained
    /// before.
    start: Tensor,
}

impl Parent {
    fn read(manifest: &Manifest, file: &TensorFile) -> Result<Parent, CatalogError> {
        let needed = |name: &str| {
            tensors::read(file, name)?.ok_or_else(|| CatalogError::Unsupported {
                version: manifest.resource_name(),
                problem: format!("has no {name} to train"),
            })
        };
        let keys = needed(names::KEYS)?;
        let start = match tensors::read(file, names::HEAD_KEYS)? {
            Some(trained) => trained,
            None => keys.shallow_clone(),
        };
        Ok(Parent {
            labels: needed(names::LABELS)?,
            views: tensors::read(file, names::VIEWS)?,
            text: tensors::read(file, names::TEXT)?,
            validation: match tensors::read(file, names::VALIDATION_FEATURES)? {
                Some(features) => Some((features, needed(names::VALIDATION_LABELS)?)),
                None => None,
            },
            start,
            keys,
        })
    }
}

/// The outcome of a fine-tuning.
pub(super) enum TuneOutcome {
    /// A version to be stored.
    Made {
        /// What is to be stored.
        draft: Box<Draft>,
        /// Whether the score that decided improved; none if there was none.
        improved: Option<bool>,
        /// In one sentence for people.
        outcome: String,
    },
    /// No head that is better was found.
    Unchanged {
        /// Why, in one sentence for people.
        outcome: String,
    },
}

/// Fine-tunes a version by the recipe that is asked for. Blocks.
///
/// # Errors
/// A version without keys, options out of range, a loss that diverges,
/// [`CatalogError::Cancelled`].
pub(super) fn tune(job: &TuneJob<'_>) -> Result<TuneOutcome, CatalogError> {
    refuse_multi_label(
        job.parent,
        "fine-tuning minimises the cross-entropy of one class an example; add examples instead",
    )?;
    let details = &job.parent.details;
    // Nothing can be left out of trained keys: every example has shaped them.
    if job.request.recipe == TuneRecipe::Keys || details.head.method == Method::TipAdapterF {
        return tune_keys(job);
    }
    if details.fine_tune.is_some() {
        return Ok(TuneOutcome::Unchanged {
            outcome: "nothing changed: this version is fine-tuned on these examples already; add \
                      examples, or fine-tune the version that it was made from"
                .to_owned(),
        });
    }
    let ResidualTuned {
        tuning,
        record,
        contrast,
    } = tune_residual(job)?;
    let Some(made) = tuning.made else {
        return Ok(TuneOutcome::Unchanged {
            outcome: tuning.reason,
        });
    };
    check_reach(&made.spec, &made.tensors)?;
    Ok(TuneOutcome::Made {
        draft: Box::new(draft(job, (&made, contrast), record)?),
        improved: Some(true),
        outcome: tuning.reason,
    })
}

/// Trains a version's keys. The device is taken in short steps.
fn tune_keys(job: &TuneJob<'_>) -> Result<TuneOutcome, CatalogError> {
    let started = Instant::now();
    let (request, file) = (job.request, job.file);
    let tensors = Parent::read(job.parent, file)?;
    let details = &job.parent.details;
    let head = HeadRequest {
        method: Some(Method::TipAdapter),
        class_balance: details.head.class_balance,
        grid: request.grid,
        key_dtype: details.head.key_dtype,
        ..HeadRequest::default()
    };
    let material = || Material {
        keys: tensors.keys.shallow_clone(),
        labels: tensors.labels.shallow_clone(),
        classes: details.classes.len(),
        views: None,
        text: tensors.text.as_ref().map(Tensor::shallow_clone),
        validation: None,
        logit_scale: details.head.logit_scale,
        statistics: None,
        unlabelled: None,
    };
    let factors = training_factors(&material(), head.class_balance)?;
    let tuned = train(job, &tensors, &factors)?;
    let search_on = tuned.search_set.as_ref().map(|set| SearchOn {
        set,
        source: tuned.source,
    });
    let again = |keys: &Tensor| {
        retune(
            material(),
            keys.shallow_clone(),
            (tuned.alpha, tuned.beta),
            search_on,
            &head,
            &|_| !(job.stop)(),
        )
    };
    // Both are searched alike, on the same examples, so that the difference is
    // what training gained.
    let before = match search_on {
        Some(_) => again(&tensors.start)?.1,
        None => None,
    };
    let (mut made, after) = again(&tuned.keys)?;
    made.spec.unlabelled = details
        .head
        .unlabelled
        .clone()
        .map(|of_parent| UnlabelledUse {
            used: false,
            reason: "not used: trained keys learn from labelled examples alone".to_owned(),
            ..of_parent
        });
    let contrast = contrast(&material(), &mut made, file)?;
    let improved = before.zip(after).map(|(before, after)| after > before);
    let record = record(
        &tuned,
        request,
        (before, after),
        started.elapsed().as_secs_f64(),
    );
    check_reach(&made.spec, &made.tensors)?;
    Ok(TuneOutcome::Made {
        outcome: keys_outcome(&record, improved),
        draft: Box::new(draft(job, (&made, contrast), record)?),
        improved,
    })
}

/// What training the keys did, for people.
fn keys_outcome(record: &FineTuneRecord, improved: Option<bool>) -> String {
    let (before, after) = (
        100.0 * record.accuracy_before,
        100.0 * record.accuracy_after,
    );
    match improved {
        None => "the keys are trained; nothing says whether that helped".to_owned(),
        Some(true) => format!("the keys are trained: {after:.1} % right after {before:.1} %"),
        Some(false) => format!(
            "the keys are trained, which did not help: {after:.1} % right after {before:.1} %"
        ),
    }
}

fn train(job: &TuneJob<'_>, tensors: &Parent, factors: &Tensor) -> Result<Tuned, CatalogError> {
    let details = &job.parent.details;
    let linear = tensors
        .text
        .as_ref()
        .map(|text| text.f_mul_scalar(details.head.logit_scale))
        .transpose()
        .map_err(CatalogError::internal)?;
    let single;
    let views = match &tensors.views {
        Some(views) => views,
        None => {
            single = tensors
                .keys
                .f_unsqueeze(1)
                .map_err(CatalogError::internal)?;
            &single
        }
    };
    let set = TrainingSet {
        classes: details.classes.len(),
        views,
        keys: &tensors.start,
        labels: &tensors.labels,
        linear: linear.as_ref(),
        bias: None,
        class_factor: Some(factors),
        validation: tensors
            .validation
            .as_ref()
            .map(|(features, labels)| (features, labels)),
    };
    let options = &job.request.options;
    let trainer =
        Trainer::new(&set, options, job.catalog.device, Backend::Automatic).map_err(failed)?;
    // Any engine can train: the version's own if its bundle is loaded.
    let bundles = &job.catalog.bundles;
    let bundle = match bundles.of_fingerprint(&details.bundle_fingerprint) {
        Some(bundle) => bundle,
        None => bundles.default_bundle(),
    };
    run_steps(job, &bundle.engine, trainer)
}

fn failed(error: TrainError) -> CatalogError {
    match error {
        TrainError::Head(error) => CatalogError::internal(error),
        error => CatalogError::invalid("options", error),
    }
}

/// Runs a trainer to its end, step by step: classification takes the device
/// between them.
fn run_steps(
    job: &TuneJob<'_>,
    engine: &Engine,
    mut trainer: Trainer,
) -> Result<Tuned, CatalogError> {
    let mut progress = RunProgress {
        epochs: job.request.options.epochs,
        steps: trainer.steps(),
        ..RunProgress::default()
    };
    let mut began = Instant::now();
    loop {
        if (job.stop)() {
            return Err(CatalogError::Cancelled);
        }
        let (back, worked) = engine
            .step(move || {
                let worked = trainer.step();
                (trainer, worked)
            })
            .ok_or(CatalogError::Cancelled)?;
        trainer = back;
        match worked.map_err(failed)? {
            Progress::Working => {}
            Progress::Step(step) => {
                progress.epoch = step.epoch;
                progress.step = step.step;
                progress.loss = step.loss;
                progress.train_accuracy = step.train_accuracy;
                progress.learning_rate = step.learning_rate;
                (job.report)(progress);
            }
            Progress::Epoch(epoch) => {
                let took = std::mem::replace(&mut began, Instant::now()).elapsed();
                // 0 is the score before training.
                if epoch.epoch > 0 {
                    telemetry::epoch(took);
                }
                progress.validation_accuracy = epoch.score.map(|score| score.accuracy);
                (job.report)(progress);
            }
            Progress::Finished => return trainer.finish().map_err(failed),
        }
    }
}

fn record(
    tuned: &Tuned,
    request: &TuneRequest,
    (before, after): (Option<f64>, Option<f64>),
    seconds: f64,
) -> FineTuneRecord {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let loss = tuned
        .epochs
        .get(tuned.best_epoch)
        .and_then(|epoch| epoch.loss);
    FineTuneRecord {
        epochs: number(tuned.epochs.len().saturating_sub(1)),
        best_epoch: number(tuned.best_epoch),
        seed: request.options.seed,
        loss: loss.unwrap_or(0.0),
        accuracy_before: before.unwrap_or(0.0),
        accuracy_after: after.unwrap_or(0.0),
        source: tuned.source,
        seconds,
        recipe: FineTuneRecipe::TipAdapterF,
        strength: 0.0,
        cross_entropy_before: None,
        cross_entropy_after: None,
        example_count: 0,
    }
}

fn draft(
    job: &TuneJob<'_>,
    (made, contrast): (&Made, Option<ContrastSpec>),
    record: FineTuneRecord,
) -> Result<Draft, CatalogError> {
    let TuneJob {
        parent,
        file,
        request,
        ..
    } = job;
    let mut named: Vec<NamedTensor> = file
        .names()
        .into_iter()
        .filter(|name| KEPT.contains(name) || names::describes_examples(name))
        .filter_map(|name| file.tensor(name))
        .collect();
    named.extend(head_tensors(&made.tensors)?);
    if let Some(answers) = &made.unseen {
        named.extend(precision::write(
            &answers.curves(parent.details.classes.len())?,
        )?);
    }
    if made.spec.method == Method::TipAdapterF
        && let Some((keys, Values::OneHot { .. })) = &made.tensors.cache
    {
        named.push(tensors::write(
            names::HEAD_KEYS,
            &keys.to_kind(Kind::Float),
        )?);
    }
    let description = if request.description.is_empty() {
        parent.details.description.clone()
    } else {
        request.description.clone()
    };
    Ok(Draft {
        details: Details {
            parent: Some(parent.resource_name()),
            description,
            created_by: if request.created_by.is_empty() {
                parent.details.created_by.clone()
            } else {
                request.created_by.clone()
            },
            head: made.spec.clone(),
            fine_tune: Some(record),
            source: None,
            pictures: parent.details.pictures,
            contrast,
            ..parent.details.clone()
        },
        tensors: named,
        request: None,
    })
}
