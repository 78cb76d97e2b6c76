//! Why a head could not be made, or could not answer.

use thiserror::Error;

use super::Backend;

/// Why a head could not be made resident, or could not answer.
#[derive(Debug, Error)]
pub enum HeadError {
    /// A tensor's shape does not fit the others.
    #[error("{what} has shape {found:?}, expected {expected}")]
    Shape {
        /// The tensor.
        what: &'static str,
        /// Its shape.
        found: Vec<i64>,
        /// What was expected, in words.
        expected: String,
    },
    /// A label is no class.
    #[error("label {label} of key {row} is outside 0..{classes}")]
    Label {
        /// The key.
        row: usize,
        /// Its label.
        label: i64,
        /// N.
        classes: usize,
    },
    /// More than the 32-bit row numbers hold.
    #[error("{count} {what} are more than the {limit} that a head can hold")]
    TooMany {
        /// Keys or classes.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A number in the specification that is not finite.
    #[error("{what} is {value}, which is not a finite number")]
    NotFinite {
        /// The number's name.
        what: &'static str,
        /// The number.
        value: f64,
    },
    /// A head without classes, or of no width at all.
    #[error(
        "a head needs a class and a linear part or keys; this one has {classes} classes, {what}"
    )]
    Empty {
        /// N.
        classes: usize,
        /// What is missing.
        what: &'static str,
    },
    /// A row that the batch does not have.
    #[error("row {row} is outside the batch of {batch}")]
    Row {
        /// The row.
        row: i64,
        /// B.
        batch: i64,
    },
    /// Neighbours were asked of a head that holds no examples.
    #[error("the head holds no example keys to find neighbours among")]
    NoExamples,
    /// The kernels asked for are not to be had here.
    #[error("this machine cannot run a head on {0:?}")]
    Backend(Backend),
    /// torch failed: out of memory, most often.
    #[error("torch: {0}")]
    Torch(#[from] tch::TchError),
}
