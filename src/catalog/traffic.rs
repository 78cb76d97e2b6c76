//! What a resident version has been asked, for telling whether its traffic is
//! still like its examples.
//!
//! Counts live as long as the version is in memory, and are halved at
//! [`WINDOW`] items, so that what is told is of late. Nearest examples are sought
//! for one item in [`SAMPLE`]. Which examples they were is counted without halving:
//! that nothing came near one says the more, the more items there were.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::SystemTime,
};

use parking_lot::Mutex;

use tip_adapter::drift::{EDGES, Rounds, bin};

/// Items at which all counts are halved.
const WINDOW: u64 = 1 << 16;

/// One item in this many is compared with its nearest example.
const SAMPLE: u64 = 16;

/// Nearest examples that are sought for it, so that one is left of a round.
const NEAREST: usize = 16;

/// Figures derived from the counts are updated once in this many items.
const PUBLISH: u64 = 256;

/// Items for each example from which on it is said which examples were nearest to
/// none: one that is nearest as often as the others on average is missed by all of
/// them with probability e⁻¹⁰, 1 in 22,000. With an item each it would be 1 in 3.
const ITEMS_PER_EXAMPLE: u64 = 10;

/// The observation of one item.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Its best class; `None` if it has none.
    pub class: Option<usize>,
    /// The cosine of the nearest example, if it was computed.
    pub similarity: Option<f64>,
    /// Whether it was accepted as of a known class, if that was asked.
    pub accepted: Option<bool>,
}

/// Counts of recent items: all are halved from time to time.
#[derive(Clone, Debug)]
pub struct Counts {
    /// How many items were classified.
    pub items: u64,
    /// Items by the similarity of their nearest example; the first bin is below
    /// the first decile.
    pub similarity: [u64; EDGES + 1],
    /// How many items had each class as their best.
    pub classes: Vec<u64>,
    /// Items classified with `reject`.
    pub recognised: u64,
    /// How many of these were rejected.
    pub rejected: u64,
}

/// The recent traffic of a version.
pub struct Traffic {
    since: SystemTime,
    asked: AtomicU64,
    examples: Examples,
    compared: AtomicU64,
    /// How many items had each example as their nearest; empty if items are not
    /// compared with the examples.
    nearest: Vec<AtomicU32>,
    /// How many items these are.
    looked_at: AtomicU64,
    counts: Mutex<Counts>,
}

/// Which examples items came near.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExampleTraffic {
    /// When counting began.
    pub since: SystemTime,
    /// Items whose nearest example was looked at.
    pub items: u64,
    /// Items from which on [`ExampleTraffic::unmatched`] is stated.
    pub enough: u64,
    /// The keys that were nearest to none of the items, in order; `None` before
    /// there are enough items.
    pub unmatched: Option<Vec<usize>>,
}

/// How similar a version's examples are to each other.
#[derive(Debug, Default)]
pub struct Examples {
    /// Deciles of the cosine of an example and its nearest one of other rounds;
    /// empty if they are not known.
    pub deciles: Vec<f64>,
    /// As many independent examples would estimate them as well.
    pub sample: f64,
    /// The rounds in which items are compared with the examples.
    pub rounds: Rounds,
}

impl Traffic {
    /// Nothing yet, of a version with that many classes and keys and these examples
    /// (without deciles: items are not compared with them).
    pub fn new(classes: usize, keys: usize, examples: Examples) -> Traffic {
        let followed = if examples.deciles.is_empty() { 0 } else { keys };
        Traffic {
            since: SystemTime::now(),
            asked: AtomicU64::new(0),
            examples,
            compared: AtomicU64::new(0),
            nearest: (0..followed).map(|_| AtomicU32::new(0)).collect(),
            looked_at: AtomicU64::new(0),
            counts: Mutex::new(Counts {
                items: 0,
                similarity: [0; EDGES + 1],
                classes: vec![0; classes],
                recognised: 0,
                rejected: 0,
            }),
        }
    }

    /// When counting began: at the version's last load.
    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// The examples that items are compared with.
    pub fn examples(&self) -> &Examples {
        &self.examples
    }

    /// How many nearest examples to seek for the next item, of which the client
    /// asked for `wanted`: those, and enough to compare one item in [`SAMPLE`], and
    /// all that have some anyway.
    pub fn neighbours(&self, wanted: usize) -> usize {
        let asked = || self.asked.fetch_add(1, Ordering::Relaxed);
        if self.examples.deciles.is_empty() || !(asked().is_multiple_of(SAMPLE) || wanted > 0) {
            return wanted;
        }
        wanted.max(NEAREST)
    }

    /// Counts an item's nearest example. Returns the cosine of the nearest one of all
    /// but one round, each item's own in turn; none of an item without neighbours.
    pub fn compare(&self, neighbours: &[(usize, f32)]) -> Option<f64> {
        let (nearest, _) = neighbours.first()?;
        // None if examples are not compared with.
        let count = self.nearest.get(*nearest)?;
        // Stays at its most: all that matters is whether there were any.
        let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            count.checked_add(1)
        });
        self.looked_at.fetch_add(1, Ordering::Relaxed);
        let round = self.compared.fetch_add(1, Ordering::Relaxed);
        self.examples.rounds.nearest(neighbours, round)
    }

    /// Which examples items came near; `None` if items are not compared with them.
    pub fn of_examples(&self) -> Option<ExampleTraffic> {
        if self.nearest.is_empty() {
            return None;
        }
        let items = self.looked_at.load(Ordering::Relaxed);
        let enough = ITEMS_PER_EXAMPLE.saturating_mul(self.nearest.len() as u64);
        let unmatched = || {
            let counts = self.nearest.iter().enumerate();
            counts
                .filter(|(_, count)| count.load(Ordering::Relaxed) == 0)
                .map(|(key, _)| key)
                .collect()
        };
        Some(ExampleTraffic {
            since: self.since,
            items,
            enough,
            unmatched: (items >= enough).then(unmatched),
        })
    }

    /// Bytes of memory that the examples take here.
    pub fn size_bytes(&self) -> usize {
        self.examples.rounds.size_bytes() + self.nearest.len() * size_of::<AtomicU32>()
    }

    /// Counts an item. True once in a while: then what is derived of the counts
    /// may be brought up to date.
    pub fn count(&self, seen: Seen) -> bool {
        let mut counts = self.counts.lock();
        counts.items += 1;
        if let Some(count) = seen.class.and_then(|class| counts.classes.get_mut(class)) {
            *count += 1;
        }
        let bin = seen
            .similarity
            .map(|similarity| bin(&self.examples.deciles, similarity));
        if let Some(count) = bin.and_then(|bin| counts.similarity.get_mut(bin)) {
            *count += 1;
        }
        if let Some(accepted) = seen.accepted {
            counts.recognised += 1;
            counts.rejected += u64::from(!accepted);
        }
        if counts.items >= WINDOW {
            counts.halve();
        }
        counts.items.is_multiple_of(PUBLISH)
    }

    /// A copy of the counts so far.
    pub fn counts(&self) -> Counts {
        self.counts.lock().clone()
    }
}

impl Counts {
    fn halve(&mut self) {
        let single = [&mut self.items, &mut self.recognised, &mut self.rejected];
        let all = self.similarity.iter_mut().chain(&mut self.classes);
        for count in single.into_iter().chain(all) {
            *count /= 2;
        }
    }

    /// Items that were compared with their nearest example.
    pub fn compared(&self) -> u64 {
        self.similarity.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_of_late_and_bounded() {
        let traffic = Traffic::new(2, 4, examples());
        for _ in 0..WINDOW {
            traffic.count(Seen {
                class: Some(0),
                similarity: Some(0.05),
                accepted: Some(false),
            });
        }
        for _ in 0..3 * WINDOW {
            traffic.count(Seen {
                class: Some(1),
                similarity: Some(0.95),
                accepted: None,
            });
        }
        let counts = traffic.counts();
        assert!(counts.items <= WINDOW && counts.compared() <= WINDOW);
        assert!(counts.classes[1] > 5 * counts.classes[0], "{counts:?}");
        assert!(counts.similarity[9] > 5 * counts.similarity[0]);
        assert_eq!(counts.recognised, counts.rejected);
        // A class that the version does not have is none.
        traffic.count(Seen {
            class: Some(7),
            ..Seen::default()
        });
    }

    /// Two of each of two classes.
    fn examples() -> Examples {
        Examples {
            deciles: vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
            sample: 4.0,
            rounds: Rounds::of(&[0, 0, 1, 1]),
        }
    }

    #[test]
    fn one_item_in_sixteen_is_compared_where_there_are_deciles() {
        let traffic = Traffic::new(2, 4, examples());
        let compared = (0..160).filter(|_| traffic.neighbours(0) == NEAREST);
        assert_eq!(compared.count(), 10);
        assert!((0..160).all(|_| traffic.neighbours(20) == 20 && traffic.neighbours(1) == NEAREST));
        let without = Traffic::new(2, 4, Examples::default());
        assert!((0..160).all(|_| without.neighbours(0) == 0 && without.neighbours(1) == 1));
        assert_eq!(without.compare(&[(0, 0.5)]), None);
    }

    #[test]
    fn items_are_compared_with_each_round_in_turn() {
        let traffic = Traffic::new(2, 4, examples());
        let found = [(1, 0.75), (2, 0.5), (0, 0.25)];
        assert_eq!(traffic.compare(&[]), None);
        let similarities: Vec<_> = (0..4).map(|_| traffic.compare(&found)).collect();
        assert_eq!(similarities, [Some(0.75), Some(0.5), Some(0.75), Some(0.5)]);
    }
    #[test]
    fn examples_that_nothing_came_near_are_told_once_there_are_enough_items() {
        let traffic = Traffic::new(2, 4, examples());
        for item in 0..40_u8 {
            let seen = traffic.of_examples().unwrap();
            assert_eq!((seen.items, seen.enough), (u64::from(item), 40));
            assert_eq!(seen.unmatched, None);
            let key = usize::from(item % 2) * 2;
            traffic.compare(&[(key, 0.9), (1, 0.8)]);
            traffic.compare(&[]);
        }
        let seen = traffic.of_examples().unwrap();
        assert_eq!(seen.unmatched, Some(vec![1, 3]));
        traffic.compare(&[(3, 0.9)]);
        // A key that the version does not have is none.
        traffic.compare(&[(4, 0.9)]);
        let seen = traffic.of_examples().unwrap();
        assert_eq!((seen.items, seen.unmatched), (41, Some(vec![1])));
        let without = Traffic::new(2, 4, Examples::default());
        without.compare(&[(0, 0.9)]);
        assert_eq!(without.of_examples(), None);
    }
}
