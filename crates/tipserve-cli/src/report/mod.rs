//! Reports for people: a version that was made, evaluations, what to do next.

mod analysis;
mod drift;
mod evaluation;
mod rejected;
mod suggestions;
mod version;

pub(crate) use analysis::analyzed;
pub(crate) use drift::drifted;
pub(crate) use evaluation::evaluated;
pub(crate) use suggestions::suggested;
pub(crate) use version::{made, numbers, summary, tuned, version};
