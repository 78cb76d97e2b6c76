//! CLIP: the bundle, its encoders, preprocessing, tokenising, prompts.
//!
//! Knows nothing of caches, queues or RPC. Everything here is synchronous.

pub mod bundle;
pub mod decode;
pub mod picture;
pub mod prompts;
pub mod resize;
pub mod views;
