//! A fine-tuning run from its turn to its end, recorded as it goes.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::Utc;
use tokio::sync::{oneshot, watch};

use super::{
    Catalog, CatalogError, LoadedBundle,
    journal::{self, Journal, Records},
    run::{OwnRuns, Run, RunProgress, TuneJob, TuneRequest},
    tune::{self, TuneOutcome},
    turns::{Turn, Turns},
};
use crate::telemetry::{RunCount, RunEnd};
use tipserve_store::{Condition, Manifest, Needs, RunState};

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

/// How a run that succeeded ended.
struct Done {
    version: Manifest,
    alias_moved: bool,
    unchanged: bool,
    outcome: String,
}

impl Tracked {
    /// Writes the run's first record, tells whether that was possible, and
    /// runs.
    pub(super) async fn begin(self, begun: oneshot::Sender<Result<(), CatalogError>>) {
        let now = self.run.borrow().clone();
        // Held to the run's end, so that it is not unloaded before.
        let _bundle = self.bundle().await;
        let store = self.records.store.clone();
        match Journal::begin(store, &now, &self.request, &self.records.owner).await {
            Ok(journal) => {
                if begun.send(Ok(())).is_err() && self.request.detached {
                    // The caller left before it was told of the run. (A run
                    // that is not detached is cancelled by its last follower.)
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
            Ok(done) => {
                run.state = RunState::Succeeded;
                run.version = Some(done.version);
                run.alias_moved = done.alias_moved;
                run.alias = (self.request.move_alias.clone()).filter(|_| done.alias_moved);
                run.unchanged = done.unchanged;
                run.outcome = done.outcome;
            }
            Err(CatalogError::Cancelled) => run.state = RunState::Cancelled,
            Err(error) => {
                tracing::warn!(run = run.id, parent = run.parent, %error, "fine-tuning failed");
                run.state = RunState::Failed;
                run.error = Some(error);
            }
        }
        // First the record, then the followers.
        journal.end(&run, self.records.describe).await;
        self.run.send_replace(run);
    }

    /// Trains, and keeps the run's record up to date meanwhile.
    async fn train_recorded(&mut self, journal: &mut Journal) -> Result<Done, CatalogError> {
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

    /// The bundle that made the version's features, if it is loaded.
    async fn bundle(&self) -> Option<Arc<LoadedBundle>> {
        let catalog = self.catalog.upgrade()?;
        let request = &self.request;
        let manifest = catalog.store.manifest(&request.cache, request.version);
        catalog.bundles.of_manifest(&manifest.await.ok()?).ok()
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

    async fn train(&mut self) -> Result<Done, CatalogError> {
        let _turn = self.wait_for_turn().await?;
        let catalog = self.catalog.upgrade().ok_or(CatalogError::Cancelled)?;
        self.count.running();
        self.run.send_modify(|run| run.state = RunState::Running);
        let request = &self.request;
        let (parent, file) = catalog.store.load(&request.cache, request.version).await?;
        let outcome = {
            let catalog = Arc::clone(&catalog);
            let parent = parent.clone();
            let request = request.clone();
            let cancelled = Arc::clone(&self.cancelled);
            let run = self.run.clone();
            let started = Instant::now();
            tokio::task::spawn_blocking(move || {
                let stop = || cancelled.load(Ordering::Relaxed);
                let report = |mut progress: RunProgress| {
                    progress.time_left = time_left(&progress, started.elapsed());
                    run.send_modify(|run| run.progress = Some(progress));
                };
                tune::tune(&TuneJob {
                    catalog: &catalog,
                    parent: &parent,
                    file: &file,
                    request: &request,
                    stop: &stop,
                    report: &report,
                })
            })
            .await
            .map_err(CatalogError::internal)??
        };
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(CatalogError::Cancelled);
        }
        match outcome {
            TuneOutcome::Unchanged { outcome } => Ok(Done {
                version: parent,
                alias_moved: false,
                unchanged: true,
                outcome,
            }),
            TuneOutcome::Made {
                draft,
                improved,
                outcome,
            } => {
                // A cache that was deleted while it trained must not come back.
                let condition = Condition {
                    etag: None,
                    needs: Needs::Version(self.request.version),
                };
                let version = catalog
                    .store_version(&self.request.cache, *draft, &condition)
                    .await?;
                Ok(Done {
                    alias_moved: self.move_alias(&catalog, &version, improved).await,
                    version,
                    unchanged: false,
                    outcome,
                })
            }
        }
    }

    /// Points the alias at the new version, if that is asked for. If it cannot
    /// be moved, the version exists all the same: the run succeeds, and says
    /// that the alias was not moved.
    async fn move_alias(
        &self,
        catalog: &Catalog,
        manifest: &Manifest,
        improved: Option<bool>,
    ) -> bool {
        let Some(alias) = &self.request.move_alias else {
            return false;
        };
        if self.request.only_if_improved && improved != Some(true) {
            return false;
        }
        let version = manifest.resource_name();
        let moving = (catalog.store).set_alias(&self.request.cache, alias, manifest.version, None);
        match moving.await {
            Ok(_) => {
                tracing::info!(version, %alias, "moved an alias");
                true
            }
            Err(error) => {
                tracing::warn!(version, %alias, %error, "did not move an alias");
                false
            }
        }
    }
}

fn time_left(progress: &RunProgress, elapsed: Duration) -> Option<Duration> {
    if progress.step == 0 {
        return None;
    }
    let left = progress.steps.saturating_sub(progress.step) as f64;
    Duration::try_from_secs_f64(elapsed.as_secs_f64() / progress.step as f64 * left).ok()
}
