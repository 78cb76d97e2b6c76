//! CLIP's contracts, held against Python: Pillow, torchvision, open_clip.

mod bad_pictures;
mod pictures;
mod reference;
