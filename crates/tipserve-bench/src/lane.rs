//! A stream's items: those that wait to be sent, and those that were sent.
//!
//! The connection takes a message whenever flow control lets it, with all that
//! is due by then. So nothing is buffered on its way, and an item is known to
//! be sent or not when its stream breaks.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Instant,
};

use futures::Stream;
use parking_lot::Mutex;

use super::{
    load::Load,
    record::Due,
    wire::{Item, Items, StreamRequest},
};
use tipserve_api::v1::ClassifyStreamConfig;

/// One stream's (or one unary cache's) items.
#[derive(Debug, Default)]
pub struct Lane {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Due>,
    /// By sequence, from `first` on; none where answered.
    sent: VecDeque<Option<Due>>,
    first: u64,
    closed: bool,
    broken: bool,
    waker: Option<Waker>,
}

impl Lane {
    /// Adds an item to those that wait; gives it back where the stream has
    /// ended.
    pub fn push(&self, item: Due) -> Result<(), Due> {
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
    pub fn sent(&self, item: Due) -> u64 {
        self.state.lock().sent(item)
    }

    /// Items answered, in the order of `sequences`; none for one that was
    /// never sent or is answered already. Nothing once the stream was given
    /// up: what it had is counted then.
    pub fn answered(&self, sequences: impl Iterator<Item = u64>) -> Vec<Option<Due>> {
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
    pub fn give_up(&self) -> (Vec<Due>, Vec<Due>) {
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
    fn sent(&mut self, item: Due) -> u64 {
        self.sent.push_back(Some(item));
        self.first + self.sent.len() as u64 - 1
    }

    fn answered(&mut self, sequence: u64) -> Option<Due> {
        let at = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        let item = self.sent.get_mut(at)?.take();
        while let Some(None) = self.sent.front() {
            self.sent.pop_front();
            self.first += 1;
        }
        item
    }
}

/// The requests of a stream.
pub struct Requests {
    lane: Arc<Lane>,
    /// The load holds the connections, which hold this.
    load: Weak<Load>,
    config: Option<ClassifyStreamConfig>,
    /// Items of one message.
    pack: usize,
}

impl Requests {
    /// The configuration, then what comes to wait in the lane.
    pub fn new(
        lane: Arc<Lane>,
        load: &Arc<Load>,
        config: ClassifyStreamConfig,
        pack: usize,
    ) -> Self {
        Self {
            lane,
            load: Arc::downgrade(load),
            config: Some(config),
            pack,
        }
    }
}

impl Stream for Requests {
    type Item = StreamRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(config) = self.config.take() {
            return Poll::Ready(Some(StreamRequest {
                config: Some(config),
                items: None,
            }));
        }
        let Some(load) = self.load.upgrade() else {
            return Poll::Ready(None);
        };
        loop {
            let mut state = self.lane.state.lock();
            if state.waiting.is_empty() {
                if state.closed {
                    return Poll::Ready(None);
                }
                state.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            let now = Instant::now();
            let some = state.waiting.len().min(self.pack);
            let mut going = Vec::with_capacity(some);
            let mut late = Vec::new();
            let mut items = Vec::with_capacity(some);
            for item in state.waiting.drain(..some) {
                match load.time_left(item, now) {
                    Some(left) => {
                        items.push(Item {
                            input: load.input(item),
                            time_limit: left.and_then(|left| left.try_into().ok()),
                        });
                        going.push(item);
                    }
                    None => late.push(item),
                }
            }
            for item in &going {
                state.sent(*item);
            }
            drop(state);
            load.note_sent(&going, now);
            load.note_late(&late);
            if !items.is_empty() {
                return Poll::Ready(Some(StreamRequest {
                    config: None,
                    items: Some(Items { items }),
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(input: usize) -> Due {
        Due {
            at: Instant::now(),
            input,
            counted: true,
        }
    }

    #[test]
    fn every_sequence_is_answered_once_in_any_order() {
        let lane = Lane::default();
        let sequences: Vec<u64> = (0..10).map(|i| lane.sent(due(i))).collect();
        assert_eq!(sequences, (0..10).collect::<Vec<_>>());
        for sequence in [3, 0, 1, 2, 9] {
            let items = lane.answered([sequence, sequence, 10].into_iter());
            let inputs: Vec<_> = items.iter().map(|it| it.map(|it| it.input)).collect();
            assert_eq!(inputs, [Some(sequence as usize), None, None]);
        }
        assert_eq!(lane.sent(due(10)), 10);
        lane.push(due(11)).unwrap();
        let (lost, unsent) = lane.give_up();
        let inputs = |items: Vec<Due>| items.iter().map(|it| it.input).collect::<Vec<_>>();
        assert_eq!(inputs(lost), [4, 5, 6, 7, 8, 10]);
        assert_eq!(inputs(unsent), [11]);
        assert!(lane.push(due(12)).is_err());
    }
}
