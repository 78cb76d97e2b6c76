//! CLIP for a server: pictures and texts in, features out.
//!
//! - [`Bundle`]: a model on disk (TorchScript encoders, preprocessing,
//!   tokenizer, prompts), opened, checked and fingerprinted.
//! - [`Picture`]: RGB of one picture, [`decode`]d within [`PictureLimits`] to
//!   the bytes that Pillow gives, then [`prepare`]d as CLIP's own pipeline does.
//! - [`ImageEncoder`] and [`TextEncoder`]: prepared pictures u8 [B, S, S, 3],
//!   or token ids, to raw features f32 [B, D], on the CPU; [`StreamPool`] runs
//!   image encoders on CUDA devices with several batches under way.
//!
//! Knows nothing of caches, queues or RPC. Everything here is synchronous.
//!
//! ```
//! use tipserve_clip::{PictureLimits, decode};
//!
//! // Two pixels, white and black, as a portable bitmap.
//! let picture = decode(b"P1 2 1 0 1", &PictureLimits::default())?;
//! assert_eq!((picture.width(), picture.height()), (2, 1));
//! assert_eq!(picture.rgb(), [255, 255, 255, 0, 0, 0]);
//!
//! // What is no picture is an error that says why.
//! let error = decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", &PictureLimits::default());
//! assert!(error.unwrap_err().to_string().starts_with("HEIC (convert it to JPEG"));
//! # Ok::<(), tipserve_clip::PictureError>(())
//! ```

pub mod bundle;
pub mod clean;
pub mod cuda;
pub mod decode;
pub mod device;
mod encode_error;
pub mod encoder;
pub mod fused;
pub mod graphs;
pub mod image_spec;
pub mod int8;
mod module;
pub mod picture;
pub mod precision;
pub mod prompts;
pub mod resize;
pub mod statistics;
pub mod stream_pool;
pub mod tensor_memory;
pub mod text_spec;
pub mod thumbnail;
pub mod tokenize;
pub mod views;
mod violation;

pub use bundle::{Bundle, BundleError};
pub use decode::{DecodeOptions, ExifOrientation, decode, decode_with};
pub use device::{DeviceChoice, DeviceError, DtypeChoice};
pub use encoder::{EncodeError, ImageEncoder, TextEncoder};
pub use fused::Fusing;
pub use graphs::GraphsChoice;
pub use image_spec::{ImageSpec, PartShare, PartSpec, ResizeRule, Size};
pub use int8::{Agreement, Int8Archives};
pub use picture::{Picture, PictureError, PictureLimits};
pub use precision::Precision;
pub use prompts::{PromptError, classifier as classifier_rows, fill as fill_templates};
pub use statistics::Statistics;
pub use stream_pool::StreamPool;
pub use text_spec::{PadSide, TextRules, TextSpec};
pub use thumbnail::{MAX_THUMBNAIL_BYTES, thumbnail, thumbnail_of_file};
pub use tokenize::{TextError, Tokenizer, TokenizerError};
pub use views::{prepare, view, view_rng};
