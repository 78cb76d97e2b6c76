//! Admission: bounds on items and bytes in the engines of a process.
//!
//! The bounds are one pool for all engines. While there are several, each has a
//! reserved part ([`Admission::reserve`]) that the others cannot fill: a flood
//! on one bundle does not shut out the others.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in pieces of this size, as a semaphore counts in u32.
const PIECE: usize = 1024;

/// Refused by backpressure: one of the engine's limits is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The bound that was hit: `"queue_items"` or `"queue_bytes"`.
    pub limit: &'static str,
    /// The limit's value, as configured.
    pub value: usize,
}

/// An admitted item's place and bytes in the engine, given back when dropped.
#[derive(Debug, Default)]
pub struct Permit {
    /// Whatever else must be given back with it: a flow's window.
    _parts: Vec<OwnedSemaphorePermit>,
    _counted: Vec<Counted>,
}

impl Permit {
    /// Ties another permit to this one.
    #[must_use]
    pub fn with(mut self, part: OwnedSemaphorePermit) -> Permit {
        self._parts.push(part);
        self
    }

    /// Joins the permits for items and for bytes: both are given back when the
    /// job ends.
    #[must_use]
    pub fn and(mut self, other: Permit) -> Permit {
        self._parts.extend(other._parts);
        self._counted.extend(other._counted);
        self
    }
}

/// The items and bytes that an engine holds.
#[derive(Debug, Default)]
struct Held {
    items: AtomicUsize,
    pieces: AtomicUsize,
}

/// An item that is counted as held until it is dropped.
#[derive(Debug)]
struct Counted {
    held: Arc<Held>,
    pieces: usize,
}

impl Counted {
    fn new(held: &Arc<Held>, pieces: u32) -> Counted {
        let pieces = pieces as usize;
        held.items.fetch_add(1, Ordering::Relaxed);
        held.pieces.fetch_add(pieces, Ordering::Relaxed);
        Counted {
            held: Arc::clone(held),
            pieces,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.held.items.fetch_sub(1, Ordering::Relaxed);
        self.held.pieces.fetch_sub(self.pieces, Ordering::Relaxed);
    }
}

/// One bound: the shared pool, and this engine's reserved part.
#[derive(Debug)]
struct Bound {
    shared: Arc<Semaphore>,
    own: Arc<Semaphore>,
    /// The size of the reserved part, if there is one.
    part: u32,
}

impl Bound {
    fn new(count: usize) -> Bound {
        let count = u32::try_from(count.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Bound {
            shared: Arc::new(Semaphore::new(count as usize)),
            own: Arc::new(Semaphore::new(0)),
            part: count / Admission::PARTS as u32,
        }
    }

    /// The same for another engine.
    fn sibling(&self) -> Bound {
        Bound {
            shared: Arc::clone(&self.shared),
            own: Arc::new(Semaphore::new(0)),
            part: self.part,
        }
    }

    fn try_take(&self, count: u32) -> Option<OwnedSemaphorePermit> {
        let own = Arc::clone(&self.own).try_acquire_many_owned(count).ok();
        own.or_else(|| Arc::clone(&self.shared).try_acquire_many_owned(count).ok())
    }

    /// Never `None`: the semaphores are not closed.
    async fn take(&self, count: u32) -> Option<OwnedSemaphorePermit> {
        if let Some(permit) = self.try_take(count) {
            return Some(permit);
        }
        let own = Arc::clone(&self.own).acquire_many_owned(count);
        let shared = Arc::clone(&self.shared).acquire_many_owned(count);
        tokio::select! {
            biased;
            permit = own => permit.ok(),
            permit = shared => permit.ok(),
        }
    }

    async fn reserve(&self) {
        if let Ok(permit) = self.shared.acquire_many(self.part).await {
            permit.forget();
            self.own.add_permits(self.part as usize);
        }
    }

    async fn release(&self) {
        if let Ok(permit) = self.own.acquire_many(self.part).await {
            permit.forget();
            self.shared.add_permits(self.part as usize);
        }
    }
}

/// Bounds on what is in the engine, from admission to the answer.
#[derive(Debug)]
pub struct Admission {
    items: Bound,
    bytes: Bound,
    max_items: usize,
    max_bytes: usize,
    held: Arc<Held>,
    reserved: AtomicBool,
}

impl Admission {
    /// One part in this many of each bound is reserved for each of several
    /// engines. [`Admission::reserve`] by more engines than that never returns:
    /// nothing is left for the last ones.
    pub const PARTS: usize = 32;

    /// Room for `max_items` and `max_bytes`.
    pub fn new(max_items: usize, max_bytes: usize) -> Admission {
        Admission {
            items: Bound::new(max_items),
            bytes: Bound::new((max_bytes / PIECE).min(u32::MAX as usize)),
            max_items,
            max_bytes,
            held: Arc::default(),
            reserved: AtomicBool::new(false),
        }
    }

    /// Another engine's admission to the same pool.
    #[must_use]
    pub fn sibling(&self) -> Admission {
        Admission {
            items: self.items.sibling(),
            bytes: self.bytes.sibling(),
            max_items: self.max_items,
            max_bytes: self.max_bytes,
            held: Arc::default(),
            reserved: AtomicBool::new(false),
        }
    }

    /// Reserves a thirty-second part of both bounds for this engine, waiting
    /// until that much is free; the others can no longer fill it. Further calls
    /// change nothing.
    pub async fn reserve(&self) {
        if !self.reserved.swap(true, Ordering::Relaxed) {
            self.items.reserve().await;
            self.bytes.reserve().await;
        }
    }

    /// Returns the reserved part to the pool, waiting until it is free.
    pub async fn release(&self) {
        if self.reserved.swap(false, Ordering::Relaxed) {
            self.items.release().await;
            self.bytes.release().await;
        }
    }

    /// Admits an item of `bytes` now, or refuses it.
    ///
    /// # Errors
    /// The bound that is reached.
    pub fn try_enter(&self, bytes: usize) -> Result<Permit, Refusal> {
        let items = self.items.try_take(1).ok_or(Refusal {
            limit: "queue_items",
            value: self.max_items,
        })?;
        let pieces = self.pieces(bytes);
        let bytes = self.bytes.try_take(pieces).ok_or(Refusal {
            limit: "queue_bytes",
            value: self.max_bytes,
        })?;
        Ok(Permit {
            _parts: vec![items, bytes],
            _counted: vec![Counted::new(&self.held, pieces)],
        })
    }

    /// Admits an item of `bytes`, waiting until it fits: meanwhile the caller
    /// reads nothing more from its client.
    pub async fn enter(&self, bytes: usize) -> Permit {
        let pieces = self.pieces(bytes);
        let items = self.items.take(1).await;
        let bytes = self.bytes.take(pieces).await;
        Permit {
            _parts: items.into_iter().chain(bytes).collect(),
            _counted: vec![Counted::new(&self.held, pieces)],
        }
    }

    /// This engine's items, admitted and not yet answered.
    pub fn items(&self) -> usize {
        self.held.items.load(Ordering::Relaxed)
    }

    /// Bytes of this engine's items, in whole KiB.
    pub fn bytes(&self) -> usize {
        self.held.pieces.load(Ordering::Relaxed) * PIECE
    }

    /// An item larger than the bound itself takes all of it, and is admitted
    /// alone.
    fn pieces(&self, bytes: usize) -> u32 {
        let mut all = (self.max_bytes / PIECE).max(1);
        if self.reserved.load(Ordering::Relaxed) {
            all = (all / 2).max(1);
        }
        u32::try_from(bytes.div_ceil(PIECE).clamp(1, all)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    #[test]
    fn fairness_a_full_engine_leaves_the_other_its_part() {
        let flooded = Admission::new(64, 64 * 1024 * 32);
        let other = flooded.sibling();
        block_on(async {
            flooded.reserve().await;
            other.reserve().await;
        });
        let held: Vec<_> = std::iter::from_fn(|| flooded.try_enter(1).ok()).collect();
        // All but the two that are reserved for the other.
        assert_eq!((held.len(), flooded.items(), other.items()), (62, 62, 0));
        let (first, second) = (other.try_enter(1), other.try_enter(1));
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(other.try_enter(1).unwrap_err().limit, "queue_items");
        drop((first, second, held));
        // Alone again, it may fill everything.
        block_on(async {
            other.release().await;
            flooded.release().await;
        });
        let held: Vec<_> = std::iter::from_fn(|| flooded.try_enter(1).ok()).collect();
        assert_eq!(held.len(), 64);
    }

    #[test]
    fn backpressure_who_waits_takes_what_is_free_first() {
        let admission = Admission::new(32, 1 << 20);
        let sibling = admission.sibling();
        block_on(async {
            admission.reserve().await;
            sibling.reserve().await;
            let mut held: Vec<_> = std::iter::from_fn(|| admission.try_enter(1).ok()).collect();
            let waiting = admission.enter(1);
            held.pop();
            let entered = waiting.await;
            assert_eq!(admission.items(), held.len() + 1);
            drop(entered);
        });
        assert_eq!(sibling.items(), 0);
    }
}
