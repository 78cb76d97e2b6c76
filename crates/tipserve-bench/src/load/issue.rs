//! Issuing items: one for each that ended, or at the times that are drawn.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::Load;
use crate::{
    options::Arrivals,
    record::{Due, Miss, Reason},
    schedule::{Draw, Draws, Poisson},
};

/// Longest sleep of the thread that paces an open loop: it soon sees that it
/// is to stop.
const NAP: Duration = Duration::from_millis(100);

/// What is issued, and what of it has not ended.
#[derive(Debug)]
pub(super) struct Issuing {
    pub draws: Draws,
    /// Items that are still to be counted, where they are numbered.
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
    /// Whether everything has ended.
    fn is_done(&self) -> bool {
        self.stopped.is_some() && self.outstanding == 0
    }
}

impl Load {
    /// `ended` items have come to their end. A closed loop issues as many.
    pub(super) fn settle(self: &Arc<Self>, ended: usize) {
        let again = match self.plan.arrivals {
            Arrivals::Closed { .. } => ended,
            Arrivals::Open { .. } => 0,
        };
        self.issue(ended, again, Instant::now());
    }

    /// Ends some items and issues others, due at `at`.
    pub(super) fn issue(self: &Arc<Self>, ended: usize, wanted: usize, at: Instant) {
        let mut going = Vec::with_capacity(wanted);
        let done = {
            let mut issuing = self.issuing.lock();
            issuing.outstanding = issuing.outstanding.saturating_sub(ended);
            while going.len() < wanted
                && let Some(item) = self.next(&mut issuing, at)
            {
                going.push(item);
            }
            issuing.outstanding += going.len();
            issuing.issued += going.len() as u64;
            issuing.is_done()
        };
        if done {
            self.done.notify_one();
        }
        for (target, item) in going {
            if self.plan.unary {
                self.runtime.spawn(Arc::clone(self).call(target, item));
            } else if let Some(lane) = self.lanes.get(target)
                && let Err(item) = lane.push(item)
            {
                // The stream broke just now: what it had is issued anew, this
                // one is not.
                self.count_missed(&[item], &Reason::own(Miss::Unsent, "STREAM_BROKEN"));
                self.issue(1, 0, at);
            }
        }
    }

    /// The next item and its target; none once the load is to end.
    fn next(&self, issuing: &mut Issuing, at: Instant) -> Option<(usize, Due)> {
        let window = self.window.get()?;
        if issuing.stopped.is_none()
            && (window.until.is_some_and(|until| at >= until) || issuing.left == Some(0))
        {
            issuing.stopped = Some(Instant::now());
        }
        if issuing.stopped.is_some() {
            return None;
        }
        let Draw { target, input } = issuing.draws.draw();
        // Where a stream has broken, the next one takes its items.
        let count = self.lanes.len();
        let target = (target..target + count)
            .map(|at| at % count)
            .find(|at| self.lanes.get(*at).is_some_and(|lane| lane.is_open()));
        let Some(target) = target else {
            issuing.stopped = Some(Instant::now());
            return None;
        };
        let counted = at >= window.from;
        if counted {
            if let Some(left) = &mut issuing.left {
                *left -= 1;
            }
            if let Some(used) = issuing.used.get_mut(target) {
                *used = true;
            }
        }
        Some((target, Due { at, input, counted }))
    }

    /// Issues an open loop's items when they are due, on a thread of its own:
    /// the runtime's timers are good to a millisecond only.
    pub(super) fn pace(self: Arc<Self>, start: Instant, rate: f64) {
        for offset in Poisson::new(self.plan.seed, rate) {
            let at = start + offset;
            loop {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                let left = at.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                std::thread::sleep(left.min(NAP));
            }
            self.issue(0, 1, at);
            if self.issuing.lock().stopped.is_some() {
                return;
            }
        }
    }
}
