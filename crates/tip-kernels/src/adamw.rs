//! The optimiser's numbers.

/// AdamW's numbers for one step (Loshchilov and Hutter, ICLR 2019), with the
/// ε of the authors' recipe.
#[derive(Clone, Copy)]
pub struct AdamW {
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
    /// 1 − learning rate × weight decay.
    pub decay: f32,
    /// −learning rate / (1 − β₁ᵗ).
    pub size: f32,
    /// 1 / √(1 − β₂ᵗ).
    pub root: f32,
}

impl AdamW {
    /// For step t, from 1.
    pub fn new(learning_rate: f64, weight_decay: f64, step: usize) -> Self {
        let (beta1, beta2) = (0.9f64, 0.999f64);
        let t = step as f64;
        Self {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            epsilon: 1e-4,
            decay: (1.0 - learning_rate * weight_decay) as f32,
            size: (-learning_rate / (1.0 - beta1.powf(t))) as f32,
            root: (1.0 / (1.0 - beta2.powf(t)).sqrt()) as f32,
        }
    }
}
