//! The examples of a CreateCache or AddExamples call: those under way, those
//! done, and the counts.
//!
//! A rejected example leaves only its count, so that any number of them takes
//! no memory.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::catalog::{CollectedFeatures, ExampleFeature, ExampleNotes, Purpose};

/// An example that is being encoded.
pub(super) struct Pending {
    pub(super) id: String,
    pub(super) classes: Vec<usize>,
    pub(super) purpose: Purpose,
    /// Raw features of its views, by their number; they become a key once
    /// complete.
    pub(super) views: Vec<Option<Vec<f32>>>,
    pub(super) lacks_end_mark: bool,
    pub(super) notes: ExampleNotes,
    /// Whether its thumbnail is still being made.
    pub(super) awaits_thumbnail: bool,
}

/// What an example takes beside its features and notes, nearly: its id, here and
/// in the set of all, its classes, and what holds them.
pub(super) fn beside_features(id: &str, classes: &[usize]) -> usize {
    2 * id.len() + size_of_val(classes) + 2 * size_of::<ExampleFeature>()
}

impl Pending {
    fn is_complete(&self) -> bool {
        !self.awaits_thumbnail && self.views.iter().all(Option::is_some)
    }
}

/// Examples by their place in the stream.
#[derive(Default)]
pub(super) struct Gathered {
    received: usize,
    pending: HashMap<usize, Pending>,
    finished: Vec<(usize, ExampleFeature)>,
    /// For each class, how many were rejected, and why the first was.
    reasons: BTreeMap<usize, (usize, String)>,
    rejected: usize,
    without_end_mark: usize,
}

impl Gathered {
    /// Counts one more example and returns its place.
    pub(super) fn receive(&mut self) -> usize {
        let place = self.received;
        self.received += 1;
        place
    }

    /// How many have been received.
    pub(super) fn received(&self) -> usize {
        self.received
    }

    /// Records that an example has been accepted and is being encoded.
    pub(super) fn begin(&mut self, place: usize, example: Pending) {
        self.pending.insert(place, example);
    }

    /// The example, if it is under way and has not been rejected.
    pub(super) fn pending(&mut self, place: usize) -> Option<&mut Pending> {
        self.pending.get_mut(&place)
    }

    /// Drops an example that is under way.
    pub(super) fn give_up(&mut self, place: usize) -> Option<Pending> {
        self.pending.remove(&place)
    }

    /// Keeps a thumbnail with its example.
    pub(super) fn keep_thumbnail(&mut self, place: usize, made: Bytes) {
        if let Some(example) = self.pending.get_mut(&place) {
            example.notes.picture = made;
            example.awaits_thumbnail = false;
        }
    }

    /// Counts a rejected example, and keeps the reason of the first of its
    /// class.
    pub(super) fn reject(&mut self, class: Option<usize>, reason: impl FnOnce() -> String) {
        self.rejected += 1;
        if let Some(class) = class {
            let first = || (0, reason());
            self.reasons.entry(class).or_insert_with(first).0 += 1;
        }
    }

    /// Makes an example's feature once all of its views are there.
    pub(super) fn finish_if_complete(&mut self, place: usize) {
        if !self.pending.get(&place).is_some_and(Pending::is_complete) {
            return;
        }
        let Some(example) = self.pending.remove(&place) else {
            return;
        };
        self.without_end_mark += usize::from(example.lacks_end_mark);
        let raw: Vec<_> = example.views.into_iter().flatten().collect();
        let feature = ExampleFeature::of_views(example.id, example.classes, example.purpose, &raw);
        let feature = feature.with_notes(example.notes.boxed());
        self.finished.push((place, feature));
    }

    /// How many were received, are done, and were rejected.
    pub(super) fn counts(&self) -> [i64; 3] {
        [self.received, self.finished.len(), self.rejected]
            .map(|count| i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// The result, in the order of the stream.
    pub(super) fn into_features(mut self, pictures: bool) -> CollectedFeatures {
        self.finished.sort_by_key(|(place, _)| *place);
        CollectedFeatures {
            received: self.received,
            rejected: self.rejected,
            pictures,
            reasons: self.reasons,
            without_end_mark: self.without_end_mark,
            examples: self
                .finished
                .into_iter()
                .map(|(_, feature)| feature)
                .collect(),
        }
    }
}
