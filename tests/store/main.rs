//! The store's promises, each with the test that shows it.

#[path = "../support/seaweedfs.rs"]
mod seaweedfs;

mod aliases;
mod damage;
mod deletion;
mod disk;
mod durability;
mod formats;
mod ids;
mod model;
mod racing;
mod replicas;
mod resident;
mod sample;
mod transfer;
