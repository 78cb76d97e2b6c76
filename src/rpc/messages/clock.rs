//! How long a sender may take for a message.

use std::{future::Future as _, pin::Pin, task::Context as Task, time::Duration};

use tokio::time::{Instant, Sleep};

/// A message may take a second longer for each of these many bytes: slow
/// networks are served, senders that trickle are not.
pub(super) const SLOWEST_BYTES_PER_SECOND: usize = 16 << 10;

/// How much longer a message may take for the bytes that have arrived.
pub(super) fn slack(received: usize) -> Duration {
    Duration::from_secs((received / SLOWEST_BYTES_PER_SECOND) as u64)
}

/// How long a sender has let us wait for its message.
pub(super) struct Clock {
    patience: Duration,
    waited: Duration,
    since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    pub fn new(patience: Duration) -> Clock {
        Clock {
            patience,
            waited: Duration::ZERO,
            since: None,
            alarm: None,
        }
    }

    /// Called while nothing arrives: whether the sender's time is up.
    pub fn is_over(&mut self, received: usize, task: &mut Task<'_>) -> bool {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let end = since + (self.patience + slack(received)).saturating_sub(self.waited);
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        if alarm.deadline() != end {
            alarm.as_mut().reset(end);
        }
        alarm.as_mut().poll(task).is_ready()
    }

    /// Stops counting: some of the message has arrived.
    pub fn stop(&mut self) {
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
    }

    /// Begins a new message, with all its time.
    pub fn start_again(&mut self) {
        self.since = None;
        self.waited = Duration::ZERO;
    }
}
