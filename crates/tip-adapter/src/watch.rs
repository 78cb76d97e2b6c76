//! Long work says how far it is, and hears whether to go on.

use super::{error::TipError, spec::Method};

/// How far making a head is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The method that is tried or made.
    pub method: Method,
    /// Numbers tried.
    pub done: usize,
    /// Of so many.
    pub total: usize,
}

/// Tells the caller how far it is, and hears whether to go on.
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

/// Whether to go on, asked between two large products.
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
