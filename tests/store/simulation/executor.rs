//! A single-threaded executor whose every choice is drawn from a seed: which
//! task runs, which request to the storage is served next, which fails, when
//! the clock moves.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Wake, Waker},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tipserve_store::Environment;
use tokio::sync::oneshot;

/// How a request to the storage goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Served,
    /// It fails, and nothing has happened.
    Failed,
    /// It is done, and its answer is lost.
    AnswerLost,
}

/// How often things go wrong, in thousandths of all requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub failed: u32,
    pub answer_lost: u32,
    /// The client is suspended before the request: up to three days.
    pub suspended: u32,
}

struct Request {
    not_before: Duration,
    faulty: bool,
    grant: oneshot::Sender<Verdict>,
}

struct Inner {
    rng: StdRng,
    now: Duration,
    faults: Faults,
    tasks: BTreeMap<usize, BoxFuture<'static, ()>>,
    next_task: usize,
    requests: Vec<Request>,
    timers: Vec<(Duration, oneshot::Sender<()>)>,
    /// What happened, to compare two runs of one seed.
    trace: Vec<String>,
    event: u64,
}

/// The simulated world. Clones share it.
#[derive(Clone)]
pub struct Sim {
    inner: Arc<Mutex<Inner>>,
    ready: Arc<Mutex<Vec<usize>>>,
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sim")
    }
}

struct TaskWaker {
    task: usize,
    ready: Arc<Mutex<Vec<usize>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if !ready.contains(&self.task) {
            ready.push(self.task);
        }
    }
}

impl Sim {
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                rng: StdRng::seed_from_u64(seed),
                now: Duration::from_secs(1),
                faults,
                tasks: BTreeMap::new(),
                next_task: 0,
                requests: Vec::new(),
                timers: Vec::new(),
                trace: Vec::new(),
                event: 0,
            })),
            ready: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn draw<T>(&self, of: impl FnOnce(&mut StdRng) -> T) -> T {
        of(&mut self.lock().rng)
    }

    pub fn stop_faults(&self) {
        self.lock().faults = Faults::default();
    }

    /// The next moment of the history.
    pub fn moment(&self) -> u64 {
        let mut inner = self.lock();
        inner.event += 1;
        inner.event
    }

    pub fn note(&self, text: impl FnOnce() -> String) {
        let text = text();
        let mut inner = self.lock();
        let line = format!("{:>12.3} {text}", inner.now.as_secs_f64());
        inner.trace.push(line);
    }

    pub fn trace(&self) -> Vec<String> {
        self.lock().trace.clone()
    }

    /// The time by the storage's clock.
    pub fn storage_time(&self) -> DateTime<Utc> {
        time_at(self.lock().now)
    }

    pub fn spawn(&self, task: BoxFuture<'static, ()>) {
        let mut inner = self.lock();
        let number = inner.next_task;
        inner.next_task += 1;
        inner.tasks.insert(number, task);
        drop(inner);
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.push(number);
    }

    /// Waits until the scheduler lets a request happen. Of a pair, only the
    /// first can fail. A `wakeful` client is never suspended.
    pub async fn turn(&self, faulty: bool, wakeful: bool) -> Verdict {
        let (grant, granted) = oneshot::channel();
        {
            let mut inner = self.lock();
            let suspended = if wakeful { 0 } else { inner.faults.suspended };
            let mut not_before = inner.now;
            if inner.rng.random_range(0..1000) < suspended {
                not_before += Duration::from_secs(inner.rng.random_range(1..3 * 86_400));
            }
            inner.requests.push(Request {
                not_before,
                faulty,
                grant,
            });
        }
        granted.await.unwrap_or(Verdict::Failed)
    }

    /// Runs until every task has ended.
    pub fn run(&self) {
        for _ in 0..2_000_000 {
            if let Some(task) = self.pick_ready() {
                self.poll(task);
            } else if !self.advance() {
                let left = self.lock().tasks.len();
                assert_eq!(left, 0, "{left} tasks wait for nothing");
                return;
            }
        }
        panic!("it does not end");
    }

    fn pick_ready(&self) -> Option<usize> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.is_empty() {
            return None;
        }
        let at = self.draw(|rng| rng.random_range(0..ready.len()));
        Some(ready.swap_remove(at))
    }

    fn poll(&self, number: usize) {
        let Some(mut task) = self.lock().tasks.remove(&number) else {
            return; // has ended
        };
        let waker = Waker::from(Arc::new(TaskWaker {
            task: number,
            ready: Arc::clone(&self.ready),
        }));
        let polled = Pin::new(&mut task).poll(&mut Context::from_waker(&waker));
        if polled.is_pending() {
            self.lock().tasks.insert(number, task);
        }
    }

    /// Serves a request or fires a timer, moving the clock if need be. Returns
    /// whether there was any.
    fn advance(&self) -> bool {
        let mut inner = self.lock();
        let inner = &mut *inner;
        inner.now += Duration::from_millis(inner.rng.random_range(0..20));
        loop {
            let now = inner.now;
            let due: Vec<usize> = (0..inner.timers.len())
                .filter(|i| inner.timers[*i].0 <= now)
                .collect();
            let open: Vec<usize> = (0..inner.requests.len())
                .filter(|i| inner.requests[*i].not_before <= now)
                .collect();
            if !due.is_empty() && (open.is_empty() || inner.rng.random_bool(0.3)) {
                let at = due[inner.rng.random_range(0..due.len())];
                let (_, fire) = inner.timers.swap_remove(at);
                let _ = fire.send(()); // nobody may wait any more
                return true;
            }
            if !open.is_empty() {
                let at = open[inner.rng.random_range(0..open.len())];
                let request = inner.requests.swap_remove(at);
                let Faults {
                    failed,
                    answer_lost,
                    ..
                } = inner.faults;
                let verdict = match inner.rng.random_range(0..1000) {
                    n if request.faulty && n < failed => Verdict::Failed,
                    n if request.faulty && n < failed + answer_lost => Verdict::AnswerLost,
                    _ => Verdict::Served,
                };
                let _ = request.grant.send(verdict); // nor here
                return true;
            }
            let timers = inner.timers.iter().map(|(at, _)| *at);
            let requests = inner.requests.iter().map(|r| r.not_before);
            let Some(next) = timers.chain(requests).min() else {
                return false;
            };
            inner.now = next;
        }
    }
}

fn time_at(now: Duration) -> DateTime<Utc> {
    let start = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
    start + TimeDelta::from_std(now).expect("within some years")
}

/// One client's clock and randomness.
#[derive(Debug)]
pub struct ClientEnvironment {
    pub sim: Sim,
    /// How far its time of day is off.
    pub skew: TimeDelta,
}

impl Environment for ClientEnvironment {
    fn now(&self) -> Duration {
        self.sim.lock().now
    }

    fn time_of_day(&self) -> DateTime<Utc> {
        self.sim.storage_time() + self.skew
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (fire, fired) = oneshot::channel();
        let mut inner = self.sim.lock();
        let at = inner.now + duration;
        inner.timers.push((at, fire));
        Box::pin(async move {
            let _ = fired.await;
        })
    }

    fn random(&self) -> u128 {
        self.sim.draw(rand::Rng::random)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.sim.spawn(task);
    }
}
