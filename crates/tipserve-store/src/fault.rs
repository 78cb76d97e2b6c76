//! Fail points: places between two steps of a write where a test can make the
//! process die, with the feature `failpoints`. Without it they compile to
//! nothing.

/// Every fail point of the store, for tests that visit them all. To die at one,
/// `FAILPOINTS="store::version::encoded=return"` in the environment of a
/// program that calls `fail::FailScenario::setup()`.
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
        #[cfg(feature = "failpoints")]
        (|| {
            fail::fail_point!($name, |_| $crate::fault::die());
        })();
    }};
}

pub(crate) use die_at;

/// Ends the process as a crash would.
#[cfg(feature = "failpoints")]
pub(crate) fn die() {
    // SAFETY: _exit takes any status and touches no memory of ours.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(86)
    }
}
