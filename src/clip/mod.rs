//! CLIP: the bundle, its encoders, preprocessing, tokenising, prompts.
