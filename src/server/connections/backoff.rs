//! What a listener does after a failed accept: it waits, longer each time, and
//! logs one line a minute.

use std::{
    io,
    time::{Duration, Instant},
};

/// Waits after a failed accept: doubled from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How often the same line is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Lets the same line through at most once a minute, with how often it came.
#[derive(Debug, Default)]
pub(in crate::server) struct LogThrottle {
    logged: Option<Instant>,
    times: u64,
}

impl LogThrottle {
    /// Counts an occurrence. If a line is due, how many it stands for.
    pub fn count(&mut self) -> Option<u64> {
        self.times += 1;
        if self
            .logged
            .is_some_and(|logged| logged.elapsed() < LOG_EVERY)
        {
            return None;
        }
        self.logged = Some(Instant::now());
        Some(std::mem::take(&mut self.times))
    }
}

/// Waits after failed accepts, longer each time.
#[derive(Debug)]
pub(in crate::server) struct Backoff {
    pause: Duration,
    log: LogThrottle,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            pause: PAUSES.0,
            log: LogThrottle::default(),
        }
    }
}

impl Backoff {
    /// Waits after a failed accept, and doubles the pause.
    pub async fn wait(&mut self, error: &io::Error) {
        if let Some(times) = self.log.count() {
            tracing::error!(%error, times, "cannot accept connections; trying again");
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSES.1);
    }

    /// Starts again with the shortest pause, after an accept that succeeded.
    pub fn reset(&mut self) {
        self.pause = PAUSES.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_logged_once_a_minute() {
        let mut throttle = LogThrottle::default();
        assert_eq!(throttle.count(), Some(1));
        assert_eq!(throttle.count(), None);
        throttle.logged = Some(Instant::now() - LOG_EVERY);
        assert_eq!(throttle.count(), Some(2));
    }
}
