//! Reports for people: a version that was made, evaluations.

mod evaluation;
mod rejected;
mod version;

pub(crate) use evaluation::evaluated;
pub(crate) use version::{gain, made, numbers, summary, version};
