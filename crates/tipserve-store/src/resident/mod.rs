//! Values kept in memory within a budget: loaded once however many ask, the
//! least recently used dropped first, never while in use.

mod budget;
mod figures;

use std::{
    fmt,
    future::Future,
    hash::Hash,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use dashmap::{DashMap, Entry as Place};
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use tokio::sync::Notify;

pub use budget::Footprint;
use budget::{Budget, Reservation, Usage};
pub use figures::{Event, ResidentError, Stats};

/// What a [`Resident`] may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory of all values together.
    pub budget: Footprint,
    /// How long a load waits for evicted values that are still in use.
    pub patience: Duration,
}

/// Makes the values of a [`Resident`]. Both functions run in a task of their
/// own, not in the caller's; work that blocks belongs into `spawn_blocking`.
pub trait Load: Send + Sync + 'static {
    /// What a value is looked up by.
    type Key: Clone + Eq + Hash + fmt::Display + Send + Sync + 'static;
    /// What is kept in memory.
    type Value: Send + Sync + 'static;
    /// Why a value could not be made. Returned to all who wait; not cached.
    type Error: Clone + Send + Sync + 'static;

    /// The bytes that the value will take, known before it is made.
    fn footprint(
        &self,
        key: &Self::Key,
    ) -> impl Future<Output = Result<Footprint, Self::Error>> + Send;

    /// Makes the value, which takes what [`Self::footprint`] said.
    fn load(
        &self,
        key: &Self::Key,
    ) -> impl Future<Output = Result<Self::Value, Self::Error>> + Send;
}

impl<L: Load> Load for Arc<L> {
    type Key = L::Key;
    type Value = L::Value;
    type Error = L::Error;

    async fn footprint(&self, key: &Self::Key) -> Result<Footprint, Self::Error> {
        L::footprint(self, key).await
    }

    async fn load(&self, key: &Self::Key) -> Result<Self::Value, Self::Error> {
        L::load(self, key).await
    }
}

/// A value in use: it stays whole until the last lease is dropped.
pub struct Lease<T>(Arc<ResidentValue<T>>);

struct ResidentValue<T> {
    value: T,
    footprint: Footprint,
    used: AtomicU64,
    reserved: Reservation,
}

type Loaded<L> = Result<Lease<<L as Load>::Value>, ResidentError<<L as Load>::Error>>;

enum Slot<L: Load> {
    Ready(Arc<ResidentValue<L::Value>>),
    Loading(u64, Shared<BoxFuture<'static, Loaded<L>>>),
}

struct Inner<L: Load> {
    loader: L,
    limits: Limits,
    slots: DashMap<L::Key, Slot<L>>,
    memory: Arc<Budget>,
    clock: AtomicU64,
    hits: AtomicU64,
    counts: Mutex<Stats>,
    observer: Box<dyn Fn(Event) + Send + Sync>,
}

/// The registry of resident values.
pub struct Resident<L: Load>(Arc<Inner<L>>);

impl<T> Clone for Lease<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Lease<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.fmt(f)
    }
}

impl<L: Load> Clone for Resident<L> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<L: Load> Resident<L> {
    /// An empty registry. `observer` is told of every event, on the thread
    /// where it happens: it must be quick.
    pub fn new(
        loader: L,
        limits: Limits,
        observer: impl Fn(Event) + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            loader,
            limits,
            slots: DashMap::new(),
            memory: Arc::new(Budget {
                usage: Mutex::new(Usage::default()),
                changed: Notify::new(),
            }),
            clock: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            counts: Mutex::new(Stats::default()),
            observer: Box::new(observer),
        }))
    }

    /// The value, if it is resident. Never waits.
    pub fn peek(&self, key: &L::Key) -> Option<Lease<L::Value>> {
        let slot = self.0.slots.get(key)?;
        let Slot::Ready(held) = slot.value() else {
            return None;
        };
        let held = Arc::clone(held);
        drop(slot);
        Some(self.0.hit(held))
    }

    /// The value, loaded first if it is not resident: once, however many ask,
    /// and to the end, even if all of them go away.
    ///
    /// # Errors
    /// [`ResidentError`], the same for all who waited. The next request tries
    /// again.
    pub async fn get(&self, key: &L::Key) -> Loaded<L> {
        if let Some(lease) = self.peek(key) {
            return Ok(lease);
        }
        let loading = match self.0.slots.entry(key.clone()) {
            Place::Occupied(slot) => match slot.get() {
                Slot::Ready(held) => {
                    let held = Arc::clone(held);
                    drop(slot);
                    return Ok(self.0.hit(held));
                }
                Slot::Loading(_, loading) => loading.clone(),
            },
            Place::Vacant(place) => {
                let turn = self.0.clock.fetch_add(1, Relaxed);
                let loading = Arc::clone(&self.0).start(key.clone(), turn);
                place.insert(Slot::Loading(turn, loading.clone()));
                loading
            }
        };
        loading.await
    }

    /// Drops a value from the registry (its version was deleted); those who use
    /// it go on.
    pub fn remove(&self, key: &L::Key) {
        drop(self.0.take_out(key));
    }

    /// Keys of all resident values.
    pub fn keys(&self) -> Vec<L::Key> {
        let ready = |slot: &Slot<L>| matches!(slot, Slot::Ready(_));
        let slots = self.0.slots.iter();
        slots
            .filter(|slot| ready(slot.value()))
            .map(|slot| slot.key().clone())
            .collect()
    }

    /// Counts, and what is there now.
    pub fn stats(&self) -> Stats {
        let count = self.keys().len() as u64;
        let bytes = self.0.memory.usage.lock().all;
        Stats {
            count,
            bytes,
            budget: self.0.limits.budget,
            hits: self.0.hits.load(Relaxed),
            ..*self.0.counts.lock()
        }
    }
}

impl<L: Load> Inner<L> {
    fn hit(&self, held: Arc<ResidentValue<L::Value>>) -> Lease<L::Value> {
        held.used.store(self.clock.fetch_add(1, Relaxed), Relaxed);
        self.hits.fetch_add(1, Relaxed);
        (self.observer)(Event::Hit);
        Lease(held)
    }

    /// Starts a load in a task of its own.
    fn start(self: Arc<Self>, key: L::Key, turn: u64) -> Shared<BoxFuture<'static, Loaded<L>>> {
        let task = tokio::spawn({
            let (inner, key) = (Arc::clone(&self), key.clone());
            async move { inner.load(key, turn).await }
        });
        // Weak: the slot that holds this future is owned by the registry.
        let inner = Arc::downgrade(&self);
        async move {
            match task.await {
                Ok(outcome) => outcome,
                Err(_) => {
                    if let Some(inner) = inner.upgrade() {
                        inner.give_up(&key, turn);
                    }
                    let what = key.to_string();
                    Err(ResidentError::Stopped { what })
                }
            }
        }
        .boxed()
        .shared()
    }

    fn give_up(&self, key: &L::Key, turn: u64) {
        let ours = |slot: &Slot<L>| matches!(slot, Slot::Loading(t, _) if *t == turn);
        let removed = self.slots.remove_if(key, |_, slot| ours(slot));
        if removed.is_some() {
            self.counts.lock().failures += 1;
            (self.observer)(Event::Failed);
        }
    }

    async fn load(self: Arc<Self>, key: L::Key, turn: u64) -> Loaded<L> {
        let started = Instant::now();
        let made = async {
            let footprint = self.loader.footprint(&key).await;
            let footprint = footprint.map_err(ResidentError::Load)?;
            let reserved = self.reserve(&key, footprint).await?;
            let value = self.loader.load(&key).await.map_err(ResidentError::Load)?;
            Ok(Arc::new(ResidentValue {
                value,
                footprint,
                used: AtomicU64::new(self.clock.fetch_add(1, Relaxed)),
                reserved,
            }))
        };
        match made.await {
            Ok(held) => {
                let seconds = started.elapsed().as_secs_f64();
                self.slots.insert(key, Slot::Ready(Arc::clone(&held)));
                {
                    let mut counts = self.counts.lock();
                    counts.loads += 1;
                    counts.load_seconds += seconds;
                }
                let footprint = held.footprint;
                (self.observer)(Event::Loaded { seconds, footprint });
                self.memory.changed.notify_waiters();
                Ok(Lease(held))
            }
            Err(e) => {
                self.give_up(&key, turn);
                Err(e)
            }
        }
    }

    /// Reserves a part of the budget, evicting what was not used for longest.
    async fn reserve(
        &self,
        key: &L::Key,
        footprint: Footprint,
    ) -> Result<Reservation, ResidentError<L::Error>> {
        for (place, size, budget) in [
            ("host", footprint.host, self.limits.budget.host),
            ("device", footprint.device, self.limits.budget.device),
        ] {
            if size > budget {
                return Err(ResidentError::TooLarge {
                    what: key.to_string(),
                    place,
                    size,
                    budget,
                });
            }
        }
        let deadline = tokio::time::Instant::now() + self.limits.patience;
        loop {
            // Created before checking, so that no change in between is missed.
            let changed = self.memory.changed.notified();
            if let Some(reserved) = self.try_reserve(footprint) {
                return Ok(reserved);
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Err(ResidentError::Busy {
                    what: key.to_string(),
                    waited: self.limits.patience,
                });
            }
        }
    }

    /// Reserves the bytes if they are free; otherwise evicts no more than
    /// needed to free them once the users of evicted values let go.
    fn try_reserve(&self, footprint: Footprint) -> Option<Reservation> {
        let mut oldest: Option<std::vec::IntoIter<(u64, L::Key)>> = None;
        loop {
            {
                let mut usage = self.memory.usage.lock();
                let sum = usage.all.plus(footprint);
                if sum.within(self.limits.budget) {
                    usage.all = sum;
                    return Some(Reservation {
                        footprint,
                        evicted: AtomicBool::new(false),
                        memory: Arc::clone(&self.memory),
                    });
                }
                if sum.minus(usage.leaving).within(self.limits.budget) {
                    return None;
                }
            }
            let (_, key) = oldest.get_or_insert_with(|| self.by_age()).next()?;
            self.evict(&key);
        }
    }

    /// The resident values, the least recently used first.
    fn by_age(&self) -> std::vec::IntoIter<(u64, L::Key)> {
        let ready = self.slots.iter().filter_map(|slot| match slot.value() {
            Slot::Ready(held) => Some((held.used.load(Relaxed), slot.key().clone())),
            Slot::Loading(..) => None,
        });
        let mut ready: Vec<_> = ready.collect();
        ready.sort_unstable_by_key(|(used, _)| *used);
        ready.into_iter()
    }

    fn evict(&self, key: &L::Key) {
        if let Some(held) = self.take_out(key) {
            self.counts.lock().evictions += 1;
            let footprint = held.footprint;
            (self.observer)(Event::Evicted { footprint });
            drop(held); // its memory goes here, unless a batch uses it
        }
    }

    /// Takes a value out of the registry, if it is resident.
    fn take_out(&self, key: &L::Key) -> Option<Arc<ResidentValue<L::Value>>> {
        let ready = |slot: &Slot<L>| matches!(slot, Slot::Ready(_));
        let removed = self.slots.remove_if(key, |_, slot| ready(slot));
        let Some((_, Slot::Ready(held))) = removed else {
            return None;
        };
        let mut usage = self.memory.usage.lock();
        held.reserved.evicted.store(true, Relaxed);
        usage.leaving = usage.leaving.plus(held.footprint);
        drop(usage);
        Some(held)
    }
}
