//! Fine-tuning runs: one at a time on the device, in short steps that yield to
//! classification. A run makes a new version or nothing. Its record is in the
//! store, so that any server can report its outcome.

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
    run::{Entry, Followed, Follower, OwnRuns, Run, TuneRequest, check_same},
    training::Tracked,
    turns::Turns,
};
use crate::telemetry::RunCount;
use tipserve_store::{CacheId, RequestKey, RunState, StoreError};

/// Most runs that wait or run at once.
const MAX_ACTIVE: usize = 64;
/// Of these, runs of one owner.
const MAX_ACTIVE_OF_ONE: usize = 16;
/// Ended runs that are remembered.
const MAX_ENDED: usize = 1000;

/// The run of a request: new, or found.
pub enum Started {
    /// The request has started it.
    New(Followed),
    /// An earlier attempt of the same request has started it.
    Known(Followed),
}

/// All runs of this server.
pub struct FineTunes {
    catalog: Weak<Catalog>,
    turns: Turns,
    runs: OwnRuns,
    records: Records,
    next: AtomicU64,
    /// Distinguishes this server's ids from those of its earlier processes and
    /// of other replicas.
    life: String,
}

impl FineTunes {
    /// A server without runs yet. `describe` gives a run's error as the API
    /// puts it, for its record.
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

    /// Queues a run once its record is in the store, or returns the one that an
    /// earlier attempt of the same request started, unless that made nothing.
    /// The receiver follows it to its end. A caller that goes away before this
    /// returns cancels a new run.
    ///
    /// # Errors
    /// [`CatalogError::Busy`] if too many wait already;
    /// [`CatalogError::WrongDtype`] for a parent that this server cannot serve;
    /// [`CatalogError::RunElsewhere`] if the same request's run is on another
    /// server; [`StoreError::RequestReused`]; the store's.
    pub async fn start(&self, request: TuneRequest) -> Result<Started, CatalogError> {
        if let Some(key) = &request.request {
            if let Some(known) = self.own_of_request(&request.cache, key)? {
                return Ok(Started::Known(known));
            }
            if let Some(run) = self.records.of_request(&request.cache, key).await? {
                let id = run.id.clone();
                return match run.state.has_ended() {
                    true => Ok(Started::Known(Followed {
                        run: watch::channel(run).1,
                        follower: None,
                    })),
                    false => Err(CatalogError::RunElsewhere { id }),
                };
            }
        }
        self.check_parent(&request).await?;
        let (tracked, follower) = match self.enlist(request)? {
            Enlisted::New(tracked, follower) => (*tracked, follower),
            Enlisted::Known(run) => return Ok(Started::Known(run)),
        };
        let run = tracked.run.subscribe();
        let (begun, answer) = oneshot::channel();
        tokio::spawn(tracked.begin(begun));
        answer.await.map_err(CatalogError::internal)??;
        Ok(Started::New(Followed { run, follower }))
    }

    /// Whether the new version could be served here, as its parent can: else it
    /// would be trained in vain. (Of a bundle that is not loaded it can be
    /// made, and is served where that is.)
    async fn check_parent(&self, request: &TuneRequest) -> Result<(), CatalogError> {
        let catalog = self.catalog.upgrade().ok_or(CatalogError::Cancelled)?;
        let parent = (catalog.store)
            .manifest(&request.cache, request.version)
            .await?;
        let fingerprint = &parent.details.bundle_fingerprint;
        match catalog.bundles.of_fingerprint(fingerprint) {
            Some(bundle) => bundle.model.encoder().check(&parent),
            None => Ok(()),
        }
    }

    /// The run that an earlier attempt of the request started on this server.
    fn own_of_request(
        &self,
        cache: &CacheId,
        request: &RequestKey,
    ) -> Result<Option<Followed>, CatalogError> {
        of_request(&self.runs.lock(), cache, request)
    }

    /// Takes a place among the runs of this server.
    fn enlist(&self, request: TuneRequest) -> Result<Enlisted, CatalogError> {
        let mut runs = self.runs.lock();
        // Look again under the lock, so that no other request comes in between.
        if let Some(key) = &request.request
            && let Some(known) = of_request(&runs, &request.cache, key)?
        {
            return Ok(Enlisted::Known(known));
        }
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
        let mark = request
            .request
            .as_ref()
            .map(|key| format!("-{}", key.mark()));
        let id = format!("{}-{number:08}{}", self.life, mark.unwrap_or_default());
        let cancelled = Arc::new(AtomicBool::new(false));
        let follower = (!request.detached).then(|| Follower::new(&cancelled));
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
                request: request.request.clone(),
                cancelled: Arc::clone(&cancelled),
                followers: follower.as_ref().map(Arc::downgrade),
            },
        );
        drop(runs);
        let tracked = Box::new(Tracked {
            count: RunCount::queued(),
            catalog: Weak::clone(&self.catalog),
            turns: self.turns.clone(),
            runs: Arc::clone(&self.runs),
            records: self.records.clone(),
            request,
            cancelled,
            run: sender,
        });
        Ok(Enlisted::New(tracked, follower))
    }

    /// One run: of this server, of another, or of one before a restart.
    ///
    /// # Errors
    /// If there is no such run; the store's.
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
    /// If there is no such run; [`CatalogError::RunElsewhere`].
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
        // Steps are short, so this does not take long. A sender that is gone
        // has sent its last state.
        let _ = run.wait_for(|run| run.state.has_ended()).await;
        let now = run.borrow().clone();
        Ok(now)
    }

    /// The error for a run that does not exist.
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
        // For its own runs this server knows more than the store.
        for (id, entry) in self.runs.lock().iter() {
            let run = entry.run.borrow().clone();
            if before.is_none_or(|before| id.as_str() < before) && wanted(&run.cache) {
                runs.insert(id.clone(), run);
            }
        }
        Ok(runs.into_values().rev().take(size).collect())
    }
}

/// A reserved place among the server's runs, or the run that has it already.
enum Enlisted {
    New(Box<Tracked>, Option<Arc<Follower>>),
    Known(Followed),
}

fn of_request(
    runs: &BTreeMap<String, Entry>,
    cache: &CacheId,
    request: &RequestKey,
) -> Result<Option<Followed>, CatalogError> {
    let found = runs.iter().rev().find(|(_, run)| run.is_of(cache, request));
    let Some((id, entry)) = found else {
        return Ok(None);
    };
    check_same(id, entry.request.as_ref(), request)?;
    Ok(entry.follow())
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
