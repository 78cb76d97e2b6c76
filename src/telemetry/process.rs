//! The process itself: its metrics and its memory, on Linux. Elsewhere nothing
//! is known of it: what reads it on macOS can be compiled only on a Mac.

#[cfg(target_os = "linux")]
mod here {
    use metrics_process::{Collector, collector};

    pub fn describe() {
        Collector::default().describe();
    }

    pub fn collect() {
        Collector::default().collect();
    }

    pub fn resident_bytes() -> u64 {
        collector::collect().resident_memory_bytes.unwrap_or(0)
    }
}

#[cfg(not(target_os = "linux"))]
mod here {
    pub fn describe() {}

    pub fn collect() {}

    pub fn resident_bytes() -> u64 {
        0
    }
}

/// Resident memory; 0 if it cannot be known.
pub fn resident_bytes() -> u64 {
    here::resident_bytes()
}

/// Names the metrics of the process.
pub(super) fn describe() {
    here::describe();
}

/// Brings them up to date.
pub(super) fn collect() {
    here::collect();
}
