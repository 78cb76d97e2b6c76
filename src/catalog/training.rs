//! A fine-tuning run from its turn to its end, recorded as it goes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::Utc;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::{
    Catalog, CatalogError,
    finetune::{Entry, Run, RunProgress, RunState, TuneRequest},
    journal::{self, Journal, Records},
    tune,
    turns::{Turn, Turns},
};
use crate::telemetry::{RunCount, RunEnd};
use tipserve_store::{Condition, Manifest, Needs};

/// The runs of this server, by id.
pub(super) type OwnRuns = Arc<Mutex<BTreeMap<String, Entry>>>;

/// A run with all that it needs.
pub(super) struct Tracked {
    pub(super) count: RunCount,
    pub(super) catalog: Weak<Catalog>,
    pub(super) turns: Turns,
    pub(super) runs: OwnRuns,
    pub(super) records: Records,
    pub(super) request: TuneRequest,
    pub(super) cancelled: Arc<AtomicBool>,
    pub(super) run: watch::Sender<Run>,
}

impl Tracked {
    /// Writes the run's first record, tells whether that was possible, and
    /// runs.
    pub(super) async fn begin(self, begun: oneshot::Sender<Result<(), CatalogError>>) {
        let now = self.run.borrow().clone();
        let store = self.records.store.clone();
        match Journal::begin(store, &now, &self.request, &self.records.owner).await {
            Ok(journal) => {
                if begun.send(Ok(())).is_err() {
                    // Nobody was told of it, and nobody follows it.
                    self.cancelled.store(true, Ordering::Relaxed);
                }
                self.run(journal).await;
            }
            Err(error) => {
                self.runs.lock().remove(&now.id);
                let _ = begun.send(Err(error)); // or nobody asks any more
            }
        }
    }

    async fn run(mut self, mut journal: Journal) {
        let result = self.train_recorded(&mut journal).await;
        self.count.ended(match &result {
            Ok(_) => RunEnd::Succeeded,
            Err(CatalogError::Cancelled) => RunEnd::Cancelled,
            Err(_) => RunEnd::Failed,
        });
        let mut run = self.run.borrow().clone();
        run.end_time = Some(Utc::now());
        match result {
            Ok((version, alias_moved)) => {
                run.state = RunState::Succeeded;
                run.version = Some(version);
                run.alias_moved = alias_moved;
                run.alias = self.request.move_alias.clone().filter(|_| alias_moved);
            }
            Err(CatalogError::Cancelled) => run.state = RunState::Cancelled,
            Err(error) => {
                tracing::warn!(run = run.id, parent = run.parent, %error, "fine-tuning failed");
                run.state = RunState::Failed;
                run.error = Some(error);
            }
        }
        // First what lasts, then what is told.
        journal.end(&run, self.records.describe).await;
        self.run.send_replace(run);
    }

    /// Trains, and keeps the run's record up to date meanwhile.
    async fn train_recorded(
        &mut self,
        journal: &mut Journal,
    ) -> Result<(Manifest, bool), CatalogError> {
        let mut run = self.run.subscribe();
        let (cancelled, describe) = (Arc::clone(&self.cancelled), self.records.describe);
        let training = self.train();
        tokio::pin!(training);
        let mut recorded = run.borrow_and_update().state;
        loop {
            tokio::select! {
                result = &mut training => return result,
                _ = run.wait_for(|run| run.state != recorded) => {}
                () = tokio::time::sleep(journal::HEARTBEAT) => {}
            }
            let now = run.borrow().clone();
            recorded = now.state;
            if !journal.write(&now, describe).await {
                cancelled.store(true, Ordering::Relaxed);
            }
        }
    }

    async fn wait_for_turn(&self) -> Result<Turn, CatalogError> {
        let turn = self
            .turns
            .take(self.request.owner.as_deref().unwrap_or_default());
        tokio::pin!(turn);
        loop {
            tokio::select! {
                turn = &mut turn => return Ok(turn),
                () = tokio::time::sleep(Duration::from_millis(100)) => {
                    if self.cancelled.load(Ordering::Relaxed) {
                        return Err(CatalogError::Cancelled);
                    }
                }
            }
        }
    }

    async fn train(&mut self) -> Result<(Manifest, bool), CatalogError> {
        let _turn = self.wait_for_turn().await?;
        let catalog = self.catalog.upgrade().ok_or(CatalogError::Cancelled)?;
        self.count.running();
        self.run.send_modify(|run| run.state = RunState::Running);
        let request = &self.request;
        let (parent, file) = catalog.store.load(&request.cache, request.version).await?;
        let (draft, improved) = {
            let catalog = Arc::clone(&catalog);
            let request = request.clone();
            let cancelled = Arc::clone(&self.cancelled);
            let run = self.run.clone();
            let started = Instant::now();
            tokio::task::spawn_blocking(move || {
                let stop = || cancelled.load(Ordering::Relaxed);
                let say = |mut progress: RunProgress| {
                    progress.time_left = time_left(&progress, started.elapsed());
                    run.send_modify(|run| run.progress = Some(progress));
                };
                tune::tune(&catalog, &parent, &file, &request, &stop, &say)
            })
            .await
            .map_err(CatalogError::internal)??
        };
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(CatalogError::Cancelled);
        }
        // A cache that was deleted while it trained must not come back.
        let condition = Condition {
            etag: None,
            needs: Needs::Version(request.version),
        };
        let manifest = catalog
            .store_version(&request.cache, draft, &condition)
            .await?;
        let moved = match &request.move_alias {
            Some(alias) if improved == Some(true) || !request.only_if_improved => {
                let moving = catalog
                    .store
                    .set_alias(&request.cache, alias, manifest.version, None);
                match moving.await {
                    Ok(_) => {
                        let version = manifest.resource_name();
                        tracing::info!(version, %alias, "moved an alias");
                        true
                    }
                    // The version is there all the same: the run succeeded,
                    // and says that the alias was not moved.
                    Err(error) => {
                        let version = manifest.resource_name();
                        tracing::warn!(version, %alias, %error, "did not move an alias");
                        false
                    }
                }
            }
            _ => false,
        };
        Ok((manifest, moved))
    }
}

fn time_left(progress: &RunProgress, elapsed: Duration) -> Option<Duration> {
    if progress.step == 0 {
        return None;
    }
    let left = progress.steps.saturating_sub(progress.step) as f64;
    Duration::try_from_secs_f64(elapsed.as_secs_f64() / progress.step as f64 * left).ok()
}
