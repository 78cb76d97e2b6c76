//! CLIP: the bundle, its encoders, preprocessing, tokenising, prompts.
//!
//! Knows nothing of caches, queues or RPC. Everything here is synchronous.

pub mod bundle;
pub mod clean;
pub mod cuda;
pub mod decode;
pub mod device;
pub mod encoder;
pub mod graphs;
pub mod lanes;
pub mod picture;
pub mod prompts;
pub mod resize;
pub mod tokenize;
pub mod views;

pub use bundle::{Bundle, BundleError, ImageSpec};
pub use decode::{DecodeOptions, ExifOrientation, decode, decode_with};
pub use device::{DeviceChoice, DeviceError, DtypeChoice};
pub use encoder::{EncodeError, ImageEncoder, TextEncoder};
pub use graphs::GraphsChoice;
pub use lanes::Lanes;
pub use picture::{Picture, PictureError, PictureLimits};
pub use prompts::{PromptError, classifier as classifier_rows, fill as fill_templates};
pub use tokenize::{TextError, Tokenizer, TokenizerError};
pub use views::{prepare, view, view_rng};
