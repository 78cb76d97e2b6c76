//! What was freed goes back to the system.
//!
//! Allocators keep what batches of many sizes leave free, so that the next
//! batch has it without asking the system: a process with the demo's bundle
//! stays at 900 MB after a load without which it needs 500 MB
//! (`docs/performance.md`).

use std::time::{Duration, Instant};

use crate::telemetry::resident_bytes as resident;
use tipserve_clip::tensor_memory;

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
    /// Of a process that is ready and has done nothing yet. Gives back what
    /// loading and the warm-up took.
    pub fn at_start() -> Memory {
        give_back();
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

fn give_back() {
    tensor_memory::give_back();
    // SAFETY: glibc's own call, for any thread at any time; it touches what is
    // free alone. Other allocators see to it themselves, or not at all.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}

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
