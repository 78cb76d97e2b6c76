//! Fine-tuning runs: one at a time on the device, in short steps that give way
//! to classification. A run makes a new version or nothing. Its record lies in
//! the store, so that any server can say what became of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use chrono::Utc;
use tokio::sync::{oneshot, watch};

use super::{
    Catalog, CatalogError,
    journal::{self, Describe, Records},
    run::{Entry, OwnRuns, Run, RunState, TuneRequest},
    training::Tracked,
    turns::Turns,
};
use crate::telemetry::RunCount;
use tipserve_store::{CacheId, StoreError};

/// Runs that may wait or run at once.
const MAX_ACTIVE: usize = 64;
/// Of these, runs of one owner.
const MAX_ACTIVE_OF_ONE: usize = 16;
/// Ended runs that are remembered.
const MAX_ENDED: usize = 1000;

/// All runs of this server.
pub struct FineTunes {
    catalog: Weak<Catalog>,
    turns: Turns,
    runs: OwnRuns,
    records: Records,
    next: AtomicU64,
    /// Keeps ids of this server apart from those of its earlier lives and of
    /// other replicas.
    life: String,
}

impl FineTunes {
    /// No runs of this server yet. `describe` puts a run's error into the words
    /// of the API, for its record.
    pub fn new(catalog: &Arc<Catalog>, describe: Describe) -> FineTunes {
        let now = Utc::now().timestamp_micros();
        let life = format!("{now:x}-{:x}", std::process::id());
        FineTunes {
            catalog: Arc::downgrade(catalog),
            turns: Turns::default(),
            runs: Arc::default(),
            records: Records {
                store: catalog.store.clone(),
                owner: journal::owner(&life),
                describe,
            },
            next: AtomicU64::new(1),
            life,
        }
    }

    /// Queues a run, once its record is in the store. The receiver follows it
    /// to its end. A caller that goes away before this returns cancels it.
    ///
    /// # Errors
    /// [`CatalogError::Busy`] where too many wait already; the store's.
    pub async fn start(&self, request: TuneRequest) -> Result<watch::Receiver<Run>, CatalogError> {
        let tracked = self.enlist(request)?;
        let run = tracked.run.subscribe();
        let (begun, answer) = oneshot::channel();
        tokio::spawn(tracked.begin(begun));
        answer.await.map_err(CatalogError::internal)??;
        Ok(run)
    }

    /// Takes a place among the runs of this server.
    fn enlist(&self, request: TuneRequest) -> Result<Tracked, CatalogError> {
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
            alias: None,
            unchanged: false,
            outcome: String::new(),
        });
        runs.insert(
            id,
            Entry {
                run: receiver,
                owner: request.owner.clone(),
                cancelled: Arc::clone(&cancelled),
            },
        );
        drop(runs);
        Ok(Tracked {
            count: RunCount::queued(),
            catalog: Weak::clone(&self.catalog),
            turns: self.turns.clone(),
            runs: Arc::clone(&self.runs),
            records: self.records.clone(),
            request,
            cancelled,
            run: sender,
        })
    }

    /// One run: of this server, of another, or of one before a restart.
    ///
    /// # Errors
    /// Where there is no such run; the store's.
    pub async fn get(&self, id: &str) -> Result<Run, CatalogError> {
        let own = self
            .runs
            .lock()
            .get(id)
            .map(|entry| entry.run.borrow().clone());
        match own {
            Some(run) => Ok(run),
            None => self.records.get(id).await,
        }
    }

    /// Cancels a run and returns it; one that has ended stays as it is.
    ///
    /// # Errors
    /// Where there is no such run; [`CatalogError::RunElsewhere`].
    pub async fn cancel(&self, id: &str) -> Result<Run, CatalogError> {
        let own = {
            let runs = self.runs.lock();
            runs.get(id)
                .map(|entry| (entry.run.clone(), Arc::clone(&entry.cancelled)))
        };
        let Some((mut run, cancelled)) = own else {
            let run = self.records.get(id).await?;
            return match run.state.has_ended() {
                true => Ok(run),
                false => Err(CatalogError::RunElsewhere { id: id.to_owned() }),
            };
        };
        cancelled.store(true, Ordering::Relaxed);
        // Steps are short, so that this is soon. A sender that is gone has
        // said its last.
        let _ = run.wait_for(|run| run.state.has_ended()).await;
        let now = run.borrow().clone();
        Ok(now)
    }

    /// What is said of a run that does not exist.
    pub fn unknown(id: &str) -> CatalogError {
        StoreError::NotFound {
            what: format!("fineTunes/{id}"),
            hint: String::new(),
        }
        .into()
    }

    /// Asks a run to stop, without waiting.
    pub fn abandon(&self, id: &str) {
        if let Some(entry) = self.runs.lock().get(id) {
            entry.cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Runs of every server, newest first, of the caches that `wanted` accepts;
    /// only those before the run `before`, if it is given.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(
        &self,
        wanted: impl Fn(&CacheId) -> bool,
        before: Option<&str>,
        size: usize,
    ) -> Result<Vec<Run>, CatalogError> {
        let recorded = self.records.list(&wanted, before, size).await?;
        let mut runs: BTreeMap<String, Run> = recorded
            .into_iter()
            .map(|run| (run.id.clone(), run))
            .collect();
        // What this server runs itself, it knows better than the store.
        for (id, entry) in self.runs.lock().iter() {
            let run = entry.run.borrow().clone();
            if before.is_none_or(|before| id.as_str() < before) && wanted(&run.cache) {
                runs.insert(id.clone(), run);
            }
        }
        Ok(runs.into_values().rev().take(size).collect())
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
