//! How much memory the choice of a version's hyperparameters takes, known before
//! it begins.

use super::{CatalogError, CollectedFeatures, Purpose, Recipe};

/// Most examples for which methods compute a matrix of all with all, and most
/// unlabelled examples and such of no class that are used.
const MATRIX_EXAMPLES: usize = 16_384;
/// Most training examples that are scored for every class if there are more
/// than these.
const SCORED_EXAMPLES: usize = 4096;
/// Fewest of them, however many classes there are.
const SCORED_LEAST: usize = 256;
/// Most scores of an example for a class where examples can be left unscored.
const SAMPLED_LABELS: usize = 1 << 27;
/// Most scores of an example for a class: those of 16,384 examples for as many.
pub const MAX_SELECTION_LABELS: usize = 1 << 28;
/// Bytes that each of them takes, at most: double precision, several times over
/// (18 to 50 with 1000 examples and 10,000 classes, by method).
const SCORE_BYTES: usize = 48;

/// The counts that decide how much memory a selection takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SelectionSize {
    /// Training examples.
    pub training: usize,
    /// Validation examples.
    pub validation: usize,
    /// Unlabelled examples, and examples of none of the classes.
    pub others: usize,
    /// Classes.
    pub classes: usize,
    /// Whether examples have any number of classes: all are scored then.
    pub multi_label: bool,
}

impl SelectionSize {
    /// That of a version to be made.
    pub fn of(recipe: &Recipe, collected: &CollectedFeatures) -> SelectionSize {
        let mut size = SelectionSize {
            classes: recipe.class_count(),
            multi_label: recipe.multi_label,
            ..SelectionSize::default()
        };
        for example in recipe.inherited().iter().chain(&collected.examples) {
            match example.purpose {
                Purpose::Training => size.training += 1,
                Purpose::Validation => size.validation += 1,
                Purpose::Unlabelled | Purpose::Unknown => size.others += 1,
            }
        }
        size
    }

    /// Scores of an example for a class that are in memory at once.
    fn labels(&self) -> usize {
        let training = match self.training {
            all if self.multi_label || all <= MATRIX_EXAMPLES => all,
            _ => (SAMPLED_LABELS / self.classes.max(1)).clamp(SCORED_LEAST, SCORED_EXAMPLES),
        };
        let scored = training + self.validation + self.others.min(MATRIX_EXAMPLES);
        scored.saturating_mul(self.classes)
    }

    /// Refuses what takes more memory than any selection may.
    ///
    /// # Errors
    /// [`CatalogError::OverLimit`].
    pub fn check(&self) -> Result<(), CatalogError> {
        let labels = self.labels();
        if labels <= MAX_SELECTION_LABELS {
            return Ok(());
        }
        Err(CatalogError::OverLimit {
            what: "the product of examples and classes".to_owned(),
            limit: "max_selection_labels",
            maximum: MAX_SELECTION_LABELS as u64,
            value: labels as u64,
        })
    }

    /// Roughly its memory: three double-precision matrices of all examples with
    /// all, and those of examples and classes.
    pub(super) fn mebibytes(&self) -> u32 {
        let scores = (self.labels().min(MAX_SELECTION_LABELS) * SCORE_BYTES) >> 20;
        let matrices = all_with_all(self.training + self.validation);
        matrices
            .saturating_add(scores as u32)
            .min(LARGEST_SELECTION)
    }
}

/// The memory of the largest selection, in MiB.
pub(super) const LARGEST_SELECTION: u32 = all_with_all(usize::MAX);

const fn all_with_all(examples: usize) -> u32 {
    let examples = if examples < MATRIX_EXAMPLES {
        examples
    } else {
        MATRIX_EXAMPLES
    };
    (((3 * 8 * examples * examples) >> 20) + 1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(training: usize, validation: usize, classes: usize) -> SelectionSize {
        SelectionSize {
            training,
            validation,
            classes,
            ..SelectionSize::default()
        }
    }

    #[test]
    fn the_largest_selection_runs_alone_and_small_ones_beside_each_other() {
        let one = size(MATRIX_EXAMPLES, 0, 1).mebibytes();
        assert_eq!(one, LARGEST_SELECTION);
        assert_eq!(one, size(2_000_000, 0, 1).mebibytes());
        assert!((6000..7000).contains(&one), "{one} MiB");
        assert!(64 * size(1000, 0, 10).mebibytes() < LARGEST_SELECTION);
        assert!(
            size(1000, 0, 10_000).mebibytes() > 400,
            "classes count as well"
        );
        let largest = size(1342, 0, 100_000);
        largest.check().expect("taken");
        assert!(2 * largest.mebibytes() > LARGEST_SELECTION, "it runs alone");
    }

    #[test]
    fn the_product_of_examples_and_classes_is_bounded() {
        for taken in [
            size(16_384, 0, 16_384),
            size(2_000_000, 0, 10_000),
            size(100_000, 0, 100_000),
            size(1_281_167, 50_000, 1000),
        ] {
            taken.check().expect("taken");
            assert!(taken.mebibytes() <= LARGEST_SELECTION);
        }
        let many_labels = SelectionSize {
            multi_label: true,
            ..size(100_000, 0, 4096)
        };
        let others = SelectionSize {
            others: 2_000_000,
            ..size(1, 0, 20_000)
        };
        for refused in [
            size(16_384, 0, 16_385),
            size(1, 20_000, 20_000),
            many_labels,
            others,
        ] {
            let error = refused.check().expect_err("refused").to_string();
            assert!(error.contains("max_selection_labels"), "{error}");
        }
    }
}
