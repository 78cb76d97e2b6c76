//! Metrics of each bundle. Its name is a label: the operator chooses the names,
//! and at most [`MOST`] of them get series of their own.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use metrics::{counter, gauge};
use parking_lot::Mutex;

use super::names::*;
use tipserve_engine::Engine;

/// Most bundles with series of their own in a process's life; later ones share
/// one.
const MOST: usize = 32;
/// The label of all other bundles.
const OTHERS: &str = "(others)";

/// Pictures and batches of the engines that a name's bundles have had.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    /// Totals of engines that have stopped.
    before: [u64; 2],
    /// Totals of those that run.
    now: [u64; 2],
}

static KNOWN: Mutex<BTreeMap<String, Done>> = Mutex::new(BTreeMap::new());

/// Brings the series of the bundles up to date.
pub(super) fn refresh(engines: &[(String, Engine)]) {
    let mut known = KNOWN.lock();
    let mut items: BTreeMap<&str, usize> = BTreeMap::new();
    let mut done: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    for (name, engine) in engines {
        let name = match known.contains_key(name) || known.len() < MOST {
            true => name.as_str(),
            false => OTHERS,
        };
        known.entry(name.to_owned()).or_default();
        *items.entry(name).or_default() += engine.admission().items();
        let counters = engine.counters();
        let counts = [&counters.encoded, &counters.batches];
        for (sum, count) in done.entry(name).or_default().iter_mut().zip(counts) {
            *sum += count.load(Ordering::Relaxed);
        }
    }
    gauge!(BUNDLES).set(engines.len() as f64);
    for (name, total) in known.iter_mut() {
        let counts = done.get(name.as_str()).copied().unwrap_or_default();
        let held = items.get(name.as_str());
        gauge!(BUNDLE_LOADED, "bundle" => name.clone()).set(f64::from(u8::from(held.is_some())));
        gauge!(BUNDLE_ITEMS, "bundle" => name.clone()).set(held.copied().unwrap_or(0) as f64);
        for (metric, count) in [BUNDLE_PICTURES, BUNDLE_BATCHES]
            .into_iter()
            .zip(total.now_at(counts))
        {
            counter!(metric, "bundle" => name.clone()).absolute(count);
        }
    }
}

impl Done {
    /// The totals, given what the running engines have done. Less than before
    /// means that one has stopped.
    fn now_at(&mut self, counts: [u64; 2]) -> [u64; 2] {
        let mut totals = [0; 2];
        let all = self
            .before
            .iter_mut()
            .zip(&mut self.now)
            .zip(counts)
            .zip(&mut totals);
        for (((before, now), count), total) in all {
            if count < *now {
                *before += *now - count;
            }
            *now = count;
            *total = *before + count;
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::Done;

    #[test]
    fn counts_go_on_where_a_bundle_is_loaded_again() {
        let mut done = Done::default();
        assert_eq!(done.now_at([10, 2]), [10, 2]);
        assert_eq!(done.now_at([15, 3]), [15, 3]);
        assert_eq!(done.now_at([0, 0]), [15, 3]);
        assert_eq!(done.now_at([4, 1]), [19, 4]);
    }
}
