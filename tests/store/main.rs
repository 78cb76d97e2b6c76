//! The store's promises, each with the test that shows it.

// A test stops where something is not as it says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../support/seaweedfs.rs"]
mod seaweedfs;

mod aliases;
mod damage;
mod deletion;
mod disk;
mod durability;
mod faulty;
mod formats;
mod ids;
mod kept;
mod model;
mod numbers;
mod pictures;
mod racing;
mod replicas;
mod requests;
mod resident;
mod runs;
mod sample;
mod simulation;
mod transfer;
