//! Metrics and tracing, every name once.
