//! Why an encoder fails: in a file of its own, since the encoders and what
//! speeds them up (fusing, CUDA graphs) both return it.

use std::path::PathBuf;

use thiserror::Error;

/// Why an encoder cannot be loaded or cannot encode.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// The bundle lacks this encoder: some take embeddings only, and not every
    /// one has int8 archives.
    #[error("the bundle {bundle} has no {encoder} encoder")]
    Absent {
        /// The bundle's `name`, from `bundle.toml`.
        bundle: String,
        /// Which encoder: `image`, `int8 image` or `text`.
        encoder: &'static str,
    },
    /// torch refuses the archive, or it cannot be read.
    #[error("{} does not load as TorchScript: {reason}", path.display())]
    Unloadable {
        /// The TorchScript archive.
        path: PathBuf,
        /// torch's own message, without its stack.
        reason: String,
    },
    /// The input's shape or type is not what the encoder takes.
    #[error("the {encoder} encoder takes {expected}, it was given {found}")]
    Input {
        /// Which encoder: `image` or `text`.
        encoder: &'static str,
        /// Shape and type that it takes.
        expected: String,
        /// Shape and type that it was given.
        found: String,
    },
    /// The features' shape is not what the bundle states.
    #[error("the {encoder} encoder gave features of shape {found:?}; {expected:?} is expected")]
    Output {
        /// Which encoder: `image` or `text`.
        encoder: &'static str,
        /// [B, D]: rows of the input, and the bundle's width.
        expected: [i64; 2],
        /// The shape that the encoder returned.
        found: Vec<i64>,
    },
    /// torch failed while encoding, for example because memory ran out.
    #[error("the {encoder} encoder failed: {reason}")]
    Torch {
        /// Which encoder: `image` or `text`.
        encoder: &'static str,
        /// torch's own message, without its stack.
        reason: String,
    },
}

impl EncodeError {
    /// Whether a device ran out of memory: a smaller batch may then succeed.
    pub fn is_out_of_memory(&self) -> bool {
        const SIGNS: [&str; 3] = [
            "CUDA out of memory",
            "CUBLAS_STATUS_ALLOC_FAILED",
            "CUDNN_STATUS_ALLOC_FAILED",
        ];
        matches!(self, EncodeError::Torch { reason, .. }
            if SIGNS.iter().any(|sign| reason.contains(sign)))
    }
}
