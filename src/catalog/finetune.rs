//! Fine-tuning runs: one at a time on the device, in short steps that give way
//! to classification. A run makes a new version or nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    Catalog, CatalogError, tune,
    turns::{Turn, Turns},
};
use crate::telemetry::{RunCount, RunEnd};
use tip_adapter::finetune::Options;
use tip_spec::SearchGrid;
use tipserve_store::{AliasName, CacheId, Condition, Manifest, Needs, StoreError, VersionNumber};

/// Runs that may wait or run at once.
const MAX_ACTIVE: usize = 64;
/// Of these, runs of one owner.
const MAX_ACTIVE_OF_ONE: usize = 16;
/// Ended runs that are remembered.
const MAX_ENDED: usize = 1000;

/// What to train, and how.
#[derive(Clone, Debug)]
pub struct TuneRequest {
    /// The cache.
    pub cache: CacheId,
    /// Its version to start from.
    pub version: VersionNumber,
    /// How to train.
    pub options: Options,
    /// Which α and β are searched afterwards.
    pub grid: SearchGrid,
    /// Alias to point at the new version.
    pub move_alias: Option<AliasName>,
    /// Move it only if the score that chose the epoch improved.
    pub only_if_improved: bool,
    /// Description of the new version.
    pub description: String,
    /// Who asks for it, where that is known for sure; empty: nobody is named.
    pub created_by: String,
    /// Whose quota it counts against, and whose turn it takes; none: it is not
    /// known who asks, and all such runs are of one owner without a quota.
    pub owner: Option<String>,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Waiting for its turn.
    Queued,
    /// Training.
    Running,
    /// Ended with a version.
    Succeeded,
    /// Ended with an error.
    Failed,
    /// Cancelled.
    Cancelled,
}

impl RunState {
    /// Whether nothing more will happen.
    pub fn has_ended(self) -> bool {
        !matches!(self, RunState::Queued | RunState::Running)
    }
}

/// How far training is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RunProgress {
    /// The epoch under way, from 1.
    pub epoch: usize,
    /// Of so many.
    pub epochs: usize,
    /// Steps done, over all epochs.
    pub step: usize,
    /// Of so many.
    pub steps: usize,
    /// Mean loss of the epoch so far, nats.
    pub loss: f64,
    /// Training accuracy of the epoch so far.
    pub train_accuracy: f64,
    /// Accuracy on what the epoch is chosen by, after the last whole epoch.
    pub validation_accuracy: Option<f64>,
    /// Of the last step.
    pub learning_rate: f64,
    /// As far as can be told.
    pub time_left: Option<Duration>,
}

/// A run as it is now.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its id; ids sort by age.
    pub id: String,
    /// Where it stands.
    pub state: RunState,
    /// The version it started from.
    pub parent: String,
    /// Its cache.
    pub cache: CacheId,
    /// The version it made.
    pub version: Option<Manifest>,
    /// Its latest progress.
    pub progress: Option<RunProgress>,
    /// Why it failed.
    pub error: Option<CatalogError>,
    /// When it was asked for.
    pub create_time: DateTime<Utc>,
    /// When it ended.
    pub end_time: Option<DateTime<Utc>>,
    /// Whether the alias was moved.
    pub alias_moved: bool,
}

struct Entry {
    run: watch::Receiver<Run>,
    owner: Option<String>,
    cancelled: Arc<AtomicBool>,
}

/// All runs of this server.
pub struct FineTunes {
    catalog: Weak<Catalog>,
    turns: Turns,
    runs: Mutex<BTreeMap<String, Entry>>,
    next: AtomicU64,
    /// Keeps ids of this server apart from those of its earlier lives and of
    /// other replicas.
    life: String,
}

impl FineTunes {
    /// No runs yet.
    pub fn new(catalog: &Arc<Catalog>) -> FineTunes {
        let now = Utc::now().timestamp_micros();
        FineTunes {
            catalog: Arc::downgrade(catalog),
            turns: Turns::default(),
            runs: Mutex::new(BTreeMap::new()),
            next: AtomicU64::new(1),
            life: format!("{now:x}-{:x}", std::process::id()),
        }
    }

    /// Queues a run. The receiver follows it to its end.
    ///
    /// # Errors
    /// [`CatalogError::Busy`] where too many wait already.
    pub fn start(&self, request: TuneRequest) -> Result<watch::Receiver<Run>, CatalogError> {
        let mut runs = self.runs.lock();
        let active: Vec<_> = runs
            .values()
            .filter(|entry| !entry.run.borrow().state.has_ended())
            .map(|entry| &entry.owner)
            .collect();
        check_busy("fine-tuning runs", active.len(), MAX_ACTIVE)?;
        if request.owner.is_some() {
            let own = active.iter().filter(|owner| ***owner == request.owner);
            check_busy(
                "fine-tuning runs of one caller",
                own.count(),
                MAX_ACTIVE_OF_ONE,
            )?;
        }
        forget_old(&mut runs);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number:08}", self.life);
        let cancelled = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = watch::channel(Run {
            id: id.clone(),
            state: RunState::Queued,
            parent: request.cache.version_name(request.version),
            cache: request.cache.clone(),
            version: None,
            progress: None,
            error: None,
            create_time: Utc::now(),
            end_time: None,
            alias_moved: false,
        });
        runs.insert(
            id,
            Entry {
                run: receiver.clone(),
                owner: request.owner.clone(),
                cancelled: Arc::clone(&cancelled),
            },
        );
        drop(runs);
        let tracked = Tracked {
            count: RunCount::queued(),
            catalog: Weak::clone(&self.catalog),
            turns: self.turns.clone(),
            request,
            cancelled,
            run: sender,
        };
        tokio::spawn(tracked.run());
        Ok(receiver)
    }

    /// One run.
    ///
    /// # Errors
    /// Where this server knows no such run.
    pub fn get(&self, id: &str) -> Result<Run, CatalogError> {
        self.runs
            .lock()
            .get(id)
            .map(|entry| entry.run.borrow().clone())
            .ok_or_else(|| Self::unknown(id))
    }

    /// Cancels a run and returns it; one that has ended stays as it is.
    ///
    /// # Errors
    /// Where this server knows no such run.
    pub async fn cancel(&self, id: &str) -> Result<Run, CatalogError> {
        let (mut run, cancelled) = {
            let runs = self.runs.lock();
            let entry = runs.get(id).ok_or_else(|| Self::unknown(id))?;
            (entry.run.clone(), Arc::clone(&entry.cancelled))
        };
        cancelled.store(true, Ordering::Relaxed);
        // Steps are short, so that this is soon. A sender that is gone has
        // said its last.
        let _ = run.wait_for(|run| run.state.has_ended()).await;
        let now = run.borrow().clone();
        Ok(now)
    }

    /// What is said of a run that this server does not know.
    pub fn unknown(id: &str) -> CatalogError {
        StoreError::NotFound {
            what: format!("fineTunes/{id}"),
            hint: ": this server knows no such run".to_owned(),
        }
        .into()
    }

    /// Asks a run to stop, without waiting.
    pub fn abandon(&self, id: &str) {
        if let Some(entry) = self.runs.lock().get(id) {
            entry.cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Runs, newest first, of the caches that are wanted; those before the run
    /// `before` where given.
    pub fn list(
        &self,
        wanted: impl Fn(&CacheId) -> bool,
        before: Option<&str>,
        size: usize,
    ) -> Vec<Run> {
        self.runs
            .lock()
            .iter()
            .rev()
            .filter(|(id, _)| before.is_none_or(|before| id.as_str() < before))
            .map(|(_, entry)| entry.run.borrow().clone())
            .filter(|run| wanted(&run.cache))
            .take(size)
            .collect()
    }
}

fn check_busy(what: &'static str, count: usize, limit: usize) -> Result<(), CatalogError> {
    if count < limit {
        return Ok(());
    }
    Err(CatalogError::Busy { what, count, limit })
}

fn forget_old(runs: &mut BTreeMap<String, Entry>) {
    let ended: Vec<String> = runs
        .iter()
        .filter(|(_, entry)| entry.run.borrow().state.has_ended())
        .map(|(id, _)| id.clone())
        .collect();
    for id in ended.iter().take(ended.len().saturating_sub(MAX_ENDED)) {
        runs.remove(id);
    }
}

/// A run with all that it needs.
struct Tracked {
    count: RunCount,
    catalog: Weak<Catalog>,
    turns: Turns,
    request: TuneRequest,
    cancelled: Arc<AtomicBool>,
    run: watch::Sender<Run>,
}

impl Tracked {
    async fn run(mut self) {
        let result = self.train().await;
        self.count.ended(match &result {
            Ok(_) => RunEnd::Succeeded,
            Err(CatalogError::Cancelled) => RunEnd::Cancelled,
            Err(_) => RunEnd::Failed,
        });
        self.run.send_modify(|run| {
            run.end_time = Some(Utc::now());
            match result {
                Ok((version, alias_moved)) => {
                    run.state = RunState::Succeeded;
                    run.version = Some(version);
                    run.alias_moved = alias_moved;
                }
                Err(CatalogError::Cancelled) => run.state = RunState::Cancelled,
                Err(error) => {
                    tracing::warn!(run = run.id, parent = run.parent, %error, "fine-tuning failed");
                    run.state = RunState::Failed;
                    run.error = Some(error);
                }
            }
        });
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
