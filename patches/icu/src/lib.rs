//! The normalizers of ICU4X, where plsfix looks for them.

/// Canonical and compatibility forms (Unicode Standard Annex 15).
pub mod normalizer {
    pub use icu_normalizer::{ComposingNormalizer, DecomposingNormalizer};
}
