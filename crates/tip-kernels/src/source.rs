//! What a head is packed from, on every processor the same.

use std::sync::Arc;

use tip_spec::KeyDtype;

/// What `Packed::new` packs: plain slices, checked by the caller.
pub struct Source<'a> {
    pub classes: usize,
    pub width: usize,
    /// Weights of the linear part, [N, D].
    pub linear: Option<&'a [f32]>,
    /// Bias added to each class's logit, [N].
    pub bias: Option<&'a [f32]>,
    pub cache: Option<CacheSource<'a>>,
    pub dtype: KeyDtype,
}

/// What `Training::new` starts from, checked by the caller.
pub struct TrainingSource<'a> {
    pub classes: usize,
    pub width: usize,
    /// [M, D], in the examples' order.
    pub keys: &'a [f32],
    /// Class of each key in the order of `order`: ascending.
    pub sorted_labels: &'a [u32],
    /// The i-th sorted key's row.
    pub order: &'a std::sync::Arc<[u32]>,
    /// Weights of the linear part, [N, D].
    pub linear: Option<&'a [f32]>,
    /// Bias added to each class's logit, [N].
    pub bias: Option<&'a [f32]>,
    /// α times the class's factor, [N].
    pub weight: &'a [f32],
    pub beta: f32,
}

/// A cache's keys whose values are one-hot: each key counts for the class of
/// its label.
pub struct CacheSource<'a> {
    /// Unit keys, [M, D], in the order they were given.
    pub keys: &'a [f32],
    /// Class of each key in the order of `order`: ascending.
    pub sorted_labels: &'a [u32],
    /// The i-th sorted key's row.
    pub order: Arc<[u32]>,
    /// Bias added to each class's logit, [N].
    pub weight: &'a [f32],
    pub beta: f32,
}
