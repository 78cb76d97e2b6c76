//! tipserve: a gRPC model server that turns a few labelled pictures into a
//! served image classifier.
//!
//! This package is the server: the services ([`rpc`]), who may call them
//! ([`auth`]), how versions are made and found ([`catalog`]), its settings
//! ([`config`]) and what can be seen of it ([`telemetry`]). [`server::Server`]
//! is a whole server, started and stopped as one; [`cli::main`] is the binary.
//! The rest of the house is in crates of its own, which `docs/architecture.md`
//! draws: none of them knows this one.

pub mod auth;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod rpc;
mod serve;
pub mod server;
pub mod telemetry;
