//! A stream's items: those that wait to be sent, and those in flight.
//!
//! The connection takes a message whenever flow control lets it, with all that
//! is due by then. Nothing is buffered on the way, so when a stream breaks, it
//! is known of each item whether it was sent.

use std::{
    collections::VecDeque,
    task::{Context, Waker},
};

use parking_lot::Mutex;

use super::record::LoadItem;

/// One stream's (or one unary cache's) items.
#[derive(Debug, Default)]
pub struct ItemQueue {
    state: Mutex<State>,
}

/// What a sender gets when it asks for work.
#[derive(Debug)]
pub enum Sending<T> {
    /// Due items, to be sent in one message.
    Items {
        /// Those in time, with what `in_time` gave.
        sent: Vec<(LoadItem, T)>,
        /// Those whose deadline had passed.
        late: Vec<LoadItem>,
    },
    /// No item is due yet; ask again once one is.
    Nothing,
    /// Nothing, and nothing will come.
    Closed,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<LoadItem>,
    /// By sequence, from `first` on; none if answered.
    sent: VecDeque<Option<LoadItem>>,
    first: u64,
    closed: bool,
    broken: bool,
    waker: Option<Waker>,
}

impl ItemQueue {
    /// Sends up to `most` of the items that wait: those for which `in_time`
    /// gives something are in flight from now on. If none waits, the task is
    /// woken once one does.
    ///
    /// An item moves under one lock, so that one that is given up meanwhile is
    /// either waiting or in flight.
    pub fn send<T>(
        &self,
        most: usize,
        in_time: impl Fn(LoadItem) -> Option<T>,
        context: &Context<'_>,
    ) -> Sending<T> {
        let mut state = self.state.lock();
        if state.waiting.is_empty() {
            if state.closed {
                return Sending::Closed;
            }
            state.waker = Some(context.waker().clone());
            return Sending::Nothing;
        }
        let count = state.waiting.len().min(most);
        let (mut sent, mut late) = (Vec::with_capacity(count), Vec::new());
        let due: Vec<_> = state.waiting.drain(..count).collect();
        for item in due {
            match in_time(item) {
                Some(content) => {
                    state.sent(item);
                    sent.push((item, content));
                }
                None => late.push(item),
            }
        }
        Sending::Items { sent, late }
    }

    /// Adds an item to those that wait; gives it back if the stream has
    /// ended.
    pub fn push(&self, item: LoadItem) -> Result<(), LoadItem> {
        let mut state = self.state.lock();
        if state.broken || state.closed {
            return Err(item);
        }
        state.waiting.push_back(item);
        if let Some(waker) = state.waker.take() {
            drop(state);
            waker.wake();
        }
        Ok(())
    }

    /// Notes an item as sent; its sequence.
    pub fn sent(&self, item: LoadItem) -> u64 {
        self.state.lock().sent(item)
    }

    /// Items answered, in the order of `sequences`; none for one that was
    /// never sent or is answered already. Nothing once the stream was given
    /// up: what it had is counted then.
    pub fn answered(&self, sequences: impl Iterator<Item = u64>) -> Vec<Option<LoadItem>> {
        let mut state = self.state.lock();
        if state.broken {
            return Vec::new();
        }
        sequences.map(|sequence| state.answered(sequence)).collect()
    }

    /// Whether items can still be sent.
    pub fn is_open(&self) -> bool {
        let state = self.state.lock();
        !state.broken && !state.closed
    }

    /// No more items come; the stream ends once those that wait are sent.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        if let Some(waker) = state.waker.take() {
            drop(state);
            waker.wake();
        }
    }

    /// The stream has ended: (sent and unanswered, never sent).
    pub fn give_up(&self) -> (Vec<LoadItem>, Vec<LoadItem>) {
        let mut state = self.state.lock();
        state.broken = true;
        let sent = std::mem::take(&mut state.sent);
        (
            sent.into_iter().flatten().collect(),
            std::mem::take(&mut state.waiting).into(),
        )
    }
}

impl State {
    fn sent(&mut self, item: LoadItem) -> u64 {
        self.sent.push_back(Some(item));
        self.first + self.sent.len() as u64 - 1
    }

    fn answered(&mut self, sequence: u64) -> Option<LoadItem> {
        let at = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        let item = self.sent.get_mut(at)?.take();
        while let Some(None) = self.sent.front() {
            self.sent.pop_front();
            self.first += 1;
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn due(input: usize) -> LoadItem {
        LoadItem {
            at: Instant::now(),
            input,
            counted: true,
        }
    }

    #[test]
    fn every_sequence_is_answered_once_in_any_order() {
        let queue = ItemQueue::default();
        let sequences: Vec<u64> = (0..10).map(|i| queue.sent(due(i))).collect();
        assert_eq!(sequences, (0..10).collect::<Vec<_>>());
        for sequence in [3, 0, 1, 2, 9] {
            let items = queue.answered([sequence, sequence, 10].into_iter());
            let inputs: Vec<_> = items.iter().map(|it| it.map(|it| it.input)).collect();
            assert_eq!(inputs, [Some(sequence as usize), None, None]);
        }
        assert_eq!(queue.sent(due(10)), 10);
        queue.push(due(11)).unwrap();
        let (lost, unsent) = queue.give_up();
        let inputs = |items: Vec<LoadItem>| items.iter().map(|it| it.input).collect::<Vec<_>>();
        assert_eq!(inputs(lost), [4, 5, 6, 7, 8, 10]);
        assert_eq!(inputs(unsent), [11]);
        assert!(queue.push(due(12)).is_err());
    }
}
