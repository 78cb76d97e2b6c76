//! Durable records of fine-tuning runs: what each was to do, how far it came,
//! and its outcome, for servers that did not run it or have restarted since.
//!
//! As everything in a store, a run's record is never changed: each update is
//! the next object of the run's folder, made only if there is none. So a run
//! has one history, whichever server writes it: one that declares another dead
//! and that other, which was only slow, cannot both have the last word.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::{
    RequestKey, Store, StoreError, layout,
    name::{AliasName, CacheId, VersionNumber},
    sealed::{FORMAT, MAX_JSON_BYTES, seal, unseal},
};

/// Longest id of a run.
pub const MAX_RUN_ID_BYTES: usize = 63;
/// Ended runs whose records are kept; those before are swept.
pub const MAX_RUNS_KEPT: usize = 1000;
/// Records read from the storage at once.
const READS: usize = 16;

/// Where a run of fine-tuning stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Waiting until a place is free.
    Queued,
    /// A server is training it.
    Running,
    /// It ended, and made a version or found that none is better.
    Succeeded,
    /// It ended with an error: see [`RunRecord::error`].
    Failed,
    /// It was cancelled before it ended.
    Cancelled,
}

impl RunState {
    /// Whether nothing more will happen.
    pub fn has_ended(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// How far training has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunProgress {
    /// The epoch under way, from 1.
    pub epoch: u64,
    /// Epochs of the whole run.
    pub epochs: u64,
    /// Steps done, over all epochs.
    pub step: u64,
    /// Optimiser steps of the whole run.
    pub steps: u64,
    /// Mean loss of the epoch so far, nats; none if it was not finite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Training accuracy of the epoch so far, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_accuracy: Option<f64>,
    /// Accuracy on what the epoch is chosen by, after the last whole epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_accuracy: Option<f64>,
    /// Learning rate of the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
}

/// The error that a run failed with, as a caller sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// A gRPC status code, as its number.
    pub code: i32,
    /// An error reason of the API.
    pub reason: String,
    /// The error in words, for people.
    pub message: String,
}

/// `runs/<id>/<sequence>.json`: a run as it was when that was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Format of the record, for readers of other versions.
    pub format: u32,
    /// The run's id; ids sort by age.
    pub run: String,
    /// Which record of the run this is, from 1.
    pub sequence: u64,
    /// Distinguishes this record from any other writer's.
    pub nonce: String,
    /// The server that runs it.
    pub owner: String,
    /// Where the run stood when this was written.
    pub state: RunState,
    /// The cache of the version that it fine-tunes.
    pub cache: CacheId,
    /// The version that it started from.
    pub parent: VersionNumber,
    /// Who asked for it; empty: nobody is named.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// The key of the request that asked for it, if it may be repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestKey>,
    /// When it was asked for.
    pub create_time: DateTime<Utc>,
    /// When the run ended; none while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<DateTime<Utc>>,
    /// The latest progress; none before its first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<RunProgress>,
    /// The version that it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionNumber>,
    /// The alias that it moved to that version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias_moved: Option<AliasName>,
    /// Why it failed; none in any other state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// Whether it made no version: `version` is then the one it started from.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
    /// The outcome, in one sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub outcome: String,
}

/// A run's newest record, and when that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRun {
    /// The newest record of the run.
    pub record: RunRecord,
    /// When it was written, by the storage's clock ([`Store::storage_time`]).
    pub written: DateTime<Utc>,
}

/// What a listing shows of one run.
#[derive(Clone, Debug)]
struct Listed {
    sequence: u64,
    written: DateTime<Utc>,
    superseded: Vec<u64>,
}

impl RunRecord {
    /// A run that is about to be queued.
    pub fn queued(
        run: String,
        owner: String,
        (cache, parent): (CacheId, VersionNumber),
        create_time: DateTime<Utc>,
    ) -> Self {
        Self {
            format: FORMAT,
            run,
            sequence: 0,
            nonce: String::new(),
            owner,
            state: RunState::Queued,
            cache,
            parent,
            created_by: String::new(),
            request: None,
            create_time,
            end_time: None,
            progress: None,
            version: None,
            alias_moved: None,
            error: None,
            unchanged: false,
            outcome: String::new(),
        }
    }

    /// The resource name, `fineTunes/{id}`.
    pub fn resource_name(&self) -> String {
        resource_name(&self.run)
    }
}

fn resource_name(run: &str) -> String {
    format!("fineTunes/{run}")
}

/// Refuses an invalid run id before it becomes part of a path.
fn check_id(run: &str) -> Result<(), StoreError> {
    let sane = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    match !run.is_empty() && run.len() <= MAX_RUN_ID_BYTES && run.bytes().all(sane) {
        true => Ok(()),
        false => Err(StoreError::NotFound {
            what: "that fine-tuning run".to_owned(),
            hint: format!(
                ": a run's id has 1 to {MAX_RUN_ID_BYTES} lower-case letters, digits and hyphens"
            ),
        }),
    }
}

impl Store {
    /// Writes the first record of a run, or the one after `record`; returns it.
    /// The record before is removed.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if another server wrote the next record: the
    /// run is that server's now. Otherwise the storage's.
    pub async fn write_run(&self, record: &RunRecord) -> Result<RunRecord, StoreError> {
        check_id(&record.run)?;
        let next = RunRecord {
            format: FORMAT,
            sequence: record.sequence.saturating_add(1),
            nonce: self.random_nonce(),
            ..record.clone()
        };
        let what = next.resource_name();
        let path = layout::run(&next.run, next.sequence);
        if !self.backend.create(&path, seal(&what, &next)?).await? {
            let detail = "another server has written its next record";
            return Err(StoreError::conflict(what, detail));
        }
        if record.sequence > 0 {
            // Else swept later.
            let before = layout::run(&record.run, record.sequence);
            let _ = self.backend.delete(vec![before]).await;
        }
        Ok(next)
    }

    /// A run's newest record.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Damaged`],
    /// [`StoreError::NewerFormat`]; those of the storage.
    pub async fn run(&self, run: &str) -> Result<StoredRun, StoreError> {
        check_id(run)?;
        let not_found = || StoreError::not_found(resource_name(run));
        for _ in 0..20 {
            let listed = self.listed_runs(&layout::run_folder(run)).await?;
            let listed = listed.get(run).ok_or_else(not_found)?;
            if let Some(found) = self.read_run(run, listed).await? {
                return Ok(found);
            }
        }
        Err(not_found())
    }

    /// The runs of a request, newest first: their ids end in its mark
    /// ([`RequestKey::mark`]). Costs one listing of all runs, and one read for
    /// each that is found.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn runs_of_request(
        &self,
        request: &RequestKey,
    ) -> Result<Vec<StoredRun>, StoreError> {
        let mark = request.mark();
        let listed = self.listed_runs(&layout::runs()).await?;
        let mut found = Vec::new();
        for run in listed.into_keys().rev().filter(|run| run.ends_with(&mark)) {
            match self.run(&run).await {
                Ok(stored)
                    if stored
                        .record
                        .request
                        .as_ref()
                        .is_some_and(|r| r.id == request.id) =>
                {
                    found.push(stored);
                }
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }

    /// Runs, newest first, up to `size` of those that are `wanted`; with
    /// `before`, those older than it. Costs one listing of all runs, and one
    /// read for each that is examined. Damaged records are left out, and
    /// logged.
    ///
    /// # Errors
    /// Those of the storage.
    pub async fn list_runs(
        &self,
        wanted: impl Fn(&RunRecord) -> bool,
        before: Option<&str>,
        size: usize,
    ) -> Result<Vec<StoredRun>, StoreError> {
        let listed = self.listed_runs(&layout::runs()).await?;
        let older = listed
            .into_iter()
            .rev()
            .filter(|(run, _)| before.is_none_or(|before| run.as_str() < before));
        let mut read = stream::iter(older)
            .map(|(run, listed)| async move {
                match self.read_run(&run, &listed).await {
                    // Replaced by a newer record since the listing, or swept.
                    Ok(None) => match self.run(&run).await {
                        Err(StoreError::NotFound { .. }) => Ok(None),
                        other => other.map(Some),
                    },
                    other => other,
                }
            })
            .buffered(READS);
        let mut found = Vec::new();
        while found.len() < size
            && let Some(run) = read.next().await
        {
            match run {
                Ok(Some(run)) if wanted(&run.record) => found.push(run),
                Ok(_) => {}
                Err(error @ (StoreError::Damaged { .. } | StoreError::NewerFormat { .. })) => {
                    tracing::warn!(%error, "a fine-tuning run cannot be listed");
                }
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }

    /// The time by the clock that dates the store's objects. The age of a
    /// [`StoredRun`] is measured by this clock, not by a server's own.
    ///
    /// # Errors
    /// Those of the storage.
    pub async fn storage_time(&self) -> Result<DateTime<Utc>, StoreError> {
        self.backend.clock().await
    }

    /// Removes records that newer ones replaced, and runs beyond the newest
    /// [`MAX_RUNS_KEPT`] that nobody has written to for the leftover age.
    pub(super) async fn sweep_runs(&self) -> Result<usize, StoreError> {
        let listed = self.listed_runs(&layout::runs()).await?;
        let excess = listed.len().saturating_sub(MAX_RUNS_KEPT);
        let now = match excess {
            0 => None,
            _ => Some(self.backend.clock().await?),
        };
        let is_old = |written: DateTime<Utc>| {
            let age = now.map(|now| now.signed_duration_since(written).to_std());
            age.is_some_and(|age| age.is_ok_and(|age| age >= self.options.leftover_age))
        };
        let mut removed = BTreeSet::new();
        for (i, (run, listed)) in listed.iter().enumerate() {
            for &sequence in &listed.superseded {
                let path = layout::run(run, sequence);
                self.backend.delete(vec![path]).await?;
            }
            if i < excess && is_old(listed.written) {
                let path = layout::run(run, listed.sequence);
                self.backend.delete(vec![path]).await?;
                removed.insert(run);
            }
        }
        Ok(removed.len())
    }

    async fn listed_runs(&self, below: &Path) -> Result<BTreeMap<String, Listed>, StoreError> {
        let mut runs: BTreeMap<String, Listed> = BTreeMap::new();
        for meta in self.backend.list(below).await? {
            let Some((run, sequence)) = layout::classify_run(&meta.location) else {
                continue;
            };
            let written = meta.last_modified;
            let listed = runs.entry(run).or_insert_with(|| Listed {
                sequence,
                written,
                superseded: Vec::new(),
            });
            let (newer, older) = match sequence > listed.sequence {
                true => ((sequence, written), listed.sequence),
                false => ((listed.sequence, listed.written), sequence),
            };
            (listed.sequence, listed.written) = newer;
            if older < listed.sequence {
                listed.superseded.push(older);
            }
        }
        Ok(runs)
    }

    async fn read_run(&self, run: &str, listed: &Listed) -> Result<Option<StoredRun>, StoreError> {
        let path = layout::run(run, listed.sequence);
        let Some(text) = self.backend.read(&path, MAX_JSON_BYTES).await? else {
            return Ok(None);
        };
        let what = resource_name(run);
        let record: RunRecord = unseal(&what, path.as_ref(), &text)?;
        if record.run != run || record.sequence != listed.sequence {
            let detail = format!("{path}: it is record {} of {}", record.sequence, record.run);
            return Err(StoreError::damaged(what, detail));
        }
        let written = listed.written;
        Ok(Some(StoredRun { record, written }))
    }

    /// Every run's newest record that has not ended, for a server that starts.
    ///
    /// # Errors
    /// As [`Self::list_runs`].
    pub async fn unfinished_runs(&self) -> Result<Vec<StoredRun>, StoreError> {
        let unfinished = |record: &RunRecord| !record.state.has_ended();
        self.list_runs(unfinished, None, usize::MAX).await
    }
}
