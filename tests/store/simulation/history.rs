//! What the clients were told, and what no store may do whatever the order.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tipserve_store::CacheId;

use super::linear::Timed;

/// What happened to each cache, step by step.
#[derive(Clone, Default)]
pub struct History {
    caches: Arc<Mutex<BTreeMap<CacheId, Vec<Timed>>>>,
    /// Versions that were acknowledged: they must load as long as they exist.
    acknowledged: Arc<Mutex<BTreeMap<(CacheId, u64), u64>>>,
    violations: Arc<Mutex<Vec<String>>>,
}

impl History {
    pub fn add(&self, cache: &CacheId, steps: impl FnOnce(usize) -> Vec<Timed>) {
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        let history = caches.entry(cache.clone()).or_default();
        let steps = steps(history.len());
        history.extend(steps);
    }

    pub fn of_caches(&self) -> BTreeMap<CacheId, Vec<Timed>> {
        let caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        caches.clone()
    }

    pub fn acknowledge(&self, cache: &CacheId, number: u64, seed: u64) {
        let mut acknowledged = self
            .acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = acknowledged.insert((cache.clone(), number), seed);
        if before.is_some_and(|before| before != seed) {
            self.violation(format!("{cache}@{number} was acknowledged twice"));
        }
    }

    pub fn is_acknowledged(&self, cache: &CacheId, number: u64) -> bool {
        let acknowledged = self
            .acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        acknowledged.contains_key(&(cache.clone(), number))
    }

    pub fn violation(&self, what: String) {
        let mut violations = self
            .violations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        violations.push(what);
    }

    pub fn violations(&self) -> Vec<String> {
        let violations = self
            .violations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        violations.clone()
    }
}
