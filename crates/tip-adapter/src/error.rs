//! What can be wrong with a request to make a head.

use thiserror::Error;

use super::spec::Method;

/// Why no head was made.
#[derive(Debug, Error)]
pub enum TipError {
    /// A tensor has another shape than it must have.
    #[error("{thing} has shape {got:?}, expected {expected}")]
    Shape {
        /// Which tensor.
        thing: &'static str,
        /// Its shape.
        got: Vec<i64>,
        /// What it must look like.
        expected: String,
    },
    /// A tensor has another number format than it must have.
    #[error("{thing} is {got}, expected {expected}")]
    Kind {
        /// Which tensor.
        thing: &'static str,
        /// Its kind.
        got: String,
        /// What it must be.
        expected: &'static str,
    },
    /// A label names no class.
    #[error("{thing} {row} is {label}, but there are {classes} classes (0 to {classes} exclusive)")]
    Label {
        /// Which labels.
        thing: &'static str,
        /// Position of the label.
        row: i64,
        /// The label.
        label: i64,
        /// N.
        classes: usize,
    },
    /// A value is NaN or infinite.
    #[error("{thing} {row} holds a value that is not finite")]
    NotFinite {
        /// Which tensor.
        thing: &'static str,
        /// Its first bad row.
        row: i64,
    },
    /// A row is not of unit length.
    #[error("{thing} {row} has length {norm:.4}, expected 1 ± {tolerance}")]
    NotUnit {
        /// Which tensor.
        thing: &'static str,
        /// Its first bad row.
        row: i64,
        /// The row's length.
        norm: f64,
        /// How far from 1 it may be.
        tolerance: f64,
    },
    /// A feature is all zeros (or its views cancel out): it has no direction.
    #[error("{thing} {row} has length {norm:e}: it has no direction to normalise")]
    NoDirection {
        /// Which tensor.
        thing: &'static str,
        /// Its first bad row.
        row: i64,
        /// Its length.
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
    /// The method cannot take so many keys.
    #[error(
        "{method:?} takes at most {limit} keys, and there are {keys}: its dense \
         {keys} × {keys} system would need {gib:.1} GiB"
    )]
    TooManyKeys {
        /// The method.
        method: Method,
        /// M.
        keys: i64,
        /// The bound.
        limit: i64,
        /// Memory that the solve would take.
        gib: f64,
    },
    /// A number is outside what it may be.
    #[error("{thing} is {value}, expected {expected}")]
    Number {
        /// Which number.
        thing: &'static str,
        /// What it is.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// The system was not positive definite, even in f64.
    #[error("{method:?}'s linear system could not be factorised at β = {beta}, λ = {lambda}")]
    Singular {
        /// The method.
        method: Method,
        /// β.
        beta: f64,
        /// λ.
        lambda: f64,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// Torch failed, for instance for want of memory.
    #[error("torch: {0}")]
    Torch(#[from] tch::TchError),
}
