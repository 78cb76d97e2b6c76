//! The load generator through its own binary, against servers in this process:
//! one that answers logically (`fake`), one that does what it is told
//! (`scripted`).

// A test stops where something is not as it says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[expect(dead_code, reason = "the tests of the commands use all of it")]
#[path = "../fake/mod.rs"]
mod fake;
mod load;
#[expect(dead_code, reason = "the tests of the commands use all of it")]
#[path = "../run.rs"]
mod run;
mod scripted;

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_tipserve-bench");
