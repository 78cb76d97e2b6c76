//! CLIP's contracts, held against Python: Pillow, torchvision, open_clip.

mod bad_pictures;
mod bundles;
mod encoders;
mod families;
mod files;
mod graphs;
mod parts;
mod pictures;
mod reference;
mod shrinking;
mod tokens;
