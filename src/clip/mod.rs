//! CLIP: the bundle, its encoders, preprocessing, tokenising, prompts.
//!
//! Knows nothing of caches, queues or RPC. Everything here is synchronous.

pub mod bundle;
pub mod clean;
pub mod decode;
pub mod device;
pub mod encoder;
pub mod picture;
pub mod prompts;
pub mod resize;
pub mod tokenize;
pub mod views;
