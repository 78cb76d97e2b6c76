//! The memory budget: what is in use, by whom, and until when.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bytes of memory, by where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes in the machine's memory.
    pub host: u64,
    /// Bytes in the accelerator's memory.
    pub device: u64,
}

impl Footprint {
    /// Bytes of the machine's memory alone.
    pub fn host(bytes: u64) -> Self {
        let (host, device) = (bytes, 0);
        Self { host, device }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            host: self.host.saturating_add(other.host),
            device: self.device.saturating_add(other.device),
        }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            host: self.host.saturating_sub(other.host),
            device: self.device.saturating_sub(other.device),
        }
    }

    pub(super) fn within(self, budget: Self) -> bool {
        self.host <= budget.host && self.device <= budget.device
    }
}

/// Reserved bytes of the budget, given back on drop.
pub(super) struct Reservation {
    pub footprint: Footprint,
    pub evicted: AtomicBool,
    pub memory: Arc<Budget>,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Usage {
    /// Of all values alive and all loads under way.
    pub all: Footprint,
    /// Of values evicted and still in use.
    pub leaving: Footprint,
}

pub(super) struct Budget {
    pub usage: Mutex<Usage>,
    /// Notified when memory was given back, or may be evicted.
    pub changed: Notify,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        {
            let mut usage = self.memory.usage.lock();
            usage.all = usage.all.minus(self.footprint);
            if self.evicted.load(Relaxed) {
                usage.leaving = usage.leaving.minus(self.footprint);
            }
        }
        self.memory.changed.notify_waiters();
    }
}
