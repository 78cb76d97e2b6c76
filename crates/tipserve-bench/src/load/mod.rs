//! The load: issues items, closed loop or open, and sees every one to its end.

mod call;
mod issue;
mod stream;

use std::{
    future::Future,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::{runtime::Handle, sync::Notify, task::JoinHandle};

use super::{
    lane::Lane,
    options::{Arrivals, Length},
    record::{Due, Miss, Reason, Record, Window},
    schedule::Draws,
};
use issue::Issuing;
use tipserve_api::v1::ClassifyStreamConfig;
use tipserve_cli::credentials::Wire;

/// How long streams may take to end once everything is answered.
const FAREWELL: Duration = Duration::from_secs(1);

/// How often progress is shown and the end is looked for.
const TICK: Duration = Duration::from_millis(200);

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// When items are sent.
    pub arrivals: Arrivals,
    /// When the measurement ends.
    pub length: Length,
    /// Load before it begins.
    pub warmup: Duration,
    /// How long outstanding answers are waited for.
    pub drain: Duration,
    /// After how long an answer is of no use.
    pub deadline: Option<Duration>,
    /// Of arrivals and draws.
    pub seed: u64,
    /// Most items of one message.
    pub pack: usize,
    /// A call for each item, instead of streams.
    pub unary: bool,
}

/// Where items go: a stream, or a cache by unary calls.
#[derive(Clone, Debug)]
pub struct Target {
    /// The connection.
    pub channel: Wire,
    /// What is asked for.
    pub config: ClassifyStreamConfig,
}

/// How a load ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every item that was issued has ended.
    Complete,
    /// Answers were still outstanding when the time to wait for them was over.
    Impatient,
    /// By the user.
    Interrupted,
}

/// A load under way.
#[derive(Debug)]
pub struct Load {
    plan: Plan,
    targets: Vec<Target>,
    lanes: Vec<Arc<Lane>>,
    inputs: Vec<Bytes>,
    /// Set when the clock starts.
    window: OnceLock<Window>,
    issuing: Mutex<Issuing>,
    record: Mutex<Record>,
    stop: AtomicBool,
    done: Notify,
    runtime: Handle,
}

impl Load {
    /// Over at least one target, with at least one input.
    pub fn new(plan: Plan, targets: Vec<Target>, inputs: Vec<Bytes>) -> Arc<Self> {
        let unset = Window {
            from: Instant::now(),
            until: None,
        };
        Arc::new(Self {
            lanes: targets.iter().map(|_| Arc::default()).collect(),
            window: OnceLock::new(),
            issuing: Mutex::new(Issuing {
                draws: Draws::new(plan.seed, targets.len(), inputs.len()),
                left: match plan.length {
                    Length::Count(count) => Some(count),
                    Length::Duration(_) => None,
                },
                issued: 0,
                outstanding: 0,
                stopped: None,
                used: vec![false; targets.len()],
            }),
            record: Mutex::new(Record::new(unset, plan.deadline)),
            stop: AtomicBool::new(false),
            done: Notify::new(),
            runtime: Handle::current(),
            plan,
            targets,
            inputs,
        })
    }

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
                        break End::Impatient;
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
            End::Complete | End::Impatient => "NO_ANSWER",
            End::Interrupted => "INTERRUPTED",
        };
        for lane in &self.lanes {
            // Taken before the stream is closed: a server that ends its side at
            // once would have them counted as the stream's loss.
            let (lost, unsent) = lane.give_up();
            lane.close();
            self.count_missed(&lost, &Reason::own(Miss::Lost, why));
            self.count_missed(&unsent, &Reason::own(Miss::Unsent, why));
        }
        let aborts: Vec<_> = streams.iter().map(JoinHandle::abort_handle).collect();
        // So that the server sees streams that end, not ones that break off.
        if end == End::Complete {
            let _ = tokio::time::timeout(FAREWELL, futures::future::join_all(streams)).await;
        }
        for stream in aborts {
            stream.abort();
        }
    }

    /// The tally.
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock()
    }

    /// How many items were issued, the warm-up's included.
    pub fn issued(&self) -> u64 {
        self.issuing.lock().issued
    }

    /// How many targets counted items went to.
    pub fn targets_used(&self) -> usize {
        self.issuing.lock().used.iter().filter(|it| **it).count()
    }

    /// The configurations of the targets that counted items went to.
    pub fn caches_used(&self) -> usize {
        let issuing = self.issuing.lock();
        let used = self.targets.iter().zip(&issuing.used);
        used.filter(|(_, used)| **used)
            .map(|(target, _)| target.config.cache.as_str())
            .collect::<std::collections::HashSet<_>>()
            .len()
    }

    /// An item's input, encoded.
    pub fn input(&self, item: Due) -> Bytes {
        self.inputs.get(item.input).cloned().unwrap_or_default()
    }

    /// What is left of an item's deadline, if it has one; none where it is
    /// over.
    pub fn time_left(&self, item: Due, now: Instant) -> Option<Option<Duration>> {
        let Some(deadline) = self.plan.deadline else {
            return Some(None);
        };
        let left = deadline.checked_sub(now.saturating_duration_since(item.at))?;
        (!left.is_zero()).then_some(Some(left))
    }

    /// Items were handed to a connection.
    pub fn note_sent(&self, items: &[Due], now: Instant) {
        self.record.lock().sent(items, now);
    }

    /// Items' deadlines passed before a connection took them.
    pub fn note_late(self: &Arc<Self>, items: &[Due]) {
        if !items.is_empty() {
            self.count_missed(items, &Reason::own(Miss::Unsent, "DEADLINE_BEFORE_SENT"));
            self.settle(items.len());
        }
    }

    fn count_missed(&self, items: &[Due], reason: &Reason) {
        let mut record = self.record.lock();
        for item in items {
            record.missed(*item, reason);
        }
    }

    /// A stream, or a unary target's connection, has ended.
    fn end(self: &Arc<Self>, lane: &Lane, why: &Reason) {
        let (lost, unsent) = lane.give_up();
        self.count_missed(&lost, why);
        let unsent_why = Reason {
            miss: Miss::Unsent,
            ..why.clone()
        };
        self.count_missed(&unsent, &unsent_why);
        self.settle(lost.len() + unsent.len());
    }
}
