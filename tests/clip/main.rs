//! CLIP's contracts, held against Python: Pillow, torchvision, open_clip.

// A test stops where something is not as it says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod bad_pictures;
mod bundles;
mod encoders;
mod families;
mod files;
mod graphs;
mod parts;
mod pictures;
mod rare_files;
mod reference;
mod shrinking;
mod tensor_memory;
mod tokens;
