//! Issuing items: one for each that ended, or at the times that are drawn.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::state::{Issuing, Load};
use crate::{
    options::Arrivals,
    record::{LoadItem, Reason, Unanswered},
    schedule::{Draw, Poisson},
};

/// Longest sleep of the thread that paces an open loop, so that it soon sees
/// that it is to stop.
const MAX_SLEEP: Duration = Duration::from_millis(100);

impl Load {
    /// `ended` items have ended. A closed loop issues as many new ones.
    pub(super) fn items_ended(self: &Arc<Self>, ended: usize) {
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
            } else if let Some(queue) = self.queues.get(target)
                && let Err(item) = queue.push(item)
            {
                // The stream broke just now: what it had is issued anew, this
                // one is not.
                self.count_unanswered(&[item], &Reason::own(Unanswered::Unsent, "STREAM_BROKEN"));
                self.issue(1, 0, at);
            }
        }
    }

    /// The next item and its target; none once the load is to end.
    fn next(&self, issuing: &mut Issuing, at: Instant) -> Option<(usize, LoadItem)> {
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
        let count = self.queues.len();
        let target = (target..target + count)
            .map(|at| at % count)
            .find(|at| self.queues.get(*at).is_some_and(|queue| queue.is_open()));
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
        Some((target, LoadItem { at, input, counted }))
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
                std::thread::sleep(left.min(MAX_SLEEP));
            }
            self.issue(0, 1, at);
            if self.issuing.lock().stopped.is_some() {
                return;
            }
        }
    }
}
