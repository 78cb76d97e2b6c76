//! A cache's changing part: aliases and deletions, as numbered records of
//! which the newest counts.
//!
//! Each record holds the whole state. A change reads the newest record and
//! creates the next one if there is none: the winner of a race has made one
//! atomic step, the loser reads again. So an alias can never come to point at a
//! version that is being deleted, with no lock anywhere.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    StoreError,
    layout::{Mark, short},
    name::{AliasName, CacheId, VersionNumber},
    sealed::FORMAT,
};

/// The content of `state/<sequence>.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) format: u32,
    pub(crate) cache: CacheId,
    /// Number of the record, from 1, never reused.
    pub(crate) sequence: u64,
    /// Distinguishes this record from any other writer's.
    pub(crate) nonce: String,
    pub(crate) time: DateTime<Utc>,
    /// What this record changed, for people.
    pub(crate) change: String,
    /// Beginnings of the nonces of the records before, the latest first: shows
    /// whether a record is built on another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ancestry: Vec<String>,
    /// Sequence of the record that last deleted the whole cache; 0 if none did.
    /// Distinguishes a cache made anew from one whose older versions were
    /// deleted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) cleared: u64,
    /// Deleted versions as ranges, both ends included, ascending, not touching.
    pub(crate) deleted: Vec<(u64, u64)>,
    pub(crate) aliases: BTreeMap<AliasName, AliasRecord>,
}

/// What an alias points at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AliasRecord {
    pub(crate) version: VersionNumber,
    /// Sequence of the record that last changed it.
    pub(crate) changed: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde wants it
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How many records back a record names.
const ANCESTRY: usize = 24;

impl State {
    /// The state of a deleted cache whose last record cannot be read, from its
    /// tombstone's name.
    pub(crate) fn cleared(cache: &CacheId, mark: &Mark) -> Self {
        let mut state = Self::empty(cache);
        (state.sequence, state.cleared) = (mark.sequence, mark.sequence);
        state.nonce.clone_from(&mark.nonce);
        if mark.number > 0 {
            state.delete(1, mark.number);
        }
        state
    }

    /// The next record, to be changed and written under `nonce`.
    pub(crate) fn next(&self, sequence: u64, nonce: String) -> Self {
        let mut next = self.clone();
        if !self.nonce.is_empty() {
            next.ancestry.insert(0, short(&self.nonce));
            next.ancestry.truncate(ANCESTRY);
        }
        next.format = FORMAT;
        next.sequence = sequence;
        next.nonce = nonce;
        next
    }

    /// Whether this is that record, or built on it; none if the ancestry does not
    /// reach so far back.
    pub(crate) fn includes(&self, other: &Self) -> Option<bool> {
        let nonce = short(&other.nonce);
        if short(&self.nonce) == nonce || self.ancestry.contains(&nonce) {
            return Some(true);
        }
        let since = self.sequence.saturating_sub(other.sequence);
        // Older servers wrote no ancestry, and what replaces a damaged record has none.
        let untold = self.ancestry.is_empty() || self.ancestry.len() == ANCESTRY;
        let beyond = since > self.ancestry.len() as u64;
        (!(untold && beyond)).then_some(false)
    }

    /// The state of a cache that has no record.
    pub(crate) fn empty(cache: &CacheId) -> Self {
        Self {
            format: FORMAT,
            cache: cache.clone(),
            sequence: 0,
            nonce: String::new(),
            time: DateTime::UNIX_EPOCH,
            change: String::new(),
            ancestry: Vec::new(),
            cleared: 0,
            deleted: Vec::new(),
            aliases: BTreeMap::new(),
        }
    }

    /// Whether the record fits its path, and is consistent.
    pub(crate) fn check(&self, cache: &CacheId, sequence: u64) -> Result<(), StoreError> {
        let ordered = self.deleted.iter().all(|(from, to)| from <= to)
            && self
                .deleted
                .windows(2)
                .all(|w| matches!(w, [(_, end), (start, _)] if end < start));
        if self.cache == *cache && self.sequence == sequence && ordered {
            return Ok(());
        }
        Err(StoreError::damaged(
            cache.resource_name(),
            format!(
                "state record {sequence} says that it is record {} of {}",
                self.sequence, self.cache
            ),
        ))
    }

    pub(crate) fn is_deleted(&self, version: VersionNumber) -> bool {
        let number = version.get();
        self.deleted
            .iter()
            .any(|&(from, to)| (from..=to).contains(&number))
    }

    /// How many of the numbers up to `highest` are deleted.
    pub(crate) fn count_deleted(&self, highest: u64) -> u64 {
        let within = self.deleted.iter().filter(|(from, _)| *from <= highest);
        within
            .map(|&(from, to)| to.min(highest).saturating_sub(from).saturating_add(1))
            .fold(0, u64::saturating_add)
    }

    /// The numbers up to `highest` that are not deleted, ascending.
    pub(crate) fn not_deleted(&self, highest: u64) -> impl Iterator<Item = u64> {
        let starts =
            std::iter::once(1).chain(self.deleted.iter().map(|(_, to)| to.saturating_add(1)));
        let ends = self.deleted.iter().map(|(from, _)| from.saturating_sub(1));
        let ends = ends.chain(std::iter::once(highest));
        starts
            .zip(ends)
            .flat_map(move |(start, end)| start..=end.min(highest))
    }

    /// The highest number that this record knows of.
    pub(crate) fn highest(&self) -> u64 {
        let deleted = self.deleted.last().map_or(0, |&(_, to)| to);
        let aliased = self.aliases.values().map(|a| a.version.get()).max();
        deleted.max(aliased.unwrap_or(0))
    }

    /// Records that the versions `from..=to` are deleted.
    pub(crate) fn delete(&mut self, from: u64, to: u64) {
        self.deleted.push((from, to));
        self.deleted.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for &(from, to) in &self.deleted {
            match merged.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        self.deleted = merged;
    }

    /// Aliases of a version, in order.
    pub(crate) fn aliases_of(&self, version: VersionNumber) -> Vec<&AliasName> {
        self.aliases
            .iter()
            .filter(|(_, record)| record.version == version)
            .map(|(alias, _)| alias)
            .collect()
    }
}
