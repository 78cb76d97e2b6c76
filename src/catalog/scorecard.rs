//! How well a version does, counted item by item.

use tch::Tensor;

use super::{CatalogError, Classifier};
use tip_adapter::evaluate::{Evaluation, Evaluator};

/// Counts how one version, and its text classifier alone, do.
pub struct Scorecard {
    own: Evaluator,
    zero_shot: Option<Evaluator>,
    temperature: f64,
}

impl Scorecard {
    /// An empty card for a version.
    pub fn new(classifier: &Classifier) -> Scorecard {
        let classes = classifier.classes();
        Scorecard {
            own: Evaluator::new(classes),
            zero_shot: classifier
                .zero_shot
                .as_ref()
                .map(|_| Evaluator::new(classes)),
            temperature: classifier.temperature(),
        }
    }

    /// Counts an item of `class` by its logits.
    ///
    /// # Errors
    /// A class that the version does not have.
    pub fn add(
        &mut self,
        logits: &[f32],
        zero_shot: Option<&[f32]>,
        class: usize,
    ) -> Result<(), CatalogError> {
        add(&mut self.own, logits, class, self.temperature)?;
        if let (Some(evaluator), Some(logits)) = (&mut self.zero_shot, zero_shot) {
            add(evaluator, logits, class, 1.0)?;
        }
        Ok(())
    }

    /// The figures so far, of the version and of its text alone.
    pub fn finish(&self) -> (Evaluation, Option<Evaluation>) {
        (
            self.own.finish(),
            self.zero_shot.as_ref().map(Evaluator::finish),
        )
    }
}

fn add(
    evaluator: &mut Evaluator,
    logits: &[f32],
    class: usize,
    temperature: f64,
) -> Result<(), CatalogError> {
    let logits = Tensor::f_from_slice(logits)
        .and_then(|row| row.f_unsqueeze(0))
        .map_err(CatalogError::internal)?;
    let labels = Tensor::f_from_slice(&[class as i64]).map_err(CatalogError::internal)?;
    Ok(evaluator.add(&logits, &labels, temperature)?)
}
