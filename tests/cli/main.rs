//! The commands through the client's own binary, against a server in this
//! process that answers logically but knows no pictures (`fake`).

// A test stops where something is not as it says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod add;
mod analyze;
mod caches;
mod classify;
mod create;
mod demo;
mod errors;
mod evaluate;
mod fake;
mod finetune;
mod folders;
mod help;
mod independence;
mod list_pictures;
mod lists;
mod npz;
mod npz_refused;
mod peer;
mod run;
mod tables;
mod transfer;
mod versions;

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_tipserve-client");
