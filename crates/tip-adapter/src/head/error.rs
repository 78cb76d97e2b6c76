//! Why a head could not be made, or could not answer.

use thiserror::Error;

use super::Backend;

/// Why a head could not be made resident, or could not answer.
#[derive(Debug, Error)]
pub enum HeadError {
    /// A tensor's shape does not fit the others.
    #[error("{what} has shape {found:?}, expected {expected}")]
    Shape {
        /// The tensor's name: `keys`, `bias`.
        what: &'static str,
        /// The shape that was given.
        found: Vec<i64>,
        /// What was expected, in words.
        expected: String,
    },
    /// A label is no class.
    #[error("label {label} of key {row} is outside 0..{classes}")]
    Label {
        /// The key's row, from 0.
        row: usize,
        /// The label that was given.
        label: i64,
        /// N: labels run from 0 to N − 1.
        classes: usize,
    },
    /// More than the 32-bit row numbers hold.
    #[error("{count} {what} are more than the {limit} that a head can hold")]
    TooMany {
        /// What there are too many of: `keys` or `classes`.
        what: &'static str,
        /// The number that was given.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A number in the specification that is not finite.
    #[error("{what} is {value}, which is not a finite number")]
    NotFinite {
        /// The number's name, as the specification has it.
        what: &'static str,
        /// The value that was given.
        value: f64,
    },
    /// A head without classes, or of no width at all.
    #[error(
        "a head needs a class and a linear part or keys; this one has {classes} classes, {what}"
    )]
    Empty {
        /// N, the number of classes.
        classes: usize,
        /// The part that is missing, in words.
        what: &'static str,
    },
    /// A row that the batch does not have.
    #[error("row {row} is outside the batch of {batch}")]
    Row {
        /// The row that was asked for.
        row: i64,
        /// B, the rows of the batch.
        batch: i64,
    },
    /// Neighbours were asked of a head that holds no examples.
    #[error("the head holds no example keys to find neighbours among")]
    NoExamples,
    /// This processor cannot run the kernels asked for.
    #[error("this machine cannot run a head on {0:?}")]
    Backend(Backend),
    /// torch failed: out of memory, most often.
    #[error("torch: {0}")]
    Torch(#[from] tch::TchError),
}
