//! Running a load to its end.

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use super::state::Load;
use crate::{
    options::{Arrivals, Length},
    plan::End,
    record::{Reason, Record, Unanswered, Window},
};

/// How long streams may take to close once everything is answered.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often progress is shown and the end is looked for.
const TICK: Duration = Duration::from_millis(200);

impl Load {
    /// Runs the load to its end, showing progress now and then.
    pub async fn run(
        self: &Arc<Self>,
        streams: Vec<JoinHandle<()>>,
        interrupted: impl Future<Output = ()>,
        mut progress: impl FnMut(&Record, Instant),
    ) -> End {
        let start = Instant::now();
        let from = start + self.plan.warmup;
        let window = Window {
            from,
            until: match self.plan.length {
                Length::Duration(duration) => Some(from + duration),
                Length::Count(_) => None,
            },
        };
        *self.record.lock() = Record::new(window, self.plan.deadline);
        let _ = self.window.set(window);
        match self.plan.arrivals {
            Arrivals::Closed { concurrency } => self.issue(0, concurrency, start),
            Arrivals::Open { rate } => {
                let load = Arc::clone(self);
                std::thread::spawn(move || load.pace(start, rate));
            }
        }

        let mut interrupted = std::pin::pin!(interrupted);
        let mut tick = tokio::time::interval(TICK);
        let end = loop {
            tokio::select! {
                () = self.done.notified() => break End::Complete,
                () = &mut interrupted => break End::Interrupted,
                _ = tick.tick() => {
                    let now = Instant::now();
                    progress(&self.record.lock(), now);
                    if self.is_over(now) {
                        break End::DrainTimeout;
                    }
                }
            }
        };
        self.finish(end, streams).await;
        end
    }

    /// Whether the time to wait for answers is over.
    fn is_over(&self, now: Instant) -> bool {
        let mut issuing = self.issuing.lock();
        let until = self.window.get().and_then(|window| window.until);
        // A server that answers nothing gives a closed loop no occasion to see
        // that its time is over.
        if issuing.stopped.is_none() && until.is_some_and(|until| now >= until) {
            issuing.stopped = Some(now);
        }
        let over = |stopped| now.saturating_duration_since(stopped) > self.plan.drain;
        issuing.stopped.is_some_and(over)
    }

    /// Counts what is still outstanding and ends the streams.
    async fn finish(&self, end: End, streams: Vec<JoinHandle<()>>) {
        self.stop.store(true, Ordering::Relaxed);
        self.issuing.lock().stopped.get_or_insert_with(Instant::now);
        let why = match end {
            End::Complete | End::DrainTimeout => "NO_ANSWER",
            End::Interrupted => "INTERRUPTED",
        };
        for queue in &self.queues {
            // Taken before the stream is closed: a server that ends its side at
            // once would have them counted as the stream's loss.
            let (lost, unsent) = queue.give_up();
            queue.close();
            self.count_unanswered(&lost, &Reason::own(Unanswered::Lost, why));
            self.count_unanswered(&unsent, &Reason::own(Unanswered::Unsent, why));
        }
        let aborts: Vec<_> = streams.iter().map(JoinHandle::abort_handle).collect();
        // So that the server sees streams that end, not ones that break off.
        if end == End::Complete {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, futures::future::join_all(streams)).await;
        }
        for stream in aborts {
            stream.abort();
        }
    }
}
