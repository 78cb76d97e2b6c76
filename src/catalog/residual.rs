//! Fine-tuning by a residual on a version's own head.

use std::{cell::Cell, time::Instant};

use super::{CatalogError, Classifier, RunProgress, material::contrast, run::TuneJob};
use tip_adapter::{
    make::Made,
    residual::{TuneProgress, Tuning, tune},
};
use tip_spec::{ContrastSpec, Standardised};
use tipserve_store::{FineTuneRecipe, FineTuneRecord};

/// The result of training a residual.
pub(super) struct ResidualTuned {
    pub tuning: Tuning,
    pub record: FineTuneRecord,
    /// The new head's answers for unseen examples.
    pub contrast: Option<ContrastSpec>,
}

/// Tunes a version's head. Blocks, on torch's threads; whether to stop is
/// asked between the larger products.
///
/// # Errors
/// A version that is not what its manifest says;
/// [`CatalogError::WrongBundle`] where its features are standardised by another
/// bundle's statistics; [`CatalogError::Cancelled`].
pub(super) fn tune_residual(job: &TuneJob<'_>) -> Result<ResidualTuned, CatalogError> {
    let TuneJob {
        catalog,
        parent,
        file,
        ..
    } = *job;
    let started = Instant::now();
    if parent.details.head.standardised == Some(Standardised::Bundle) {
        catalog.bundles.of_manifest(parent)?;
    }
    let material = catalog.material(parent, file)?;
    let made = Made {
        spec: parent.details.head.clone(),
        tensors: Classifier::head_tensors(parent, file)?,
        unseen: None,
    };
    let fits = Cell::new(0);
    let watch = |progress: TuneProgress| {
        fits.set(progress.done);
        (job.report)(RunProgress {
            epoch: progress.done,
            epochs: progress.fits,
            step: progress.done,
            steps: progress.fits,
            loss: progress.loss,
            train_accuracy: progress.accuracy,
            ..RunProgress::default()
        });
        !(job.stop)()
    };
    let mut tuning = tune(&material, made, &watch, &|| !(job.stop)())?;
    let contrast = match &mut tuning.made {
        Some(made) => contrast(&material, made, file)?,
        None => None,
    };
    let record = FineTuneRecord {
        epochs: u32::try_from(fits.get()).unwrap_or(u32::MAX),
        best_epoch: u32::try_from(fits.get()).unwrap_or(u32::MAX),
        seed: 0,
        loss: tuning.after.cross_entropy,
        accuracy_before: tuning.before.accuracy,
        accuracy_after: tuning.after.accuracy,
        source: tuning.source,
        seconds: started.elapsed().as_secs_f64(),
        recipe: FineTuneRecipe::Residual,
        strength: tuning.strength,
        cross_entropy_before: Some(tuning.before.cross_entropy),
        cross_entropy_after: Some(tuning.after.cross_entropy),
        example_count: tuning.examples as u64,
    };
    Ok(ResidualTuned {
        tuning,
        record,
        contrast,
    })
}
