//! Features of labelled examples: what a head is made of.

use std::collections::BTreeMap;

use bytes::Bytes;
use half::f16;

/// What is known of an example besides its feature and class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExampleNotes {
    /// Where it came from, as its sender says; empty: unknown.
    pub uri: String,
    /// What else its sender says.
    pub metadata: BTreeMap<String, String>,
    /// Its thumbnail, a JPEG; empty if none is kept.
    pub picture: Bytes,
}

impl ExampleNotes {
    /// Bytes that it takes in the store, nearly.
    pub fn size(&self) -> usize {
        let metadata = self
            .metadata
            .iter()
            .map(|(key, value)| key.len() + value.len());
        self.uri.len() + metadata.sum::<usize>() + self.picture.len()
    }

    /// Boxed; none if there is nothing to note.
    pub fn boxed(self) -> Option<Box<ExampleNotes>> {
        (self != ExampleNotes::default()).then(|| Box::new(self))
    }
}

/// What an example is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Training: it becomes a key.
    Training,
    /// Validation: hyperparameters are chosen on it, and it never becomes a
    /// key.
    Validation,
    /// Unlabelled: AUTO may learn from it, and only its feature is stored.
    Unlabelled,
    /// Of none of the classes: it sharpens rejection, and never becomes a key.
    Unknown,
}

/// The feature of one example.
#[derive(Clone, Debug)]
pub struct ExampleFeature {
    /// The id that the client sent it with.
    pub id: String,
    /// Its classes, ascending: one; none of an unknown or unlabelled one; any number in a
    /// version with several labels an example.
    pub classes: Vec<usize>,
    /// Whether it becomes a key, and if not, its purpose.
    pub purpose: Purpose,
    /// Unit vector [D]: of the mean of the raw features of its views.
    pub key: Vec<f32>,
    /// Unit vectors [R · D] of its views; empty if there is one view only.
    pub views: Vec<f16>,
    /// What else is known of it, if anything.
    pub notes: Option<Box<ExampleNotes>>,
}

impl ExampleFeature {
    /// The feature of an example from the raw features [D] of its views, as the
    /// encoder gave them. The key is their mean, normalised once, as the
    /// authors of Tip-Adapter do it: averaging first lets a view count by its
    /// norm. Computed in f64, as [`tip_adapter::material::build_keys`] does for
    /// whole tensors in f32.
    ///
    /// Views that cancel out, or are zero, make a key of zeros, which no head
    /// is made of: [`tip_adapter::material::Material::check`] names the example.
    pub fn of_views(id: String, classes: Vec<usize>, purpose: Purpose, raw: &[Vec<f32>]) -> Self {
        let mut sum: Vec<f64> = Vec::new();
        for view in raw {
            // The start of f64 sums, so that a lone −0 stays −0.
            sum.resize(sum.len().max(view.len()), -0.0);
            for (sum, value) in sum.iter_mut().zip(view) {
                *sum += f64::from(*value);
            }
        }
        let views = if raw.len() > 1 {
            raw.iter()
                .flat_map(|raw| unit(raw.iter().map(|value| f64::from(*value))))
                .map(f16::from_f32)
                .collect()
        } else {
            Vec::new()
        };
        ExampleFeature {
            id,
            classes,
            purpose,
            // The sum has the mean's direction.
            key: unit(sum.into_iter()).collect(),
            views,
            notes: None,
        }
    }

    /// The same feature with these notes.
    #[must_use]
    pub fn with_notes(self, notes: Option<Box<ExampleNotes>>) -> Self {
        Self { notes, ..self }
    }

    /// Whether a picture of it is kept.
    pub fn has_picture(&self) -> bool {
        let notes = self.notes.as_ref();
        notes.is_some_and(|notes| !notes.picture.is_empty())
    }

    /// Bytes that its notes take, 0 if it has none.
    pub fn notes_bytes(&self) -> usize {
        self.notes.as_ref().map_or(0, |notes| notes.size())
    }
}

/// The values divided by their length, in f64. Zeros stay zeros.
fn unit(values: impl Iterator<Item = f64> + Clone) -> impl Iterator<Item = f32> {
    let norm = values
        .clone()
        .map(|value| value * value)
        .sum::<f64>()
        .sqrt();
    let norm = if norm > 0.0 { norm } else { 1.0 };
    values.map(move |value| (value / norm) as f32)
}

/// Features of all examples of a call, in the order that they were sent in.
#[derive(Debug, Default)]
pub struct CollectedFeatures {
    /// The examples that could be used.
    pub examples: Vec<ExampleFeature>,
    /// How many were received, those rejected included.
    pub received: usize,
    /// How many of those could not be used.
    pub rejected: usize,
    /// Whether pictures are among them, which this server embedded.
    pub pictures: bool,
    /// By class: how many were rejected, and why the first was.
    pub reasons: BTreeMap<usize, (usize, String)>,
    /// How many of the others came in a file that lacks its end mark.
    pub without_end_mark: usize,
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
    use tch::Tensor;
    use tip_adapter::material::build_keys;

    use super::*;

    #[test]
    fn the_key_is_the_unit_mean_of_the_raw_views() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        for views in 1..5 {
            let width = rng.random_range(1..40);
            let raw: Vec<Vec<f32>> = (0..views)
                .map(|_| {
                    let norm = rng.random_range(0.1..20.0);
                    (0..width)
                        .map(|_| norm * rng.random_range(-1.0_f32..1.0))
                        .collect()
                })
                .collect();
            let feature = ExampleFeature::of_views("a".into(), vec![2], Purpose::Training, &raw);
            let flat: Vec<f32> = raw.concat();
            let keys =
                build_keys(&Tensor::from_slice(&flat).view([1, views, width])).expect("keys");
            let expected = Vec::<f32>::try_from(keys.view([-1])).expect("floats");
            for (got, expected) in feature.key.iter().zip(&expected) {
                assert!((got - expected).abs() < 1e-5, "{got} {expected}");
            }
            let kept = if views > 1 {
                raw.len() * raw[0].len()
            } else {
                0
            };
            assert_eq!(feature.views.len(), kept);
            for view in feature.views.chunks(raw[0].len()) {
                let norm: f32 = view.iter().map(|v| v.to_f32().powi(2)).sum::<f32>().sqrt();
                assert!((norm - 1.0).abs() < 2e-3, "{norm}");
            }
        }
    }

    #[test]
    fn views_that_cancel_out_make_zeros_and_not_nan() {
        let raw = [vec![1.0, -2.0], vec![-1.0, 2.0]];
        let feature = ExampleFeature::of_views("a".into(), vec![0], Purpose::Training, &raw);
        assert_eq!(feature.key, [0.0, 0.0]);
    }
}
