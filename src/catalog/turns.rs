//! Whose turn it is on the device: one run at a time, one of each owner in
//! turn, so that an owner's many runs do not keep another's one waiting.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// One turn at a time.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    taken: bool,
    waiting: VecDeque<Waiting>,
    /// Turns given so far, and the number of each waiting owner's latest.
    given: u64,
    latest: HashMap<String, u64>,
}

struct Waiting {
    owner: String,
    turn: oneshot::Sender<Turn>,
}

/// A turn; dropping it lets the next one begin.
pub(super) struct Turn(Turns);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.next();
    }
}

impl Turns {
    /// Waits for a turn. If the future is dropped, it gives up its place.
    pub async fn take(&self, owner: &str) -> Turn {
        let turn = {
            let mut state = self.0.lock();
            if !state.taken {
                state.given(owner);
                return Turn(self.clone());
            }
            let (sender, turn) = oneshot::channel();
            state.waiting.push_back(Waiting {
                owner: owner.to_owned(),
                turn: sender,
            });
            turn
        };
        match turn.await {
            Ok(turn) => turn,
            // The sender is dropped with the state, which this holds.
            Err(_) => std::future::pending().await,
        }
    }

    fn next(&self) {
        let mut state = self.0.lock();
        state.taken = false;
        while let Some(Waiting { owner, turn }) = state.pop() {
            if turn.is_closed() {
                continue;
            }
            state.given(&owner);
            // Dropped, the turn would come back here for the lock.
            drop(state);
            drop(turn.send(Turn(self.clone())));
            return;
        }
    }
}

impl State {
    fn given(&mut self, owner: &str) {
        self.taken = true;
        self.given += 1;
        self.latest.insert(owner.to_owned(), self.given);
        let waiting = &self.waiting;
        self.latest.retain(|known, _| {
            known == owner || waiting.iter().any(|waiting| waiting.owner == *known)
        });
    }

    /// The first waiting run of the owner whose latest turn is longest ago.
    fn pop(&mut self) -> Option<Waiting> {
        let (at, _) = self
            .waiting
            .iter()
            .enumerate()
            .min_by_key(|(at, waiting)| {
                let latest = self.latest.get(&waiting.owner).copied().unwrap_or(0);
                (latest, *at)
            })?;
        self.waiting.remove(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn owners_take_turns_however_many_runs_they_have() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        let (said, mut order) = tokio::sync::mpsc::unbounded_channel();
        for owner in ["a", "a", "a", "b", "c", "b"] {
            let (turns, said) = (turns.clone(), said.clone());
            tokio::spawn(async move {
                let _turn = turns.take(owner).await;
                let _ = said.send(owner);
            });
            tokio::task::yield_now().await;
        }
        drop(said);
        drop(first);
        let mut got = Vec::new();
        while let Some(owner) = order.recv().await {
            got.push(owner);
        }
        assert_eq!(got, ["b", "c", "a", "b", "a", "a"]);
    }

    #[tokio::test]
    async fn one_that_no_longer_waits_is_passed_over() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        let mut gone = Box::pin(turns.take("b"));
        assert!(futures::poll!(&mut gone).is_pending());
        let mut next = Box::pin(turns.take("c"));
        assert!(futures::poll!(&mut next).is_pending());
        drop(gone);
        drop(first);
        assert!(futures::poll!(&mut next).is_ready());
        assert!(futures::poll!(Box::pin(turns.take("d"))).is_ready());
    }
}
