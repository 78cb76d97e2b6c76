//! Versioned caches on an object store.
