//! The engine's promises, held with an encoder that tags: it answers each
//! picture with the number that the picture carries, so that a mixed-up
//! answer shows. No test looks at a clock; the device is held instead.

// A test stops where something is not as it says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod batches;
mod best;
mod embeddings;
mod failures;
mod lone;
mod overload;
mod sharing;
mod tagging;
mod warming;
