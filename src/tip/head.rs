//! The one head that serves every method:
//! `logits = f·Lᵀ + b + exp(−β(1 − f·Kᵀ))·V`.

use tch::Tensor;

/// V, the values of the keys.
#[derive(Debug)]
pub enum Values {
    /// One-hot labels times a weight per class.
    OneHot {
        /// int64 [M], each in 0..N, in any order.
        labels: Tensor,
        /// f32 [N]: α, times the class's factor under `ClassBalance::Mean`.
        weight: Tensor,
    },
    /// f32 [M, N].
    Dense(Tensor),
}

/// A head's tensors as they are made and stored, f32 on the CPU.
#[derive(Debug)]
pub struct HeadTensors {
    /// N: given, never taken from the largest label.
    pub classes: usize,
    /// L [N, D]; none where only the cache decides.
    pub linear: Option<Tensor>,
    /// b [N].
    pub bias: Option<Tensor>,
    /// K [M, D] (unit rows, but for trained keys) and V.
    pub cache: Option<(Tensor, Values)>,
}
