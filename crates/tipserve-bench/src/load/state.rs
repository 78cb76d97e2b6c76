//! A load in progress: its items, and their outcomes.

use std::{
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::{runtime::Handle, sync::Notify};

use crate::{
    options::Length,
    plan::{Plan, Target},
    queue::ItemQueue,
    record::{LoadItem, Reason, Record, Unanswered, Window},
    schedule::Draws,
};

/// What the senders and receivers of a running load share.
#[derive(Debug)]
pub struct Load {
    pub(super) plan: Plan,
    pub(super) targets: Vec<Target>,
    pub(super) queues: Vec<Arc<ItemQueue>>,
    pub(super) inputs: Vec<Bytes>,
    /// Set when the clock starts.
    pub(super) window: OnceLock<Window>,
    pub(super) issuing: Mutex<Issuing>,
    pub(super) record: Mutex<Record>,
    pub(super) stop: AtomicBool,
    pub(super) done: Notify,
    pub(super) runtime: Handle,
}

/// What is issued, and what of it has not ended.
#[derive(Debug)]
pub(super) struct Issuing {
    pub draws: Draws,
    /// Items that are still to be issued and counted, if the load has a count.
    pub left: Option<u64>,
    /// Issued, the warm-up's items included.
    pub issued: u64,
    /// Issued and not yet ended.
    pub outstanding: usize,
    /// Since when no more items are issued.
    pub stopped: Option<Instant>,
    /// Which targets counted items went to.
    pub used: Vec<bool>,
}

impl Issuing {
    /// Whether all items were issued and none is outstanding.
    pub(super) fn is_done(&self) -> bool {
        self.stopped.is_some() && self.outstanding == 0
    }
}

impl Load {
    /// Over at least one target, with at least one input.
    pub fn new(plan: Plan, targets: Vec<Target>, inputs: Vec<Bytes>) -> Arc<Self> {
        let unset = Window {
            from: Instant::now(),
            until: None,
        };
        Arc::new(Self {
            queues: targets.iter().map(|_| Arc::default()).collect(),
            window: OnceLock::new(),
            issuing: Mutex::new(Issuing {
                draws: Draws::new(plan.seed, targets.len(), inputs.len()),
                left: match plan.length {
                    Length::Count(count) => Some(count),
                    Length::Duration(_) => None,
                },
                issued: 0,
                outstanding: 0,
                stopped: None,
                used: vec![false; targets.len()],
            }),
            record: Mutex::new(Record::new(unset, plan.deadline)),
            stop: AtomicBool::new(false),
            done: Notify::new(),
            runtime: Handle::current(),
            plan,
            targets,
            inputs,
        })
    }

    /// What has become of the items so far.
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock()
    }

    /// How many items were issued, the warm-up's included.
    pub fn issued(&self) -> u64 {
        self.issuing.lock().issued
    }

    /// How many targets counted items went to.
    pub fn targets_used(&self) -> usize {
        self.issuing.lock().used.iter().filter(|it| **it).count()
    }

    /// The configurations of the targets that counted items went to.
    pub fn caches_used(&self) -> usize {
        let issuing = self.issuing.lock();
        let used = self.targets.iter().zip(&issuing.used);
        used.filter(|(_, used)| **used)
            .map(|(target, _)| target.config.cache.as_str())
            .collect::<std::collections::HashSet<_>>()
            .len()
    }

    /// The encoded input that an item sends.
    pub fn input(&self, item: LoadItem) -> Bytes {
        self.inputs.get(item.input).cloned().unwrap_or_default()
    }

    /// The time left of an item's deadline, if it has one; none if it has
    /// passed.
    pub fn time_left(&self, item: LoadItem, now: Instant) -> Option<Option<Duration>> {
        let Some(deadline) = self.plan.deadline else {
            return Some(None);
        };
        let left = deadline.checked_sub(now.saturating_duration_since(item.at))?;
        (!left.is_zero()).then_some(Some(left))
    }

    /// Items were handed to a connection.
    pub fn note_sent(&self, items: impl Iterator<Item = LoadItem>, now: Instant) {
        self.record.lock().sent(items, now);
    }

    /// Items' deadlines passed before a connection took them.
    pub fn note_late(self: &Arc<Self>, items: &[LoadItem]) {
        if !items.is_empty() {
            self.count_unanswered(
                items,
                &Reason::own(Unanswered::Unsent, "DEADLINE_BEFORE_SENT"),
            );
            self.items_ended(items.len());
        }
    }

    pub(super) fn count_unanswered(&self, items: &[LoadItem], reason: &Reason) {
        let mut record = self.record.lock();
        for item in items {
            record.not_answered(*item, reason);
        }
    }

    /// A stream, or a unary target's connection, has ended.
    pub(super) fn end(self: &Arc<Self>, queue: &ItemQueue, why: &Reason) {
        let (lost, unsent) = queue.give_up();
        self.count_unanswered(&lost, why);
        let unsent_why = Reason {
            kind: Unanswered::Unsent,
            ..why.clone()
        };
        self.count_unanswered(&unsent, &unsent_why);
        self.items_ended(lost.len() + unsent.len());
    }
}
