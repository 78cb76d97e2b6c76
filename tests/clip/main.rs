//! CLIP's contracts, held against Python: Pillow, torchvision, open_clip.

mod bad_pictures;
mod bundles;
mod encoders;
mod files;
mod graphs;
mod pictures;
mod reference;
mod shrinking;
mod tokens;
