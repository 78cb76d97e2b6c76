//! A version that `create` or `add` made.

use serde::Serialize;

use super::{cache::VersionDocument, rejected::RejectedDocument};

/// What `create --json` and `add --json` print.
#[derive(Debug, Serialize)]
pub(crate) struct VersionMadeDocument {
    /// The version, as `caches show` has it.
    pub version: VersionDocument,
    /// Examples that could not be used.
    pub rejected: Vec<RejectedDocument>,
    /// Examples read, validation ones included.
    pub example_count: u64,
    /// Classes that have fewer examples than --shots.
    pub short_classes: Vec<ShortClass>,
    /// From the first byte to the finished version.
    pub seconds: f64,
    /// `example_count` less the rejected ones, over `seconds`.
    pub examples_per_second: f64,
}

/// A class with fewer examples than asked for.
#[derive(Debug, Serialize)]
pub(crate) struct ShortClass {
    display_name: String,
    example_count: usize,
}

impl From<(String, usize)> for ShortClass {
    fn from((display_name, example_count): (String, usize)) -> Self {
        Self {
            display_name,
            example_count,
        }
    }
}
