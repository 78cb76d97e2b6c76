//! The durable records of fine-tuning runs, as their server writes them and any
//! server reads them.

use std::{path::Path, time::Duration};

use chrono::{DateTime, Utc};

use super::{
    CatalogError,
    run::{Run, RunProgress, TuneRequest, check_same},
};
use tipserve_store::{
    CacheId, Reference, RequestKey, RunError, RunProgress as StoredProgress, RunRecord, RunState,
    Store, StoreError, StoredRun, VersionSelector,
};

/// How often the record of a run under way is written, at least.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a run's record may be silent before its server counts as gone.
const SILENCE: Duration = Duration::from_secs(45);
/// How long the end of a run waits for a store that does not answer.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// Gives an error as the API puts it: code, reason, message.
pub type Describe = fn(&CatalogError) -> RunError;

/// The server process, as runs name it: host, process namespace, process id,
/// and when it started.
pub(super) fn owner(life: &str) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!(
        "{}/{}/{}/{life}",
        read("/proc/sys/kernel/hostname").trim(),
        namespace.display(),
        std::process::id()
    )
}

/// Whether a process is surely gone, seen from `us`; that of another machine is
/// never surely so.
fn is_gone(owner: &str, us: &str) -> bool {
    let parts = |text: &str| -> Option<[String; 4]> {
        let parts: Vec<String> = text.splitn(4, '/').map(str::to_owned).collect();
        parts.try_into().ok()
    };
    let (Some([host, namespace, pid, life]), Some([our_host, our_namespace, our_pid, our_life])) =
        (parts(owner), parts(us))
    else {
        return false;
    };
    if host != our_host || namespace != our_namespace || namespace.is_empty() || life == our_life {
        return false;
    }
    pid == our_pid || !Path::new("/proc").join(&pid).exists()
}

/// One run's record, kept up to date.
pub(super) struct Journal {
    store: Store,
    record: RunRecord,
}

impl Journal {
    /// Writes the first record.
    ///
    /// # Errors
    /// The store's: a run that cannot be recorded is not begun.
    pub(super) async fn begin(
        store: Store,
        run: &Run,
        request: &TuneRequest,
        owner: &str,
    ) -> Result<Journal, CatalogError> {
        let of = (run.cache.clone(), request.version);
        let mut record = RunRecord::queued(run.id.clone(), owner.to_owned(), of, run.create_time);
        record.created_by.clone_from(&request.created_by);
        record.request.clone_from(&request.request);
        let record = store.write_run(&record).await?;
        Ok(Journal { store, record })
    }

    /// Writes the run's state. Returns whether the run is still this server's:
    /// another server that took this one for dead may have ended it.
    pub(super) async fn write(&mut self, run: &Run, describe: Describe) -> bool {
        self.record.state = run.state;
        self.record.progress = run.progress.as_ref().map(stored_progress);
        self.record.end_time = run.end_time;
        self.record.version = run.version.as_ref().map(|manifest| manifest.version);
        self.record.alias_moved = run.alias_moved.then(|| run.alias.clone()).flatten();
        self.record.error = run.error.as_ref().map(describe);
        self.record.unchanged = run.unchanged;
        self.record.outcome = run.outcome.clone();
        match self.store.write_run(&self.record).await {
            Ok(record) => {
                self.record = record;
                true
            }
            Err(StoreError::Conflict { .. }) => {
                tracing::error!(run = run.id, "another server has ended this run");
                false
            }
            Err(error) => {
                tracing::warn!(run = run.id, %error, "the run's record could not be written");
                true
            }
        }
    }

    /// Writes how the run ended, unless the store does not answer.
    pub(super) async fn end(&mut self, run: &Run, describe: Describe) {
        if tokio::time::timeout(LAST_WRITE, self.write(run, describe))
            .await
            .is_err()
        {
            tracing::warn!(run = run.id, "the store does not take the run's end");
        }
    }
}

/// Reads the records of other servers' runs, and of those before a restart.
#[derive(Clone)]
pub(super) struct Records {
    pub(super) store: Store,
    /// This server, as [`owner`] names it.
    pub(super) owner: String,
    pub(super) describe: Describe,
}

impl Records {
    /// A run by its record.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn get(&self, id: &str) -> Result<Run, CatalogError> {
        let stored = self.store.run(id).await?;
        let now = self.now_for(std::slice::from_ref(&stored)).await?;
        self.run(stored, now).await
    }

    /// The run that an equal request has begun, unless that made nothing.
    ///
    /// # Errors
    /// [`StoreError::RequestReused`]; the store's.
    pub(super) async fn of_request(
        &self,
        cache: &CacheId,
        request: &RequestKey,
    ) -> Result<Option<Run>, CatalogError> {
        let stored = self.store.runs_of_request(request).await?;
        let now = self.now_for(&stored).await?;
        for stored in stored.into_iter().filter(|run| run.record.cache == *cache) {
            let before = stored.record.request.clone();
            let run = self.run(stored, now).await?;
            if matches!(run.state, RunState::Failed | RunState::Cancelled) {
                continue;
            }
            check_same(&run.id, before.as_ref(), request)?;
            return Ok(Some(run));
        }
        Ok(None)
    }

    /// As [`Store::list_runs`].
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn list(
        &self,
        wanted: impl Fn(&CacheId) -> bool,
        before: Option<&str>,
        size: usize,
    ) -> Result<Vec<Run>, CatalogError> {
        let of_cache = |record: &RunRecord| wanted(&record.cache);
        let stored = self.store.list_runs(of_cache, before, size).await?;
        let now = self.now_for(&stored).await?;
        let mut runs = Vec::with_capacity(stored.len());
        for run in stored {
            runs.push(self.run(run, now).await?);
        }
        Ok(runs)
    }

    /// The storage's time, if anything is to be dated by it.
    async fn now_for(&self, runs: &[StoredRun]) -> Result<Option<DateTime<Utc>>, CatalogError> {
        let open = |run: &StoredRun| !run.record.state.has_ended();
        Ok(match runs.iter().any(open) {
            true => Some(self.store.storage_time().await?),
            false => None,
        })
    }

    async fn run(
        &self,
        stored: StoredRun,
        now: Option<DateTime<Utc>>,
    ) -> Result<Run, CatalogError> {
        let StoredRun {
            mut record,
            written,
        } = stored;
        let silent = now.is_some_and(|now| {
            let silence = now.signed_duration_since(written).to_std();
            silence.is_ok_and(|silence| silence > SILENCE)
        });
        if !record.state.has_ended() && (silent || is_gone(&record.owner, &self.owner)) {
            record = self.declare_interrupted(record).await?;
        }
        let version = match record.version {
            None => None,
            Some(number) => {
                let version = VersionSelector::Number(number);
                let cache = record.cache.clone();
                let reference = Reference { cache, version };
                match self.store.resolve(&reference).await {
                    Ok(_) => Some(self.store.manifest(&record.cache, number).await?),
                    // Deleted since.
                    Err(StoreError::NotFound { .. }) => None,
                    Err(e) => return Err(e.into()),
                }
            }
        };
        Ok(Run {
            id: record.run.clone(),
            state: record.state,
            parent: record.cache.version_name(record.parent),
            cache: record.cache,
            version,
            progress: record.progress.as_ref().map(progress),
            error: record.error.map(|error| CatalogError::RunFailed {
                code: error.code,
                reason: error.reason,
                message: error.message,
            }),
            create_time: record.create_time,
            end_time: record.end_time,
            alias_moved: record.alias_moved.is_some(),
            alias: record.alias_moved,
            unchanged: record.unchanged,
            outcome: record.outcome,
        })
    }

    /// Ends a run whose server is gone. If that server lives after all, one of
    /// the two has the last word.
    async fn declare_interrupted(&self, record: RunRecord) -> Result<RunRecord, CatalogError> {
        let ended = RunRecord {
            state: RunState::Failed,
            end_time: Some(Utc::now()),
            error: Some((self.describe)(&CatalogError::RunInterrupted)),
            ..record
        };
        match self.store.write_run(&ended).await {
            Ok(record) => Ok(record),
            Err(StoreError::Conflict { .. }) => Ok(self.store.run(&ended.run).await?.record),
            Err(e) => Err(e.into()),
        }
    }
}

/// The value for a JSON record, which cannot hold infinity or NaN.
fn finite(value: f64) -> Option<f64> {
    Some(value).filter(|value| value.is_finite())
}

fn stored_progress(progress: &RunProgress) -> StoredProgress {
    StoredProgress {
        epoch: progress.epoch as u64,
        epochs: progress.epochs as u64,
        step: progress.step as u64,
        steps: progress.steps as u64,
        loss: finite(progress.loss),
        train_accuracy: finite(progress.train_accuracy),
        validation_accuracy: progress.validation_accuracy.and_then(finite),
        learning_rate: finite(progress.learning_rate),
    }
}

fn progress(stored: &StoredProgress) -> RunProgress {
    let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    RunProgress {
        epoch: count(stored.epoch),
        epochs: count(stored.epochs),
        step: count(stored.step),
        steps: count(stored.steps),
        loss: stored.loss.unwrap_or(f64::NAN),
        train_accuracy: stored.train_accuracy.unwrap_or(f64::NAN),
        validation_accuracy: stored.validation_accuracy,
        learning_rate: stored.learning_rate.unwrap_or(f64::NAN),
        time_left: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_can_be_seen_to_be_gone_is() {
        let us = owner("2");
        let mut child = std::process::Command::new("true").spawn().expect("starts");
        let dead = child.id();
        child.wait().expect("ends");
        let with = |pid: u32, life: &str| {
            let mut parts: Vec<String> = us.splitn(4, '/').map(str::to_owned).collect();
            parts[2] = pid.to_string();
            parts[3] = life.to_owned();
            parts.join("/")
        };
        assert!(!is_gone(&us, &us), "ourselves");
        assert!(is_gone(&with(dead, "1"), &us), "a process that has ended");
        assert!(
            is_gone(&with(std::process::id(), "1"), &us),
            "before a restart"
        );
        assert!(!is_gone(&with(1, "1"), &us), "one that lives");
        assert!(!is_gone("elsewhere/pid:[1]/7/1", &us), "another machine's");
        assert!(!is_gone("", &us) && !is_gone("x", &us));
    }
}
