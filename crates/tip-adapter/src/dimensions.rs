//! Rows and columns of a tensor; an error if it has no such dimension.

use tch::{TchError, Tensor};

/// A number of rows, columns or elements, as Rust counts.
pub(crate) fn as_count(count: i64) -> Result<usize, TchError> {
    usize::try_from(count).map_err(|_| TchError::Shape(format!("{count} is no number of things")))
}

/// The first dimension: M of [M, D] or of [M].
pub(crate) fn row_count(tensor: &Tensor) -> Result<i64, TchError> {
    dimension(tensor, 0)
}

/// The second dimension: D of [M, D].
pub(crate) fn column_count(tensor: &Tensor) -> Result<i64, TchError> {
    dimension(tensor, 1)
}

fn dimension(tensor: &Tensor, at: usize) -> Result<i64, TchError> {
    let shape = tensor.size();
    let found = shape.get(at).copied();
    found.ok_or_else(|| TchError::Shape(format!("{shape:?} has no dimension {at}")))
}
