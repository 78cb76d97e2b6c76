//! The part that each caller has of places that all of them share.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places of each caller, so that one who asks for much keeps nobody else
/// waiting. Callers who cannot be told apart have no such part.
pub(super) struct Shares {
    places: usize,
    callers: Mutex<BTreeMap<String, Weak<Semaphore>>>,
}

impl Shares {
    /// Gives each caller this many places.
    pub const fn new(places: usize) -> Shares {
        Shares {
            places,
            callers: Mutex::new(BTreeMap::new()),
        }
    }

    /// How many places each caller has.
    pub fn places(&self) -> usize {
        self.places
    }

    fn of(&self, caller: &str) -> Arc<Semaphore> {
        let mut callers = self.callers.lock();
        if let Some(share) = callers.get(caller).and_then(Weak::upgrade) {
            return share;
        }
        callers.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.places));
        callers.insert(caller.to_owned(), Arc::downgrade(&share));
        share
    }

    /// Waits for this many places of this caller; all of them, if it has fewer.
    pub async fn take(&self, caller: Option<&str>, count: u32) -> Option<OwnedSemaphorePermit> {
        let most = u32::try_from(self.places).unwrap_or(u32::MAX);
        let share = self.of(caller?);
        // They are never closed.
        share.acquire_many_owned(count.min(most)).await.ok()
    }

    /// A place of this caller, unless all of them are taken.
    pub fn try_take(&self, caller: Option<&str>) -> Result<Option<OwnedSemaphorePermit>, NoPlace> {
        let Some(caller) = caller else {
            return Ok(None);
        };
        let place = self.of(caller).try_acquire_owned();
        place.map(Some).map_err(|_| NoPlace)
    }
}

/// All places of a caller are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoPlace;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_places_of_its_own_and_gives_them_back() {
        let shares = Shares::new(2);
        let take = |caller| shares.try_take(Some(caller));
        let held = [take("a"), take("a")];
        assert!(held.iter().all(|place| matches!(place, Ok(Some(_)))));
        assert_eq!(take("a").err(), Some(NoPlace));
        assert!(take("b").is_ok());
        for _ in 0..9 {
            assert!(matches!(shares.try_take(None), Ok(None)), "nobody's");
        }
        drop(held);
        assert!(take("a").is_ok());
        drop(take("c"));
        drop(take("d"));
        assert!(shares.callers.lock().len() <= 2, "they are forgotten");
    }
}
