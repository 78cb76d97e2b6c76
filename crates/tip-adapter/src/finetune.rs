//! Tip-Adapter-F: training a cache's keys (Zhang et al., ECCV 2022, section
//! 3.2, and the authors' recipe).
//!
//! Only K trains; the encoders, V and the linear part stay. The loss is the
//! cross-entropy of the head's whole logits. The training input of an example
//! is one of its cached views, drawn anew each epoch: the encoder is frozen,
//! so this is the authors' training without the encoder.
//!
//! A [`Trainer`] goes in short steps, between which the caller may give the
//! device away, or stop for good. What comes out are the keys after the best
//! epoch, "after none" among them. An epoch is chosen by, in this order:
//!
//! 1. the validation examples, if there are some;
//! 2. views held back from training, one of each example, each scored without
//!    the example's own key, where examples have two views or more. Training
//!    has seen the same pictures under other crops, so this score is on the
//!    bright side: it tells epochs apart, it is no estimate of accuracy;
//! 3. nothing: the last epoch it is. Training accuracy would always choose it
//!    too, and anything else would be a guess dressed as a choice.

use tch::{Device, Tensor};

use super::head::{HeadError, Sorted};

mod draws;
mod error;
mod kernels;
mod operators;
mod options;
mod report;
mod scored;
mod trainer;

pub use error::TrainError;
pub use options::{Options, Schedule, TrainingSet};
pub use report::{EpochReport, Progress, Score, SearchSet, StepReport, Tuned};
use tip_kernels::adamw::AdamW;
pub use trainer::Trainer;

/// What training starts from, checked.
struct Start<'a> {
    classes: usize,
    keys: &'a Tensor,
    sorted: &'a Sorted,
    linear: Option<&'a Tensor>,
    bias: Option<&'a Tensor>,
    /// α times the class's factor, [N].
    weight: Tensor,
    beta: f64,
}

/// The keys, and the arithmetic of a step, on some device. `work` is a number
/// of multiplications after which to pause.
trait Weights: Send {
    /// Takes a batch, [B, D].
    fn begin(&mut self, features: &Tensor) -> Result<(), HeadError>;
    /// A slice of the forward pass; true when it was the last.
    fn forward(&mut self, work: usize) -> Result<bool, HeadError>;
    /// The batch's logits, [B, N].
    fn logits(&mut self) -> Result<Tensor, HeadError>;
    /// A slice of the backward pass and of the optimiser's step, from
    /// ∂loss/∂logits; true when it was the last.
    fn backward(
        &mut self,
        gradient: &Tensor,
        adamw: &AdamW,
        work: usize,
    ) -> Result<bool, HeadError>;
    /// Logits of any features, [B, N].
    fn score(&self, features: &Tensor) -> Result<Tensor, HeadError>;
    /// What each row's own key adds to the logit of its class, [B].
    fn own(&self, features: &Tensor, keys: &[usize]) -> Result<Tensor, HeadError>;
    /// The keys in the examples' order, f32 [M, D] on the CPU.
    fn keys(&self) -> Result<Tensor, HeadError>;
    fn device(&self) -> Device;
}
