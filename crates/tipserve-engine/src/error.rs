//! Why a job has no answer.

use thiserror::Error;

use tipserve_clip::PictureError;

use crate::stage::Stage;

/// Why a job has no answer.
#[derive(Clone, Debug, Error)]
pub enum EngineError {
    /// The picture cannot be used.
    #[error("{0}")]
    Picture(PictureError),

    /// The decoder panicked on this picture.
    #[error("the decoder failed on this picture")]
    DecoderPanicked,

    /// The bundle has no image encoder.
    #[error("this server's bundle has no image encoder: it takes embeddings only")]
    NoImageEncoder,

    /// The deadline passed while the job waited.
    #[error("the deadline passed while the item waited ({stage})")]
    DeadlineExceeded {
        /// The stage it was waiting in when the deadline passed.
        stage: Stage,
    },

    /// The call was cancelled, or its connection closed, before the answer.
    #[error("cancelled by the caller")]
    Cancelled,

    /// The encoder failed on this very item.
    #[error("the encoder failed on this item: {detail}")]
    Encoder {
        /// What torch said, first line.
        detail: String,
    },

    /// The encoder gave NaN or infinity for this very item.
    #[error("the encoder gave a feature that is not finite or all zeros for this item")]
    NotFinite,

    /// Computing the logits failed; the feature itself was fine.
    #[error("the classifier's head failed: {detail}")]
    Head {
        /// What torch said, first line.
        detail: String,
    },

    /// The device can run nothing any more.
    #[error("the device is broken (a CUDA error that poisons its context); restart the server")]
    DeviceBroken,

    /// The engine is shutting down, or lost the job.
    #[error("the server is shutting down")]
    ShuttingDown,
}
