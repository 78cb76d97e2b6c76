//! Is there an order of the steps, each within its call, that a cache kept on
//! one machine would have answered alike? Wing and Gong's search (1993), with
//! Lowe's memory of configurations already refuted (2017).
//!
//! A call is one step or several: what a storage that failed in the middle may
//! or may not have done is an optional step, and deleting a cache first looks
//! which versions there are and then deletes these.

use std::collections::{BTreeMap, BTreeSet, HashSet};

/// The state of one cache, as a single machine would have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Model {
    /// Seeds of the versions that exist.
    pub versions: BTreeMap<u64, u64>,
    pub aliases: BTreeMap<String, u64>,
    /// The highest number ever given out.
    pub highest: u64,
    /// Numbers that creating steps gave out, by step.
    made: BTreeMap<usize, u64>,
    /// Versions that steps have looked at, to delete them.
    observed: BTreeMap<usize, Vec<u64>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A version is made; with `number`, under that one.
    Create {
        seed: u64,
        number: Option<u64>,
        only_new: bool,
    },
    /// The version of another step is taken back.
    Retract {
        made_by: usize,
    },
    /// The version is found to be there, or not.
    Has {
        seed: u64,
        number: u64,
    },
    SetAlias {
        alias: String,
        version: u64,
    },
    DeleteAlias {
        alias: String,
    },
    DeleteVersion {
        version: u64,
    },
    /// Looks which versions there are, to delete the cache.
    ObserveAll,
    /// Deletes what another step looked at, and every alias.
    Clear {
        observed_by: usize,
    },
    /// Looks which versions are superseded.
    ObserveSuperseded {
        keep: usize,
        found: Option<Vec<u64>>,
    },
    /// Deletes what another step looked at.
    Remove {
        observed_by: usize,
    },
    /// There is no such cache.
    IsAbsent,
    IsThere,
    HasNo {
        version: u64,
    },
    /// An alias points at the version, or it is the only one.
    IsInUse {
        version: u64,
    },
    Snapshot {
        versions: BTreeSet<u64>,
        aliases: BTreeMap<String, u64>,
    },
    /// At the end, with the seeds of all versions.
    Final {
        versions: BTreeMap<u64, u64>,
        aliases: BTreeMap<String, u64>,
    },
}

/// A step, and when it may have happened.
#[derive(Clone, Debug)]
pub struct Timed {
    pub from: u64,
    pub to: u64,
    pub step: Step,
    pub optional: bool,
    /// Happens only after that step.
    pub after: Option<usize>,
}

impl Model {
    fn superseded(&self, keep: usize) -> Vec<u64> {
        let newest_first = self.versions.keys().rev().skip(keep);
        let unnamed = newest_first.filter(|v| self.aliases.values().all(|to| to != *v));
        unnamed.copied().collect()
    }

    /// The model after a step, if that step can happen now. `told` are the
    /// numbers that some call was told, with the seeds of their versions.
    fn after(&self, index: usize, step: &Step, told: &BTreeMap<u64, u64>) -> Option<Self> {
        if let Step::Create { seed, number, .. } = step {
            let given = self.highest + 1;
            let others = number.is_none() && told.get(&given).is_some_and(|s| s != seed);
            if others || number.is_some_and(|number| number != given) {
                return None;
            }
        }
        let mut next = self.clone();
        let possible = match step {
            Step::Create { seed, only_new, .. } => {
                let given = self.highest + 1;
                next.highest = given;
                next.versions.insert(given, *seed);
                next.made.insert(index, given);
                !*only_new || self.versions.is_empty()
            }
            Step::Retract { made_by } => {
                let number = self.made.get(made_by)?;
                let named = self.aliases.values().any(|to| to == number);
                !named && next.versions.remove(number).is_some()
            }
            Step::Has { seed, number } => self.versions.get(number) == Some(seed),
            Step::SetAlias { alias, version } => {
                next.aliases.insert(alias.clone(), *version);
                self.versions.contains_key(version)
            }
            Step::DeleteAlias { alias } => next.aliases.remove(alias).is_some(),
            Step::DeleteVersion { version } => {
                let named = self.aliases.values().any(|to| to == version);
                let there = next.versions.remove(version).is_some();
                there && !named && self.versions.len() > 1
            }
            Step::ObserveAll => {
                let all = self.versions.keys().copied().collect();
                next.observed.insert(index, all);
                !self.versions.is_empty()
            }
            Step::ObserveSuperseded { keep, found } => {
                let superseded = self.superseded(*keep);
                let same = found.as_ref().is_none_or(|found| *found == superseded);
                next.observed.insert(index, superseded);
                same && !self.versions.is_empty()
            }
            Step::Clear { observed_by } => {
                for version in next.observed.remove(observed_by)? {
                    next.versions.remove(&version);
                }
                next.aliases.clear();
                true
            }
            Step::Remove { observed_by } => {
                for version in next.observed.remove(observed_by)? {
                    next.versions.remove(&version);
                }
                true
            }
            Step::IsAbsent => self.versions.is_empty(),
            Step::IsThere => !self.versions.is_empty(),
            Step::HasNo { version } => !self.versions.contains_key(version),
            Step::IsInUse { version } => {
                let named = self.aliases.values().any(|to| to == version);
                self.versions.contains_key(version) && (named || self.versions.len() == 1)
            }
            Step::Snapshot { versions, aliases } => {
                self.versions.keys().eq(versions) && self.aliases == *aliases
            }
            Step::Final { versions, aliases } => {
                self.versions == *versions && self.aliases == *aliases
            }
        };
        possible.then_some(next)
    }
}

/// States of a search before it is given up: one history in ten thousand, with many
/// overlapping calls of unknown outcome, has more than any memory holds.
const MOST_REFUTED: usize = 300_000;

struct Search<'a> {
    steps: &'a [Timed],
    /// The order in which steps are tried: what must be first, and of that
    /// what ends first.
    by_urgency: Vec<usize>,
    told: BTreeMap<u64, u64>,
    refuted: HashSet<(u128, Model)>,
    deepest: (usize, Vec<usize>),
    given_up: bool,
}

/// An order that explains a history; none if the search for one took too long.
///
/// # Errors
/// Where there is none: the longest beginning of one.
pub fn linearize(steps: &[Timed]) -> Result<Option<Vec<usize>>, Vec<usize>> {
    assert!(steps.len() <= 128, "{} steps are too many", steps.len());
    let mut by_urgency: Vec<usize> = (0..steps.len()).collect();
    by_urgency.sort_by_key(|i| (steps[*i].optional, steps[*i].to));
    let told = steps.iter().filter_map(|timed| match timed.step {
        Step::Create {
            seed,
            number: Some(number),
            ..
        }
        | Step::Has { seed, number } => Some((number, seed)),
        _ => None,
    });
    let mut search = Search {
        steps,
        by_urgency,
        told: told.collect(),
        refuted: HashSet::new(),
        deepest: (0, Vec::new()),
        given_up: false,
    };
    let mut order = Vec::new();
    if search.explain(0, &Model::default(), 0, &mut order) {
        Ok((!search.given_up).then_some(order))
    } else {
        Err(search.deepest.1)
    }
}

impl Search<'_> {
    fn explain(&mut self, done: u128, model: &Model, latest: u64, order: &mut Vec<usize>) -> bool {
        let open = |i: &usize| done & (1 << i) == 0;
        let mandatory = (0..self.steps.len())
            .filter(open)
            .filter(|i| !self.steps[*i].optional);
        // Nothing may happen after a call that has ended before it began.
        let Some(bound) = mandatory.map(|i| self.steps[i].to).min() else {
            return true;
        };
        self.given_up |= self.refuted.len() >= MOST_REFUTED;
        if self.given_up {
            return true;
        }
        if !self.refuted.insert((done, model.clone())) {
            return false;
        }
        let count = order.iter().filter(|i| !self.steps[**i].optional).count();
        if count >= self.deepest.0 {
            self.deepest = (count, order.clone());
        }
        let steps = self.steps;
        for at in 0..steps.len() {
            let i = self.by_urgency[at];
            let timed = &steps[i];
            let in_order = timed.after.is_none_or(|before| done & (1 << before) != 0);
            if done & (1 << i) != 0 || !in_order || timed.from > bound || timed.to < latest {
                continue;
            }
            if let Some(next) = model.after(i, &timed.step, &self.told) {
                order.push(i);
                if self.explain(done | (1 << i), &next, latest.max(timed.from), order) {
                    return true;
                }
                order.pop();
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(from: u64, to: u64, step: Step) -> Timed {
        Timed {
            from,
            to,
            step,
            optional: false,
            after: None,
        }
    }

    fn create(from: u64, to: u64, number: u64) -> Timed {
        let create = Step::Create {
            seed: from,
            number: Some(number),
            only_new: false,
        };
        step(from, to, create)
    }

    fn snapshot(from: u64, to: u64, versions: &[u64], aliases: &[(&str, u64)]) -> Timed {
        let aliases = aliases.iter().map(|(a, v)| ((*a).to_owned(), *v));
        let snapshot = Step::Snapshot {
            versions: versions.iter().copied().collect(),
            aliases: aliases.collect(),
        };
        step(from, to, snapshot)
    }

    fn set(from: u64, to: u64, version: u64) -> Timed {
        let alias = "stable".to_owned();
        step(from, to, Step::SetAlias { alias, version })
    }

    #[test]
    fn the_checker_accepts_what_can_be_and_refuses_what_cannot() {
        let overlapping = [
            create(1, 4, 2),
            create(2, 3, 1),
            snapshot(5, 6, &[1, 2], &[]),
        ];
        assert!(linearize(&overlapping).is_ok());
        for (wrong, what) in [
            (vec![create(1, 2, 2), create(3, 4, 1)], "numbers that fall"),
            (
                vec![create(1, 2, 1), create(3, 4, 1)],
                "a number given twice",
            ),
            (
                vec![create(1, 2, 1), snapshot(3, 4, &[], &[])],
                "a lost version",
            ),
            (
                vec![create(1, 2, 1), set(3, 4, 1), snapshot(5, 6, &[1], &[])],
                "a lost alias",
            ),
            (
                vec![
                    create(1, 2, 1),
                    snapshot(3, 4, &[1], &[("stable", 1)]),
                    set(5, 6, 1),
                ],
                "a change seen before it began",
            ),
        ] {
            assert!(linearize(&wrong).is_err(), "{what}");
        }
        // What failed may have happened, or not; but not after its time.
        let failed = |mut timed: Timed| {
            timed.optional = true;
            timed
        };
        let seen = vec![create(1, 2, 1), failed(set(3, 4, 1))];
        for aliases in [&[("stable", 1)][..], &[]] {
            let mut history = seen.clone();
            history.push(snapshot(5, 6, &[1], aliases));
            assert!(linearize(&history).is_ok());
        }
        let mut late = seen;
        late.push(snapshot(5, 6, &[1], &[]));
        late.push(snapshot(7, 8, &[1], &[("stable", 1)]));
        assert!(linearize(&late).is_err());
    }
}
