//! Views of all caches in use, kept for a short time, so that requests do not
//! each ask the storage.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use dashmap::DashMap;
use futures::future::{Either, select};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{StoreError, backend::Backend, name::CacheId, view::View};

/// How long a request waits for a bucket that does not answer, if an older view
/// can serve it.
const REFRESH_PATIENCE: Duration = Duration::from_millis(1500);
/// How long after a failed refresh the older view serves without another try.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// How long after a failed refresh nobody waits for the next one.
const OUTAGE_MEMORY: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Slot {
    view: Mutex<Option<Arc<View>>>,
    failed: Mutex<Option<Duration>>,
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

    fn now(&self) -> Duration {
        self.backend.environment().now()
    }

    fn since(&self, moment: Duration) -> Duration {
        self.now().saturating_sub(moment)
    }

    /// A view listed after this call began.
    pub(crate) async fn fresh(&self, id: &CacheId) -> Result<Arc<View>, StoreError> {
        let called = self.now();
        let slot = self.slot(id);
        let waited = slot.refreshing.try_lock();
        let (_turn, shared) = match waited {
            Ok(turn) => (turn, false),
            Err(_) => (slot.refreshing.lock().await, true),
        };
        let known = slot.view.lock().clone();
        // A request that waited may find that the one before it has just
        // listed.
        if shared && let Some(view) = known.as_ref().filter(|view| view.listed > called) {
            return Ok(Arc::clone(view));
        }
        match View::read(&self.backend, id, known.as_ref()).await {
            Ok(view) => {
                let view = Arc::new(view);
                *slot.failed.lock() = None;
                if view.is_unknown() {
                    // A request for a cache that does not exist leaves nothing
                    // behind.
                    self.slots.remove(id);
                } else {
                    *slot.view.lock() = Some(Arc::clone(&view));
                }
                Ok(view)
            }
            Err(e) => {
                *slot.failed.lock() = Some(self.now());
                if known.is_none() {
                    self.slots.remove(id);
                }
                Err(e)
            }
        }
    }

    /// A view of at most the store's `freshness`; an older one while the
    /// storage does not answer.
    pub(crate) async fn recent(self: &Arc<Self>, id: &CacheId) -> Result<Arc<View>, StoreError> {
        let known = self.slots.get(id).map(|slot| Arc::clone(&slot));
        let older = known.as_ref().and_then(|slot| slot.view.lock().clone());
        let (Some(slot), Some(older)) = (known, older) else {
            return self.fresh(id).await;
        };
        let age = self.since(older.listed);
        let failed = *slot.failed.lock();
        let failed_within = |time: Duration| failed.is_some_and(|at| self.since(at) < time);
        if age < self.ttl / 2 || failed_within(RETRY_PAUSE) {
            return Ok(older);
        }
        if age < self.ttl || failed_within(OUTAGE_MEMORY) {
            // Refreshed ahead of need, so that under steady traffic no request
            // waits, whether or not the storage answers.
            if !slot.ahead.swap(true, Relaxed) {
                let (views, id) = (Arc::clone(self), id.clone());
                self.backend.environment().spawn(Box::pin(async move {
                    let _ = views.fresh(&id).await; // remembered as failed
                    slot.ahead.store(false, Relaxed);
                }));
            }
            return Ok(older);
        }
        // In a task of its own, so that giving up on it does not stop it.
        let (sender, refresh) = oneshot::channel();
        let (views, of) = (Arc::clone(self), id.clone());
        self.backend.environment().spawn(Box::pin(async move {
            let _ = sender.send(views.fresh(&of).await); // nobody may wait
        }));
        let patience = self.backend.environment().sleep(REFRESH_PATIENCE);
        match select(refresh, patience).await {
            Either::Left((Ok(Ok(view)), _)) => Ok(view),
            Either::Left((Ok(Err(e)), _)) if !e.is_outage() => Err(e),
            _ => {
                *slot.failed.lock() = Some(self.now());
                tracing::warn!(cache = %id, "the store does not answer; using what was last seen");
                Ok(older)
            }
        }
    }
}
