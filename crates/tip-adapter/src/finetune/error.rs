//! Why training cannot start, or stopped.

use thiserror::Error;

use crate::head::HeadError;

/// Why training cannot start, or stopped.
#[derive(Debug, Error)]
pub enum TrainError {
    /// An option outside its limits.
    #[error("{name} is {value}, outside {limits}")]
    Option {
        /// The option's name, as in [`Options`](super::Options).
        name: &'static str,
        /// The value that was given.
        value: f64,
        /// What it may be, in words.
        limits: &'static str,
    },
    /// There are no examples to train on.
    #[error("there are no examples to train on")]
    NoExamples,
    /// The loss is no longer a number.
    #[error(
        "training diverged: the loss is {loss} in epoch {epoch}, step {step}; \
         a lower learning rate or a smaller β or α may help"
    )]
    Diverged {
        /// The epoch under way, from 1.
        epoch: usize,
        /// The step, over all epochs, from 1.
        step: usize,
        /// The step's loss, which is not finite.
        loss: f64,
    },
    /// [`Trainer::finish`] was called before [`Progress::Finished`].
    #[error("training is not finished: {step} of {steps} steps are done")]
    Unfinished {
        /// Optimiser steps done so far.
        step: usize,
        /// Optimiser steps of the whole training.
        steps: usize,
    },
    /// Tensors that do not fit together, or torch's own.
    #[error(transparent)]
    Head(#[from] HeadError),
}

impl From<tch::TchError> for TrainError {
    fn from(e: tch::TchError) -> Self {
        Self::Head(e.into())
    }
}
