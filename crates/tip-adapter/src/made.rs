//! A head that was made.

use super::{head::HeadTensors, spec::HeadSpec, unseen::UnseenAnswers};

/// A head: its numbers and its tensors.
#[derive(Debug)]
pub struct Made {
    /// The head's numbers, which go into the manifest.
    pub spec: HeadSpec,
    /// f32, on the CPU; keys and labels share the material's memory.
    pub tensors: HeadTensors,
    /// What it says of the validation examples, else of its own examples left
    /// out; none if it can leave none out.
    pub unseen: Option<UnseenAnswers>,
}
