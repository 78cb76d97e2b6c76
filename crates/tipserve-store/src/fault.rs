//! Fail points: places between two steps of a write where a test can make the
//! process die.
//!
//! They are in every build, so that the library that is tested is the one that
//! serves, compiled once. A server cannot reach them: they read the environment
//! only after `fail::FailScenario::setup()`, which tests alone call. Unset, one
//! costs a look into an empty map, beside a write that waits for the disk.

/// Every fail point of the store, for tests that visit them all. To die at one,
/// `FAILPOINTS="store::version::encoded=return"` in the environment of a
/// test that calls `fail::FailScenario::setup()`.
pub const FAIL_POINTS: &[&str] = &[
    "store::version::encoded",
    "store::version::tensors",
    "store::version::manifest",
    "store::version::confirmed",
    "store::version::moved",
    "store::state::before",
    "store::state::written",
    "store::delete::before_bytes",
    "store::delete::half",
    "store::sweep::noticed",
    "store::sweep::half",
    "store::bury::written",
    "store::bury::half",
];

/// Dies here if the fail point of that name is set to: at once, with exit code
/// 86, without unwinding or flushing anything.
macro_rules! die_at {
    ($name:literal) => {{
        (|| {
            fail::fail_point!($name, |_| $crate::fault::die());
        })();
    }};
}

pub(crate) use die_at;

/// Ends the process as a crash would.
pub(crate) fn die() {
    // SAFETY: _exit takes any status and touches no memory of ours.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(86)
    }
}
