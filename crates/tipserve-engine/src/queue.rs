//! A bounded queue that is fair between flows and knows two priorities.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::{
    background::Step,
    job::{FlowId, Priority},
};

/// One item in this many is bulk while both priorities wait, so that bulk
/// work is slow under load but never stands still.
const BULK_TURN: usize = 16;

/// First in, first out within a flow; one item of each flow in turn.
struct FlowQueue<T> {
    flows: HashMap<FlowId, VecDeque<T>>,
    turns: VecDeque<FlowId>,
    len: usize,
}

impl<T> FlowQueue<T> {
    fn new() -> Self {
        FlowQueue {
            flows: HashMap::new(),
            turns: VecDeque::new(),
            len: 0,
        }
    }

    fn push(&mut self, flow: FlowId, item: T) {
        let queue = self.flows.entry(flow).or_default();
        if queue.is_empty() {
            self.turns.push_back(flow);
        }
        queue.push_back(item);
        self.len += 1;
    }

    /// Puts a popped item back at the front of its flow.
    fn push_front(&mut self, flow: FlowId, item: T) {
        let queue = self.flows.entry(flow).or_default();
        if queue.is_empty() {
            self.turns.push_front(flow);
        }
        queue.push_front(item);
        self.len += 1;
    }

    fn pop(&mut self) -> Option<T> {
        let flow = self.turns.pop_front()?;
        let queue = self.flows.get_mut(&flow)?;
        let item = queue.pop_front()?;
        if queue.is_empty() {
            self.flows.remove(&flow);
        } else {
            self.turns.push_back(flow);
        }
        self.len -= 1;
        Some(item)
    }

    /// How many items are served before a newcomer of `flow`.
    fn ahead_of(&self, flow: FlowId) -> usize {
        let own = self.flows.get(&flow).map_or(0, VecDeque::len);
        let flows = self.turns.len() + usize::from(own == 0);
        self.len.min((own + 1) * flows)
    }
}

struct State<T> {
    interactive: FlowQueue<T>,
    bulk: FlowQueue<T>,
    /// Interactive items taken since the last bulk one, while bulk waited.
    since_bulk: usize,
    steps: VecDeque<Step>,
    hold: usize,
    closed: bool,
    /// When the queue last became non-empty.
    filled: Option<Instant>,
}

impl<T> State<T> {
    fn len(&self) -> usize {
        self.interactive.len + self.bulk.len
    }

    fn step_is_due(&self, patience: Duration) -> bool {
        self.steps
            .front()
            .is_some_and(|step| self.interactive.len == 0 || step.waited() >= patience)
    }

    fn next(&mut self) -> Option<T> {
        if self.bulk.len > 0 && (self.interactive.len == 0 || self.since_bulk >= BULK_TURN - 1) {
            self.since_bulk = 0;
            return self.bulk.pop();
        }
        if self.bulk.len > 0 {
            self.since_bulk += 1;
        }
        self.interactive.pop()
    }
}

/// What a device worker does next.
pub(super) enum Turn<T> {
    /// A batch, at least one item.
    Batch(Vec<T>),
    /// A step of background work.
    Step(Step),
}

/// A queue between two stages.
pub(super) struct FairQueue<T> {
    state: Mutex<State<T>>,
    /// Something to take, or the end.
    filled: Condvar,
    /// Signalled when the queue falls below its bound, for decoders that wait
    /// to push.
    drained: Condvar,
    capacity: usize,
}

impl<T> FairQueue<T> {
    pub fn new(capacity: usize) -> Self {
        FairQueue {
            state: Mutex::new(State {
                interactive: FlowQueue::new(),
                bulk: FlowQueue::new(),
                since_bulk: 0,
                steps: VecDeque::new(),
                hold: 0,
                closed: false,
                filled: None,
            }),
            filled: Condvar::new(),
            drained: Condvar::new(),
            capacity,
        }
    }

    /// Adds an item, blocking while the queue is full. After [`FairQueue::close`]
    /// the item is dropped (its ticket answers).
    pub fn push(&self, flow: FlowId, priority: Priority, item: T) {
        let mut state = self.state.lock();
        while state.len() >= self.capacity && state.hold == 0 && !state.closed {
            self.drained.wait(&mut state);
        }
        if state.closed {
            return;
        }
        if state.len() == 0 {
            state.filled = Some(Instant::now());
        }
        match priority {
            Priority::Interactive => state.interactive.push(flow, item),
            Priority::Bulk => state.bulk.push(flow, item),
        }
        let held = state.hold > state.len();
        drop(state);
        if !held {
            self.filled.notify_one();
        }
    }

    /// Puts items back in their order, before everything that waits. Never
    /// blocks, and works on a closed queue too: the worker that took them takes
    /// again.
    pub fn give_back(&self, items: impl DoubleEndedIterator<Item = (FlowId, Priority, T)>) {
        let mut items = items.rev().peekable();
        if items.peek().is_none() {
            return;
        }
        let mut state = self.state.lock();
        for (flow, priority, item) in items {
            match priority {
                Priority::Interactive => state.interactive.push_front(flow, item),
                Priority::Bulk => state.bulk.push_front(flow, item),
            }
        }
        // It has waited for others already.
        state.filled = None;
        drop(state);
        self.filled.notify_one();
    }

    /// Adds a step of background work.
    pub fn push_step(&self, step: Step) {
        let mut state = self.state.lock();
        if !state.closed {
            state.steps.push_back(step);
            drop(state);
            self.filled.notify_one();
        }
    }

    /// Blocks until there is an item; false at the end.
    pub fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while state.len() == 0 {
            if state.closed {
                return false;
            }
            self.filled.wait(&mut state);
        }
        true
    }

    /// Takes one item, if there is one.
    pub fn pop(&self) -> Option<T> {
        let mut state = self.state.lock();
        let item = state.next()?;
        drop(state);
        self.drained.notify_one();
        Some(item)
    }

    /// Blocks until [`FairQueue::take`] has something to return; false at the
    /// end. Items that arrive in between are taken with the rest, and another
    /// worker may be faster.
    ///
    /// An idle worker takes what is there at once, unless `delay` lets a
    /// batch of `most()` fill first. A step waits while interactive items do,
    /// but no longer than `patience`.
    pub fn wait_for_turn(
        &self,
        most: impl Fn() -> usize,
        delay: Duration,
        patience: Duration,
    ) -> bool {
        let mut state = self.state.lock();
        loop {
            let len = state.len();
            if state.closed && len == 0 {
                state.steps.clear();
                return false;
            }
            if state.hold > len && !state.closed {
                self.filled.wait(&mut state);
                continue;
            }
            if state.step_is_due(patience) {
                return true;
            }
            if len > 0 {
                let fills_until = state.filled.map(|filled| filled + delay);
                if !delay.is_zero()
                    && len < most().max(1)
                    && !state.closed
                    && let Some(until) = fills_until
                    && !self.filled.wait_until(&mut state, until).timed_out()
                {
                    continue;
                }
                return true;
            }
            self.filled.wait(&mut state);
        }
    }

    /// Takes what is there, up to `most()` items, or a step that is due.
    pub fn take(&self, most: impl Fn() -> usize, patience: Duration) -> Option<Turn<T>> {
        let mut state = self.state.lock();
        if state.hold > state.len() && !state.closed {
            return None;
        }
        state.hold = 0;
        if state.step_is_due(patience)
            && let Some(step) = state.steps.pop_front()
        {
            return Some(Turn::Step(step));
        }
        if state.len() == 0 {
            return None;
        }
        let most = most().max(1);
        let batch: Vec<T> = std::iter::from_fn(|| state.next()).take(most).collect();
        state.filled = (state.len() > 0).then(Instant::now);
        let more = state.len() > 0;
        drop(state);
        self.drained.notify_all();
        if more {
            self.filled.notify_one();
        }
        Some(Turn::Batch(batch))
    }

    /// Holds workers until `items` wait; 0 lets them go.
    pub fn hold_until(&self, items: usize) {
        self.state.lock().hold = items;
        self.filled.notify_all();
        self.drained.notify_all();
    }

    /// Takes no more items; those in the queue are still handed out.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
        self.drained.notify_all();
    }

    pub fn len(&self) -> usize {
        self.state.lock().len()
    }

    /// How many items are served before a newcomer.
    pub fn ahead_of(&self, flow: FlowId, priority: Priority) -> usize {
        let state = self.state.lock();
        match priority {
            Priority::Interactive => state.interactive.ahead_of(flow),
            Priority::Bulk => state.interactive.len + state.bulk.ahead_of(flow),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &FairQueue<(u64, u32)>, n: usize) -> Vec<(u64, u32)> {
        match queue.take(|| n, Duration::ZERO) {
            Some(Turn::Batch(batch)) => batch,
            _ => Vec::new(),
        }
    }

    #[test]
    fn fairness_a_greedy_flow_waits_its_turn() {
        let queue = FairQueue::new(usize::MAX);
        for i in 0..100 {
            queue.push(FlowId(1), Priority::Interactive, (1, i));
        }
        for i in 0..10 {
            queue.push(FlowId(2), Priority::Interactive, (2, i));
        }
        let batch = drain(&queue, 20);
        let second: Vec<_> = batch.iter().filter(|(flow, _)| *flow == 2).collect();
        assert_eq!(second.len(), 10, "{batch:?}");
        assert!(second.windows(2).all(|pair| pair[0].1 < pair[1].1));
    }

    #[test]
    fn priority_bulk_takes_what_interactive_leaves_and_a_sixteenth() {
        let queue = FairQueue::new(usize::MAX);
        for i in 0..64 {
            queue.push(FlowId(1), Priority::Bulk, (1, i));
            queue.push(FlowId(2), Priority::Interactive, (2, i));
        }
        let bulk = drain(&queue, 32)
            .iter()
            .filter(|(flow, _)| *flow == 1)
            .count();
        assert_eq!(bulk, 2);
        let rest: Vec<u64> = std::iter::repeat_with(|| drain(&queue, 8))
            .take_while(|batch| !batch.is_empty())
            .flatten()
            .map(|(flow, _)| flow)
            .collect();
        let last_interactive = rest.iter().rposition(|flow| *flow == 2);
        assert!(last_interactive < Some(36), "{rest:?}");
        assert_eq!(rest.iter().filter(|flow| **flow == 1).count(), 62);
    }

    #[test]
    fn what_is_given_back_goes_first_and_in_its_order() {
        let queue = FairQueue::new(4);
        for i in 0..4 {
            queue.push(FlowId(1), Priority::Interactive, (1, i));
        }
        let taken = drain(&queue, 3);
        queue.push(FlowId(1), Priority::Interactive, (1, 4));
        queue.close();
        // Over its bound, and closed: nothing is lost.
        queue.give_back(
            taken
                .into_iter()
                .map(|item| (FlowId(1), Priority::Interactive, item)),
        );
        let order: Vec<u32> = drain(&queue, 9).into_iter().map(|(_, i)| i).collect();
        assert_eq!(order, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_newcomer_is_told_who_goes_first() {
        let queue = FairQueue::new(usize::MAX);
        for i in 0..100 {
            queue.push(FlowId(1), Priority::Interactive, (1, i));
        }
        assert_eq!(queue.ahead_of(FlowId(2), Priority::Interactive), 2);
        assert_eq!(queue.ahead_of(FlowId(1), Priority::Interactive), 100);
        assert_eq!(queue.ahead_of(FlowId(2), Priority::Bulk), 100);
    }
}
