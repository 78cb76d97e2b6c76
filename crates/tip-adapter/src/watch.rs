//! Progress and cancellation of long work.

use super::{error::TipError, spec::Method};

/// How far making a head is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The method that is tried or made.
    pub method: Method,
    /// Numbers (candidates, folds) done so far.
    pub done: usize,
    /// Numbers to be done in all.
    pub total: usize,
}

/// Reports progress to the caller, and stops the work if it returns false.
pub(super) struct Watch<'a>(pub &'a dyn Fn(Progress) -> bool);

impl Watch<'_> {
    pub fn step(&self, method: Method, done: usize, total: usize) -> Result<(), TipError> {
        if (self.0)(Progress {
            method,
            done,
            total,
        }) {
            Ok(())
        } else {
            Err(TipError::Cancelled)
        }
    }
}

/// Asks the caller between two large products whether to go on.
#[derive(Clone, Copy)]
pub(super) struct GoOn<'a>(pub &'a dyn Fn() -> bool);

impl GoOn<'_> {
    /// # Errors
    /// [`TipError::Cancelled`] once the caller says no.
    pub fn check(&self) -> Result<(), TipError> {
        if (self.0)() {
            Ok(())
        } else {
            Err(TipError::Cancelled)
        }
    }
}
