//! What was freed goes back to the system.
//!
//! Batches of many sizes leave holes in the allocator's arenas, which it keeps:
//! on two cores a process with ViT-B/32 grew from 560 MB to 750 MB over some
//! thousands of pictures, and stayed there (`docs/performance.md`).

use std::time::{Duration, Instant};

use crate::telemetry::resident_bytes as resident;

/// Growth over the last rest that is given back at rest, a 32nd: less than
/// that the next picture would take again, page by page.
const AT_REST: u64 = 32;
/// The same under load, a quarter, and how often at most: giving back holds
/// the allocator up for some 20 ms.
const UNDER_LOAD: u64 = 4;
const PAUSE: Duration = Duration::from_secs(30);

/// When to give memory back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// Resident bytes when the process was last at rest, after giving back.
    rest: u64,
    given_back: Instant,
}

impl Memory {
    /// Of a process that is ready and has done nothing yet.
    pub fn at_start() -> Memory {
        Memory {
            rest: resident(),
            given_back: Instant::now(),
        }
    }

    /// Whether to give memory back to the system while `resident` bytes are in
    /// use.
    fn is_due(&self, resident: u64, resting: bool, now: Instant) -> bool {
        let grown = resident.saturating_sub(self.rest);
        if resting {
            grown > self.rest / AT_REST
        } else {
            grown > self.rest / UNDER_LOAD && now.duration_since(self.given_back) >= PAUSE
        }
    }

    /// Gives back what is free, if it is worth it. Blocks for some
    /// milliseconds.
    pub fn settle(mut self, resting: bool) -> Memory {
        let now = Instant::now();
        let before = resident();
        if self.is_due(before, resting, now) {
            give_back();
            let after = resident();
            tracing::debug!(before, after, resting, "gave freed memory back");
            self.given_back = now;
            if resting {
                self.rest = after;
            }
        }
        self
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back() {
    // SAFETY: glibc's own call, for any thread at any time; it touches what is
    // free alone.
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators see to it themselves, or not at all.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_rest_a_little_is_given_back_and_under_load_much_and_rarely() {
        let start = Instant::now();
        let memory = Memory {
            rest: 1600,
            given_back: start,
        };
        let soon = start + Duration::from_secs(5);
        let late = start + PAUSE;
        assert!(!memory.is_due(1650, true, soon));
        assert!(memory.is_due(1651, true, soon));
        assert!(!memory.is_due(2001, false, soon));
        assert!(!memory.is_due(2000, false, late));
        assert!(memory.is_due(2001, false, late));
        assert!(!memory.is_due(900, true, late), "it has become smaller");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_is_measured() {
        assert!(resident() > 1 << 20);
        assert!(Memory::at_start().settle(true).rest > 1 << 20);
    }
}
