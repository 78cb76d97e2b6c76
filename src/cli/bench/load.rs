//! The load: issues items, closed loop or open, and sees every one to its end.

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
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, mpsc},
    task::JoinHandle,
};
use tonic::{Status, Streaming};

use super::{
    lane::{Lane, Requests},
    options::{Arrivals, Length},
    record::{Due, Miss, Reason, Record, Window, lost_connection},
    schedule::{Draw, Draws, Poisson},
    wire::{self, StreamResponse, UnaryRequest},
};
use crate::{cli::credentials::Wire, proto::v1::ClassifyStreamConfig};

/// Streams that are opened at the same time.
const OPENING: usize = 64;

/// How long no stream need open before the load begins regardless.
const SILENCE: Duration = Duration::from_secs(3);

/// How long streams may take to end once everything is answered.
const FAREWELL: Duration = Duration::from_secs(1);

/// Longest sleep of the thread that paces an open loop: it soon sees that it
/// is to stop.
const NAP: Duration = Duration::from_millis(100);

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

#[derive(Debug)]
struct Issuing {
    draws: Draws,
    /// Items that are still to be counted, where they are numbered.
    left: Option<u64>,
    /// Issued, the warm-up's items included.
    issued: u64,
    /// Issued and not yet ended.
    outstanding: usize,
    /// Since when no more items are issued.
    stopped: Option<Instant>,
    /// Which targets counted items went to.
    used: Vec<bool>,
}

impl Issuing {
    /// Whether everything has ended.
    fn is_done(&self) -> bool {
        self.stopped.is_some() && self.outstanding == 0
    }
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

    /// Opens all streams; the first failure, where one cannot be opened. A
    /// server may say nothing before it has an answer: then the load begins,
    /// and shows.
    pub async fn open(self: &Arc<Self>) -> Result<Vec<JoinHandle<()>>, Status> {
        let count = if self.plan.unary {
            0
        } else {
            self.targets.len()
        };
        let opening = Arc::new(Semaphore::new(OPENING));
        let (opened, mut results) = mpsc::unbounded_channel();
        let streams: Vec<_> = self
            .targets
            .iter()
            .zip(&self.lanes)
            .take(count)
            .map(|(target, lane)| {
                tokio::spawn(Arc::clone(self).stream(
                    target.clone(),
                    Arc::clone(lane),
                    Arc::clone(&opening),
                    opened.clone(),
                ))
            })
            .collect();
        for _ in 0..count {
            match tokio::time::timeout(SILENCE, results.recv()).await {
                Ok(Some(Err(status))) => {
                    for stream in &streams {
                        stream.abort();
                    }
                    return Err(status);
                }
                Ok(Some(Ok(()))) => {}
                Ok(None) | Err(_) => break,
            }
        }
        // Those that were not begun yet wait for none of the others.
        opening.close();
        Ok(streams)
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

    /// `ended` items have come to their end. A closed loop issues as many.
    fn settle(self: &Arc<Self>, ended: usize) {
        let again = match self.plan.arrivals {
            Arrivals::Closed { .. } => ended,
            Arrivals::Open { .. } => 0,
        };
        self.issue(ended, again, Instant::now());
    }

    /// Ends some items and issues others, due at `at`.
    fn issue(self: &Arc<Self>, ended: usize, wanted: usize, at: Instant) {
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
    fn pace(self: Arc<Self>, start: Instant, rate: f64) {
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

    /// Opens a stream and takes its answers until it ends.
    async fn stream(
        self: Arc<Self>,
        target: Target,
        lane: Arc<Lane>,
        turn: Arc<Semaphore>,
        opened: mpsc::UnboundedSender<Result<(), Status>>,
    ) {
        let permit = turn.acquire().await.ok();
        let requests = Requests::new(Arc::clone(&lane), &self, target.config, self.plan.pack);
        let answers = wire::open(target.channel, requests).await;
        drop(permit);
        let why = match answers {
            Ok(answers) => {
                // Nobody listens once the load has begun.
                let _ = opened.send(Ok(()));
                drop(opened);
                self.receive(&lane, answers).await
            }
            Err(status) => {
                let why = Reason::of_stream(&status);
                let _ = opened.send(Err(status));
                why
            }
        };
        self.end(&lane, &why);
    }

    /// Takes a stream's answers until it ends; why it did.
    async fn receive(
        self: &Arc<Self>,
        lane: &Lane,
        mut answers: Streaming<StreamResponse>,
    ) -> Reason {
        loop {
            match answers.message().await {
                Ok(Some(message)) => self.take(lane, &message),
                Ok(None) => return Reason::own(Miss::Lost, "STREAM_ENDED"),
                Err(status) => return Reason::of_stream(&status),
            }
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

    fn take(self: &Arc<Self>, lane: &Lane, message: &StreamResponse) {
        let now = Instant::now();
        let items = lane.answered(message.results.iter().map(|result| result.sequence));
        let mut ended = 0;
        {
            let mut record = self.record.lock();
            for (item, result) in items.into_iter().zip(&message.results) {
                let Some(item) = item else {
                    record.unexpected += 1;
                    continue;
                };
                ended += 1;
                match (&result.classification, &result.error) {
                    (Some(answer), None) => record.answered(item, now, answer.timings.as_ref()),
                    (_, Some(error)) => record.missed(item, &Reason::of_item(error)),
                    (None, None) => record.missed(item, &Reason::own(Miss::Failed, "EMPTY_ANSWER")),
                }
            }
        }
        self.settle(ended);
    }

    /// A unary call.
    async fn call(self: Arc<Self>, target: usize, item: Due) {
        let (Some(lane), Some(Target { channel, config })) =
            (self.lanes.get(target), self.targets.get(target))
        else {
            return;
        };
        let now = Instant::now();
        let Some(left) = self.time_left(item, now) else {
            return self.note_late(&[item]);
        };
        let mut request = tonic::Request::new(UnaryRequest {
            cache: config.cache.clone(),
            input: self.input(item),
            options: config.options,
            priority: config.priority,
        });
        if let Some(left) = left {
            request.set_timeout(left);
        }
        let sequence = lane.sent(item);
        self.note_sent(&[item], now);
        let answer = wire::classify(channel.clone(), request).await;
        let now = Instant::now();
        // Already counted where its connection broke or the load has ended.
        if lane.answered(std::iter::once(sequence)) != [Some(item)] {
            return;
        }
        match answer {
            Ok(answer) => {
                let timings = answer.classification.and_then(|it| it.timings);
                self.record.lock().answered(item, now, timings.as_ref());
            }
            Err(status) => {
                let reason = Reason::of_call(&status);
                self.record.lock().missed(item, &reason);
                if lost_connection(&status) && reason.miss == Miss::Lost {
                    self.end(lane, &reason);
                }
            }
        }
        self.settle(1);
    }
}
