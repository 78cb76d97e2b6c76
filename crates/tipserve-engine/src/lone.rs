//! A batch that runs alone is encoded by several cores.
//!
//! Each worker has a core, which gives the most pictures a second
//! (`settings.rs`). A picture that finds the machine idle would then wait for
//! one core while the others sleep, so such a batch goes to a [`Team`]: a
//! thread with more torch threads. A trial before an encoder's first picture
//! decides whether, and with how many: the operators of a small batch do not
//! always gain from more threads.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use crossbeam_channel::{Sender, bounded, unbounded};
use parking_lot::Mutex;

/// A team must take less than this share of the time of a worker's own threads.
const WORTH: f64 = 0.9;
/// No further size of team is tried after this long.
const PATIENCE: Duration = Duration::from_secs(1);
/// Times that each size of team is timed.
const TIMED: usize = 5;

type Call = Box<dyn FnOnce() + Send>;

/// A thread for one batch at a time, which computes with several torch threads.
///
/// It is one thread for all engines of a process: each thread that has
/// computed with n threads keeps n − 1 others for itself.
#[derive(Debug)]
pub(crate) struct Team {
    calls: Mutex<Sender<Call>>,
    /// The most threads it may have.
    most: usize,
    /// torch's threads of those who call.
    callers: usize,
    /// How many it has now.
    threads: AtomicUsize,
}

impl Team {
    /// A team of up to `most` threads, for callers with `callers` of their own;
    /// none where it would have no more than they have, or cannot be started.
    pub fn start(most: usize, callers: usize) -> Option<Team> {
        if most <= callers {
            return None;
        }
        let (calls, taken) = unbounded::<Call>();
        // TorchScript wants threads that live long (pytorch#24237).
        std::thread::Builder::new()
            .name("team".to_owned())
            .spawn(move || taken.into_iter().for_each(|call| call()))
            .inspect_err(|error| tracing::warn!(%error, "no thread for batches that run alone"))
            .ok()?;
        Some(Team {
            calls: Mutex::new(calls),
            most,
            callers,
            threads: AtomicUsize::new(0),
        })
    }

    /// What `work` gives, computed with so many torch threads; none if the team
    /// has another batch.
    pub fn run<T: Send + 'static>(
        &self,
        threads: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let calls = self.calls.try_lock()?;
        if self.threads.swap(threads, Ordering::Relaxed) != threads {
            on(&calls, move || set_torch_threads(threads))?;
            // Other threads' first use of torch must not find the team's number.
            set_torch_threads(self.callers);
        }
        on(&calls, work)
    }

    /// Times `run` with the callers' threads and with more, and chooses.
    ///
    /// Both are timed in turns, and the quickest of each counts: what else the
    /// machine does for a moment must not decide for good.
    pub fn trial<E: Send + 'static>(
        &self,
        run: impl Fn() -> Result<(), E> + Clone + Send + 'static,
    ) -> Option<Lone> {
        let timed = |threads: usize| {
            let run = run.clone();
            let seconds = self.run(threads, move || {
                let started = Instant::now();
                run().ok().map(|()| started.elapsed().as_secs_f64())
            });
            seconds.flatten()
        };
        let begun = Instant::now();
        let mut best: Option<Lone> = None;
        // Fewer may be quicker: two threads of one core help each other little.
        let sizes = std::iter::successors(Some(self.most), |size| Some(size / 2));
        for threads in sizes.take_while(|size| *size > self.callers) {
            // The first starts the threads.
            timed(threads)?;
            let (mut own, mut team) = (f64::INFINITY, f64::INFINITY);
            for turn in 0..TIMED {
                if turn > 0 && begun.elapsed() > PATIENCE {
                    break;
                }
                own = own.min(timed(self.callers)?);
                team = team.min(timed(threads)?);
            }
            let times = own / team;
            tracing::debug!(threads, times, "tried for batches that run alone");
            if best.is_none_or(|best| times > best.times) {
                best = Some(Lone { threads, times });
            }
            if begun.elapsed() > PATIENCE {
                break;
            }
        }
        let best = best.filter(|best| best.times * WORTH > 1.0)?;
        // So that no batch has to.
        self.run(best.threads, || ())?;
        Some(best)
    }
}

/// How an engine's batches run that run alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lone {
    /// torch's threads.
    pub threads: usize,
    /// How many times as fast as on a worker's own threads.
    pub times: f64,
}

/// What `work` gives on the thread that takes these calls.
fn on<T: Send + 'static>(
    calls: &Sender<Call>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, result) = bounded(1);
    let call = move || {
        let _ = done.send(work());
    };
    calls.send(Box::new(call)).ok()?;
    result.recv().ok()
}

/// Gives this thread so many torch threads, whatever others are given.
pub(crate) fn set_torch_threads(threads: usize) {
    // A thread's first use of torch sets the number that was set last, by whatever thread.
    let _ = tch::get_num_threads();
    tch::set_num_threads(i32::try_from(threads).unwrap_or(1));
}
