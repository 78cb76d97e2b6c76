//! Slots bound how many batches run at once in a process, whatever their
//! engine. While several engines want one, they take turns by the time that
//! their batches took (start-time fair queueing, Goyal, Vin and Cheng, SIGCOMM
//! 1996), so that a flood on one bundle leaves the others their share.
//!
//! An engine asks for a slot *before* it takes a batch off its queue: items
//! that arrive while it waits still join that batch. A single engine never
//! waits.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

/// Weight of a share's earlier turns when its next one ends: about ten turns
/// count, as in the cost model.
const RECENT: f64 = 0.9;

/// A number of slots, shared among engines.
#[derive(Debug)]
pub(crate) struct Slots {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    count: usize,
    free: usize,
    /// When two slots or more were last in use.
    overlapped: Instant,
    /// Start tag of the latest turn: a share that was idle begins here, without
    /// credit for its idle time.
    virtual_time: f64,
    next_share: u64,
    shares: BTreeMap<u64, ShareState>,
}

#[derive(Debug)]
struct ShareState {
    /// Virtual time at which its turns so far end, seconds.
    finish: f64,
    /// Mean seconds of the last turns.
    turn: f64,
    /// Threads that wait for a slot.
    waiting: usize,
    /// How many of these have been granted one but have not woken yet.
    granted: usize,
    wake: Arc<Condvar>,
}

impl State {
    /// Counts a turn of this share as begun.
    fn begin(&mut self, share: u64) -> f64 {
        self.free -= 1;
        self.note_overlap();
        let Some(share) = self.shares.get_mut(&share) else {
            return 0.0;
        };
        let start = share.finish.max(self.virtual_time);
        self.virtual_time = start;
        // Assumed as long as its earlier turns; corrected when it ends.
        share.finish = start + share.turn;
        share.turn
    }

    fn in_use(&self) -> usize {
        self.count - self.free
    }

    fn note_overlap(&mut self) {
        if self.in_use() > 1 {
            self.overlapped = Instant::now();
        }
    }

    /// The share whose turn is next: the waiting one that is furthest behind.
    fn next(&self) -> Option<u64> {
        self.shares
            .iter()
            .filter(|(_, share)| share.waiting > share.granted)
            .min_by(|(_, a), (_, b)| a.finish.total_cmp(&b.finish))
            .map(|(id, _)| *id)
    }

    /// Counts a turn as ended, which was expected to take `expected` seconds.
    fn end(&mut self, share: u64, expected: f64, seconds: f64) {
        self.note_overlap();
        if let Some(share) = self.shares.get_mut(&share) {
            share.finish += seconds - expected;
            share.turn = RECENT * share.turn + (1.0 - RECENT) * seconds;
        }
        self.free += 1;
        self.hand_out();
    }

    fn hand_out(&mut self) {
        while self.free > 0
            && let Some(id) = self.next()
        {
            self.begin(id);
            if let Some(share) = self.shares.get_mut(&id) {
                share.granted += 1;
                share.wake.notify_one();
            }
        }
    }
}

impl Slots {
    /// This many slots; at least one.
    pub fn new(count: usize) -> Arc<Slots> {
        Arc::new(Slots {
            state: Mutex::new(State {
                count: count.max(1),
                free: count.max(1),
                overlapped: Instant::now(),
                virtual_time: 0.0,
                next_share: 0,
                shares: BTreeMap::new(),
            }),
        })
    }

    /// A new engine's share of the slots, equal to the others'.
    pub fn share(self: &Arc<Self>) -> Share {
        let wake = Arc::new(Condvar::new());
        let mut state = self.state.lock();
        let id = state.next_share;
        state.next_share += 1;
        let finish = state.virtual_time;
        state.shares.insert(
            id,
            ShareState {
                finish,
                turn: 0.0,
                waiting: 0,
                granted: 0,
                wake: Arc::clone(&wake),
            },
        );
        Share {
            slots: Arc::clone(self),
            id,
            wake,
            wait: AtomicU64::new(0),
        }
    }
}

/// An engine's share of some slots.
#[derive(Debug)]
pub(crate) struct Share {
    slots: Arc<Slots>,
    id: u64,
    wake: Arc<Condvar>,
    /// Mean seconds of waiting for the last turns: the bits of an f64.
    wait: AtomicU64,
}

impl Share {
    /// Takes a slot, waiting for this share's turn while none is free. Drop it
    /// to give it back; never take a second one of the same slots while holding
    /// one.
    pub fn enter(&self) -> Slot<'_> {
        let mut state = self.slots.state.lock();
        let expected = if state.free > 0 {
            self.waited(Duration::ZERO);
            state.begin(self.id)
        } else {
            let asked = Instant::now();
            self.wait_for_turn(&mut state);
            self.waited(asked.elapsed());
            state.shares.get(&self.id).map_or(0.0, |share| share.turn)
        };
        drop(state);
        Slot {
            share: self,
            expected,
            began: Instant::now(),
        }
    }

    /// Whether no slot is in use, of any share.
    pub fn is_idle(&self) -> bool {
        self.slots.state.lock().in_use() == 0
    }

    /// How long there has been no more than one slot in use, of any share; none
    /// while there are more.
    pub fn without_overlap(&self) -> Option<Duration> {
        let state = self.slots.state.lock();
        (state.in_use() <= 1).then(|| state.overlapped.elapsed())
    }

    fn wait_for_turn(&self, state: &mut parking_lot::MutexGuard<'_, State>) {
        if let Some(share) = state.shares.get_mut(&self.id) {
            share.waiting += 1;
        }
        loop {
            match state.shares.get_mut(&self.id) {
                Some(share) if share.granted == 0 => self.wake.wait(state),
                Some(share) => {
                    share.granted -= 1;
                    share.waiting -= 1;
                    return;
                }
                // Never: a share outlives the threads that wait for it.
                None => return,
            }
        }
    }

    fn waited(&self, time: Duration) {
        let mean = RECENT * self.wait_seconds() + (1.0 - RECENT) * time.as_secs_f64();
        self.wait.store(mean.to_bits(), Ordering::Relaxed);
    }

    /// Mean seconds of waiting for the last turns; 0 while slots are free.
    pub fn wait_seconds(&self) -> f64 {
        f64::from_bits(self.wait.load(Ordering::Relaxed))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.slots.state.lock().shares.remove(&self.id);
    }
}

/// A slot that is held; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    share: &'a Share,
    expected: f64,
    began: Instant,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let seconds = self.began.elapsed().as_secs_f64();
        let mut state = self.share.slots.state.lock();
        state.end(self.share.id, self.expected, seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shares, by number, that turns are given to while all want one all
    /// the time and there is one slot; a turn of each takes `seconds`.
    fn turns(slots: &Slots, seconds: &[(u64, f64)], count: usize) -> Vec<u64> {
        let mut state = slots.state.lock();
        for (id, _) in seconds {
            state.shares.get_mut(id).unwrap().waiting = usize::MAX;
        }
        state.hand_out();
        let mut order = Vec::new();
        while order.len() < count {
            let mut running = seconds
                .iter()
                .filter(|(id, _)| state.shares[id].granted > 0);
            let &(id, took) = running.next().expect("a slot is given out");
            assert!(running.next().is_none(), "one slot, given to two");
            order.push(id);
            let share = state.shares.get_mut(&id).unwrap();
            share.granted = 0;
            let expected = share.turn;
            state.end(id, expected, took);
        }
        order
    }

    fn count(order: &[u64], id: u64) -> usize {
        order.iter().filter(|taken| **taken == id).count()
    }

    #[test]
    fn fairness_equal_turns_alternate() {
        let slots = Slots::new(1);
        let (_a, _b) = (slots.share(), slots.share());
        let order = turns(&slots, &[(0, 0.1), (1, 0.1)], 100);
        assert!(
            count(&order, 0).abs_diff(count(&order, 1)) <= 2,
            "{order:?}"
        );
        assert!(
            order
                .windows(4)
                .all(|four| count(four, 0) > 0 && count(four, 1) > 0)
        );
    }

    #[test]
    fn fairness_is_of_time_and_not_of_batches() {
        let slots = Slots::new(1);
        let (_a, _b) = (slots.share(), slots.share());
        // A large model's batches take ten times as long as a small one's.
        let order = turns(&slots, &[(0, 1.0), (1, 0.1)], 1100);
        let large = count(&order, 0);
        assert!((95..=105).contains(&large), "{large} of 1100");
    }

    #[test]
    fn fairness_who_was_idle_has_saved_nothing_up() {
        let slots = Slots::new(1);
        let (_a, _b) = (slots.share(), slots.share());
        turns(&slots, &[(0, 0.1)], 1000);
        slots.state.lock().shares.get_mut(&0).unwrap().granted = 0;
        slots.state.lock().free = 1;
        let order = turns(&slots, &[(0, 0.1), (1, 0.1)], 100);
        assert!((45..=55).contains(&count(&order, 1)), "{order:?}");
    }

    #[test]
    fn a_slot_is_had_at_once_while_one_is_free_and_then_waited_for() {
        let slots = Slots::new(2);
        let (a, b) = (slots.share(), slots.share());
        let (first, second) = (a.enter(), a.enter());
        assert!(a.wait_seconds() == 0.0);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(b.enter()));
            while slots.state.lock().shares[&1].waiting == 0 {
                std::thread::yield_now();
            }
            assert!(!waiting.is_finished());
            drop(first);
            waiting.join().unwrap();
        });
        assert!(b.wait_seconds() > 0.0);
        drop(second);
        assert_eq!(slots.state.lock().free, 2);
    }
}
