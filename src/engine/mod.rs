//! The engine: decode pool, batcher, device thread.
