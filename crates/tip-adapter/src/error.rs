//! What can be wrong with a request to make a head.

use thiserror::Error;

use super::spec::Method;

/// Why no head was made.
#[derive(Debug, Error)]
pub enum TipError {
    /// A tensor has the wrong shape.
    #[error("{thing} has shape {got:?}, expected {expected}")]
    Shape {
        /// The tensor's name: `keys`, `text weights`.
        thing: &'static str,
        /// The shape that was given.
        got: Vec<i64>,
        /// What it must look like.
        expected: String,
    },
    /// A tensor has the wrong number format.
    #[error("{thing} is {got}, expected {expected}")]
    Kind {
        /// The tensor's name, as in `Shape`.
        thing: &'static str,
        /// The number format that was given.
        got: String,
        /// The format that it must have.
        expected: &'static str,
    },
    /// A label names no class.
    #[error("{thing} {row} is {label}, but there are {classes} classes (0 to {classes} exclusive)")]
    Label {
        /// The kind of row that has the label: `label of item`.
        thing: &'static str,
        /// Position of the row that has it.
        row: i64,
        /// The label that was given.
        label: i64,
        /// N: labels run from 0 to N − 1.
        classes: usize,
    },
    /// A value is NaN or infinite.
    #[error("{thing} {row} holds a value that is not finite")]
    NotFinite {
        /// The tensor's name, as in `Shape`.
        thing: &'static str,
        /// The first row with such a value.
        row: i64,
    },
    /// A row is not of unit length.
    #[error("{thing} {row} has length {norm:.4}, expected 1 ± {tolerance}")]
    NotUnit {
        /// The tensor's name, as in `Shape`.
        thing: &'static str,
        /// The first row whose length is wrong.
        row: i64,
        /// The Euclidean length of that row.
        norm: f64,
        /// How far from 1 it may be.
        tolerance: f64,
    },
    /// A feature is all zeros (or its views cancel out): it has no direction.
    #[error("{thing} {row} has length {norm:e}: it has no direction to normalise")]
    NoDirection {
        /// The tensor's name, as in `Shape`.
        thing: &'static str,
        /// The first row without a direction.
        row: i64,
        /// The Euclidean length of that row, 0 or nearly.
        norm: f64,
    },
    /// There is nothing to make a classifier from.
    #[error("there are no classes")]
    NoClasses,
    /// There is nothing to make a classifier from.
    #[error("there are no examples and no text weights: nothing to classify by")]
    NoExamples,
    /// The method works on text weights and there are none.
    #[error("{0:?} needs text weights, and this cache has none")]
    NeedsText(Method),
    /// The method works on examples and there are none.
    #[error("{0:?} needs examples, and this cache has none")]
    NeedsExamples(Method),
    /// The method is made otherwise.
    #[error("{0:?} is made by fine-tuning, not from examples alone")]
    NotTrainingFree(Method),
    /// The method is what AUTO makes.
    #[error("{0:?} is what AUTO makes: leave the method out")]
    NotByName(Method),
    /// There are more keys than the method can take.
    #[error(
        "{method:?} takes at most {limit} keys, and there are {keys}: its dense \
         {keys} × {keys} system would need {gib:.1} GiB"
    )]
    TooManyKeys {
        /// The method whose system is dense.
        method: Method,
        /// M, the keys that were given.
        keys: i64,
        /// Most keys that the method takes.
        limit: i64,
        /// Memory that the solve would take.
        gib: f64,
    },
    /// A number is out of range.
    #[error("{thing} is {value}, expected {expected}")]
    Number {
        /// The number's name, as the request has it.
        thing: &'static str,
        /// The value that was given.
        value: f64,
        /// The range that it must be in, in words.
        expected: &'static str,
    },
    /// The system was not positive definite, even in f64.
    #[error("{method:?}'s linear system could not be factorised at β = {beta}, λ = {lambda}")]
    Singular {
        /// The method whose system it was.
        method: Method,
        /// β of the candidate that failed.
        beta: f64,
        /// λ of the candidate that failed.
        lambda: f64,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// Torch failed, for instance because memory ran out.
    #[error("torch: {0}")]
    Torch(#[from] tch::TchError),
}
