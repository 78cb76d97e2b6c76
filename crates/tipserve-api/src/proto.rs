//! The generated API types (`proto/tipserve/v1`, `proto/inference`).

#![allow(missing_docs, clippy::all, clippy::pedantic)]

/// The server's own API, package `tipserve.v1`.
pub mod v1 {
    tonic::include_proto!("tipserve.v1");
}

/// `inference`: the Open Inference Protocol.
pub mod inference {
    tonic::include_proto!("inference");
}

/// The descriptors of every file, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
