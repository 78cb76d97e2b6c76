//! Admission: bounds on items and bytes in the engine.

use std::sync::Arc;

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
        self
    }
}

/// Bounds on what is in the engine, from admission to the answer.
#[derive(Debug)]
pub struct Admission {
    items: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    max_items: usize,
    max_bytes: usize,
}

impl Admission {
    /// Room for `max_items` and `max_bytes`.
    pub fn new(max_items: usize, max_bytes: usize) -> Admission {
        Admission {
            items: Arc::new(Semaphore::new(max_items.min(Semaphore::MAX_PERMITS))),
            bytes: Arc::new(Semaphore::new((max_bytes / PIECE).min(u32::MAX as usize))),
            max_items,
            max_bytes,
        }
    }

    /// Admits an item of `bytes` now, or refuses it.
    ///
    /// # Errors
    /// The bound that is reached.
    pub fn try_enter(&self, bytes: usize) -> Result<Permit, Refusal> {
        let items = Arc::clone(&self.items)
            .try_acquire_owned()
            .map_err(|_| Refusal {
                limit: "queue_items",
                value: self.max_items,
            })?;
        let bytes = Arc::clone(&self.bytes)
            .try_acquire_many_owned(self.pieces(bytes))
            .map_err(|_| Refusal {
                limit: "queue_bytes",
                value: self.max_bytes,
            })?;
        Ok(Permit {
            _parts: vec![items, bytes],
        })
    }

    /// Admits an item of `bytes`, waiting until it fits: meanwhile the caller
    /// reads nothing more from its client.
    pub async fn enter(&self, bytes: usize) -> Permit {
        let items = Arc::clone(&self.items).acquire_owned().await;
        let bytes = Arc::clone(&self.bytes)
            .acquire_many_owned(self.pieces(bytes))
            .await;
        Permit {
            // The semaphores are never closed.
            _parts: items.into_iter().chain(bytes).collect(),
        }
    }

    /// Items admitted and not yet answered.
    pub fn items(&self) -> usize {
        self.max_items
            .saturating_sub(self.items.available_permits())
    }

    /// Bytes in the engine, in whole KiB.
    pub fn bytes(&self) -> usize {
        self.max_bytes
            .saturating_sub(self.bytes.available_permits() * PIECE)
    }

    /// An item larger than the bound itself takes all of it, and is admitted
    /// alone.
    fn pieces(&self, bytes: usize) -> u32 {
        let all = (self.max_bytes / PIECE).max(1);
        u32::try_from(bytes.div_ceil(PIECE).clamp(1, all)).unwrap_or(u32::MAX)
    }
}
