//! Changes, made to their end once they have begun.

use std::time::Duration;

use tonic::{Code, Request};

use super::{error::ApiError, observe::carried};
use crate::{
    auth::{Caller, audit::AuditLine},
    catalog::CatalogError,
};

/// Who asks for a change, and its audit line.
pub(super) struct Change {
    pub caller: Caller,
    pub audit: AuditLine,
}

impl Change {
    /// The caller and audit line that the auth layer left with a request.
    pub fn of<T>(request: &Request<T>) -> Change {
        Change {
            caller: Caller::of(request.extensions()),
            audit: AuditLine::of(request.extensions()),
        }
    }
}

/// How long to wait whether the end of a request stream turns out to be the end
/// of the call.
const RESET: Duration = Duration::from_millis(20);

/// Waits until a call that was cancelled is dropped. tonic shows a request
/// stream that was reset as one that has ended, and a change that fails for
/// what is missing would be audited as invalid.
pub(super) async fn unless_reset() {
    tokio::time::sleep(RESET).await;
}

/// Makes a change in a task of its own, so that it is made or not: a caller
/// that goes away, or whose deadline passes, does not stop it half-way, and its
/// audit line has its outcome.
pub(super) async fn to_its_end<T: Send + 'static>(
    audit: AuditLine,
    change: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    let task = tokio::spawn(carried(async move {
        let made = change.await;
        audit.result(made.as_ref().map_or_else(ApiError::code, |_| Code::Ok));
        made
    }));
    task.await.map_err(CatalogError::internal)?
}
