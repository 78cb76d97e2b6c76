//! The flags that say when a picture counts as of no class that a version knows.

use clap::Args;

use tipserve_api::v1::RejectOptions;

/// Flags of `tipserve classify` and `tipserve evaluate`.
#[derive(Clone, Debug, Default, Args)]
pub struct RejectArgs {
    /// Say which pictures are of any class that the version knows; SHARE of the
    /// pictures of known classes are to be accepted [default: 0.95].
    #[arg(long, value_name = "SHARE", num_args = 0..=1, require_equals = true, default_missing_value = "0.95")]
    pub reject: Option<f64>,
    /// Say the same by a threshold of your own: pictures are accepted from this
    /// score on.
    #[arg(
        long,
        value_name = "SCORE",
        conflicts_with = "reject",
        allow_negative_numbers = true
    )]
    pub reject_below: Option<f64>,
    /// Accept answers of each class from the threshold on at which they are right
    /// with this precision; of versions with several labels an example, `classify`
    /// returns the labels at these thresholds.
    #[arg(long, value_name = "PRECISION", conflicts_with_all = ["reject", "reject_below"])]
    pub precision: Option<f64>,
}

impl RejectArgs {
    /// As the server takes them; none if no flag is given.
    pub fn options(&self) -> Option<RejectOptions> {
        let asked = RejectOptions {
            accept: self.reject,
            threshold: self.reject_below,
            precision: self.precision,
        };
        (asked != RejectOptions::default()).then_some(asked)
    }
}
