//! Items that failed.

use serde::Serialize;

use tipserve_api::{code_name, v1};

/// Why one item failed, by the server's or by the client's own account.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ItemError {
    pub code: String,
    pub reason: Option<String>,
    pub message: String,
}

impl From<tonic_types::Status> for ItemError {
    fn from(status: tonic_types::Status) -> Self {
        use tonic_types::RpcStatusExt as _;
        Self {
            code: code_name(tonic::Code::from_i32(status.code)).to_owned(),
            reason: status
                .get_details_error_info()
                .map(|info| info.reason)
                .filter(|reason| !reason.is_empty()),
            message: status.message,
        }
    }
}

/// An example or item that could not be used.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RejectedDocument {
    pub id: String,
    #[serde(flatten)]
    pub error: ItemError,
}

impl From<v1::RejectedExample> for RejectedDocument {
    fn from(rejected: v1::RejectedExample) -> Self {
        Self {
            id: rejected.example_id,
            error: ItemError {
                code: code_name(tonic::Code::from_i32(rejected.code)).to_owned(),
                reason: Some(rejected.reason).filter(|reason| !reason.is_empty()),
                message: rejected.message,
            },
        }
    }
}
