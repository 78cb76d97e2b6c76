//! How a version's traffic differs from its examples.

use serde::Serialize;

use super::format::time;
use tipserve_api::v1;

/// What `drift --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct DriftDocument {
    pub version: String,
    pub summary: String,
    pub since: Option<String>,
    pub item_count: i64,
    pub compared_count: i64,
    pub similarity_deciles: Vec<f64>,
    pub similarity_shares: Vec<f64>,
    pub similarity_index: Option<f64>,
    pub class_index: f64,
    pub classes: Vec<ClassTrafficDocument>,
    pub recognised_count: i64,
    pub rejected_share: f64,
}

/// A class's share of the examples and of the traffic.
#[derive(Debug, Serialize)]
pub(crate) struct ClassTrafficDocument {
    pub index: i32,
    pub display_name: String,
    pub expected_share: f64,
    pub share: f64,
}

impl From<v1::Drift> for DriftDocument {
    fn from(drift: v1::Drift) -> Self {
        let classes = drift.classes.into_iter();
        Self {
            version: drift.version,
            summary: drift.summary,
            since: time(drift.since),
            item_count: drift.item_count,
            compared_count: drift.compared_count,
            similarity_deciles: drift.similarity_deciles,
            similarity_shares: drift.similarity_shares,
            similarity_index: drift.similarity_index,
            class_index: drift.class_index,
            classes: classes
                .map(|class| ClassTrafficDocument {
                    index: class.index,
                    display_name: class.display_name,
                    expected_share: class.expected_share,
                    share: class.share,
                })
                .collect(),
            recognised_count: drift.recognised_count,
            rejected_share: drift.rejected_share,
        }
    }
}
