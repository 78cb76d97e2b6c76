//! The stages that an item passes, and how long it spends in each.

use std::time::Duration;

/// Where an item waits. [`EngineError::DeadlineExceeded`](crate::EngineError)
/// names the stage at which an item's deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Waiting for admission: permits for items and bytes.
    Admission,
    /// In the queue for a decoder.
    Decode,
    /// In the queue for a batch.
    Batch,
    /// For the embedding of an equal picture in flight (single-flight).
    EqualPicture,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stage::Admission => "at admission",
            Stage::Decode => "for a decoder",
            Stage::Batch => "for a batch",
            Stage::EqualPicture => "for the same picture sent before it",
        })
    }
}

/// How long each stage took.
#[derive(Clone, Copy, Debug, Default)]
pub struct StageTimes {
    /// Waiting for a decoder thread.
    pub decode_queue: Duration,
    /// Decoding, resizing and cropping the picture.
    pub decode: Duration,
    /// Waiting in the batch queue.
    pub queue: Duration,
    /// The batch in the encoder.
    pub encode: Duration,
    /// Computing logits and the top-k.
    pub head: Duration,
    /// From admission to the answer.
    pub total: Duration,
    /// Number of pictures in the batch that encoded the item.
    pub batch_size: usize,
}
