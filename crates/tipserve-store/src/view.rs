//! What a cache looks like at one moment: one listing of its folder, folded.
//! Kept for a short time, so that requests do not each ask the bucket.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use dashmap::DashMap;
use object_store::path::Path;
use parking_lot::Mutex;

use super::{
    StoreError,
    backend::Backend,
    layout::{self, Object},
    name::{AliasName, CacheId, VersionNumber},
    sealed::{MAX_JSON_BYTES, unseal},
    state::State,
};

/// How long a request waits for a bucket that does not answer, where an older
/// view can serve it.
const REFRESH_PATIENCE: Duration = Duration::from_millis(1500);
/// How long after a failed refresh the older view serves without another try.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// How long after a failed refresh nobody waits for the next one.
const OUTAGE_MEMORY: Duration = Duration::from_secs(10);

/// One listing of a cache.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) id: CacheId,
    /// Every version with a manifest, deleted ones included; publication time.
    manifests: BTreeMap<VersionNumber, DateTime<Utc>>,
    /// Tensors files by version and name, with the time of their writing.
    pub(crate) tensors: Vec<(VersionNumber, String, DateTime<Utc>)>,
    /// Every state record's sequence and time, ascending.
    pub(crate) states: BTreeMap<u64, DateTime<Utc>>,
    state: Result<Arc<State>, StoreError>,
    listed: Instant,
}

impl View {
    /// The state, unless its record is damaged or too new.
    pub(crate) fn state(&self) -> Result<&Arc<State>, StoreError> {
        self.state.as_ref().map_err(Clone::clone)
    }

    /// Existing versions, oldest first, with the times of their publication.
    pub(crate) fn versions(&self) -> Result<Vec<(VersionNumber, DateTime<Utc>)>, StoreError> {
        let state = self.state()?;
        Ok(self
            .manifests
            .iter()
            .filter(|(version, _)| !state.is_deleted(**version))
            .map(|(version, time)| (*version, *time))
            .collect())
    }

    /// The newest existing version.
    pub(crate) fn latest(&self) -> Result<Option<VersionNumber>, StoreError> {
        let state = self.state()?;
        let mut newest_first = self.manifests.keys().rev();
        Ok(newest_first
            .find(|version| !state.is_deleted(**version))
            .copied())
    }

    /// Whether the version exists.
    pub(crate) fn has(&self, version: VersionNumber) -> Result<bool, StoreError> {
        Ok(self.manifests.contains_key(&version) && !self.state()?.is_deleted(version))
    }

    /// Whether there is a manifest, of an existing version or a deleted one.
    pub(crate) fn has_manifest(&self, version: VersionNumber) -> bool {
        self.manifests.contains_key(&version)
    }

    /// The version that an alias points at.
    pub(crate) fn alias(&self, alias: &AliasName) -> Result<Option<VersionNumber>, StoreError> {
        // Not looked up among the manifests: this listing may have passed
        // them before the version appeared, and the state after.
        Ok(self.state()?.aliases.get(alias).map(|a| a.version))
    }

    /// The highest number seen, existing or deleted; 0 where none was.
    pub(crate) fn highest(&self) -> u64 {
        let manifest = self.manifests.keys().last().map_or(0, |v| v.get());
        manifest.max(self.state.as_ref().map_or(0, |s| s.highest()))
    }

    /// The newest state record's sequence, readable or not; 0 where none is.
    pub(crate) fn newest_state(&self) -> u64 {
        self.states.keys().last().copied().unwrap_or(0)
    }

    /// Paths of everything that belongs to the given versions.
    pub(crate) fn objects_of(&self, gone: impl Fn(VersionNumber) -> bool) -> Vec<Path> {
        let manifests = self.manifests.keys().filter(|v| gone(**v));
        let manifests = manifests.map(|v| layout::manifest(&self.id, *v));
        let tensors = self.tensors.iter().filter(|(v, ..)| gone(*v));
        let tensors = tensors.map(|(v, name, _)| layout::tensors(&self.id, *v, name));
        manifests.chain(tensors).collect()
    }

    async fn read(
        backend: &Backend,
        id: &CacheId,
        known: Option<&Arc<Self>>,
    ) -> Result<Self, StoreError> {
        let what = id.resource_name();
        for _ in 0..20 {
            let listed = Instant::now();
            let (mut manifests, mut tensors, mut states) =
                (BTreeMap::new(), Vec::new(), BTreeMap::new());
            for meta in backend.list(&layout::cache(id)).await? {
                match layout::classify(id, &meta.location) {
                    Object::Manifest(version) => {
                        manifests.insert(version, meta.last_modified);
                    }
                    Object::Tensors(version, name) => {
                        tensors.push((version, name, meta.last_modified));
                    }
                    Object::State(sequence) => {
                        states.insert(sequence, meta.last_modified);
                    }
                    Object::Other => {}
                }
            }
            let newest = states.keys().last().copied().unwrap_or(0);
            let known = known.and_then(|view| view.state.as_ref().ok());
            let state = match known {
                _ if newest == 0 => Ok(Arc::new(State::empty(id))),
                // Records never change, so the same number is the same record.
                Some(state) if state.sequence == newest => Ok(Arc::clone(state)),
                _ => {
                    let path = layout::state(id, newest);
                    let Some(text) = backend.read(&path, MAX_JSON_BYTES).await? else {
                        // Replaced by a newer one, and swept, since the listing.
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    };
                    unseal::<State>(&what, path.as_ref(), &text)
                        .and_then(|state| state.check(id, newest).map(|()| Arc::new(state)))
                }
            };
            return Ok(Self {
                id: id.clone(),
                manifests,
                tensors,
                states,
                state,
                listed,
            });
        }
        Err(StoreError::damaged(
            what,
            "its newest state record is listed but cannot be read",
        ))
    }
}

#[derive(Default)]
struct Slot {
    view: Mutex<Option<Arc<View>>>,
    failed: Mutex<Option<Instant>>,
    refreshing: tokio::sync::Mutex<()>,
    /// A refresh ahead of need is under way.
    ahead: AtomicBool,
}

/// The views of all caches in use.
pub(crate) struct Views {
    backend: Arc<Backend>,
    slots: DashMap<CacheId, Arc<Slot>>,
    /// How old a view may be.
    ttl: Duration,
}

impl Views {
    pub(crate) fn new(backend: Arc<Backend>, ttl: Duration) -> Self {
        Self {
            backend,
            slots: DashMap::new(),
            ttl,
        }
    }

    fn slot(&self, id: &CacheId) -> Arc<Slot> {
        if let Some(slot) = self.slots.get(id) {
            return Arc::clone(&slot);
        }
        Arc::clone(&self.slots.entry(id.clone()).or_default())
    }

    /// A view listed after this call began.
    pub(crate) async fn fresh(&self, id: &CacheId) -> Result<Arc<View>, StoreError> {
        let called = Instant::now();
        let slot = self.slot(id);
        let _turn = slot.refreshing.lock().await;
        let known = slot.view.lock().clone();
        if let Some(view) = known.as_ref().filter(|view| view.listed >= called) {
            return Ok(Arc::clone(view));
        }
        match View::read(&self.backend, id, known.as_ref()).await {
            Ok(view) => {
                let view = Arc::new(view);
                *slot.failed.lock() = None;
                if view.manifests.is_empty() && view.states.is_empty() {
                    // Whoever asks for what is not there leaves nothing behind.
                    self.slots.remove(id);
                } else {
                    *slot.view.lock() = Some(Arc::clone(&view));
                }
                Ok(view)
            }
            Err(e) => {
                *slot.failed.lock() = Some(Instant::now());
                if known.is_none() {
                    self.slots.remove(id);
                }
                Err(e)
            }
        }
    }

    /// A view of at most the agreed age; an older one while the storage does
    /// not answer.
    pub(crate) async fn recent(self: &Arc<Self>, id: &CacheId) -> Result<Arc<View>, StoreError> {
        let known = self.slots.get(id).map(|slot| Arc::clone(&slot));
        let older = known.as_ref().and_then(|slot| slot.view.lock().clone());
        let (Some(slot), Some(older)) = (known, older) else {
            return self.fresh(id).await;
        };
        let age = older.listed.elapsed();
        let failed = *slot.failed.lock();
        if age < self.ttl / 2 || failed.is_some_and(|at| at.elapsed() < RETRY_PAUSE) {
            return Ok(older);
        }
        let outage = failed.is_some_and(|at| at.elapsed() < OUTAGE_MEMORY);
        if age < self.ttl || outage {
            // Ahead of need, so that under steady traffic nobody ever waits:
            // not for a storage that answers, nor for one that does not.
            if !slot.ahead.swap(true, Relaxed) {
                let (views, id) = (Arc::clone(self), id.clone());
                tokio::spawn(async move {
                    let _ = views.fresh(&id).await; // remembered as failed
                    slot.ahead.store(false, Relaxed);
                });
            }
            return Ok(older);
        }
        let refresh = {
            let (views, id) = (Arc::clone(self), id.clone());
            // On its own, so that giving up on it does not stop it.
            tokio::spawn(async move { views.fresh(&id).await })
        };
        match tokio::time::timeout(REFRESH_PATIENCE, refresh).await {
            Ok(Ok(Ok(view))) => Ok(view),
            Ok(Ok(Err(e))) if !e.is_outage() => Err(e),
            _ => {
                *slot.failed.lock() = Some(Instant::now());
                tracing::warn!(cache = %id, "the store does not answer; using what was last seen");
                Ok(older)
            }
        }
    }
}
