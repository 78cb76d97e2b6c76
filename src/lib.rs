//! tipserve: a gRPC model server that turns a few labelled pictures into a
//! served image classifier.
//!
//! The rooms, and what each may know, are drawn in `docs/architecture.md`.
//! Imports run one way: `rpc` → `engine`, `store` → `tip`, `clip`; `rpc` →
//! `guard`.

#![warn(missing_docs)]

pub mod catalog;
pub mod cli;
pub mod clip;
pub mod config;
pub mod engine;
pub mod guard;
pub mod proto;
pub mod rpc;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod tip;
